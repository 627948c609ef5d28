"""Bodies of requests and answers: few bytes in memory, many in a file without a name until they are needed.

As many sites as there are send and fetch a model at once, each as slowly as its line is: what waits for a line must not
be memory, or the SuperLink's would grow with the sites.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

_IN_MEMORY_BYTES = 1 << 20
_PIECE_BYTES = 1 << 18


class Body:
    """Bytes that are added, and then read as a whole or in pieces. To be closed.

    Parameters
    ----------
    folder
        Where a file without a name may lie; None for the machine's own.
    content
        The first bytes.
    """

    def __init__(self, folder: Path | None, content: bytes = b"") -> None:
        self._folder = folder
        self._parts: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._size = 0
        self.add(content)

    def __len__(self) -> int:
        return self._size

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_why: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def add(self, content: bytes) -> None:
        """Append."""
        self._size += len(content)
        if self._file is None and self._size > _IN_MEMORY_BYTES:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by `close`
            self._file.writelines(self._parts)
            self._parts = []
        if self._file is not None:
            self._file.write(content)
        elif content:
            self._parts.append(content)

    def whole(self) -> bytes:
        """All of it."""
        if self._file is None:
            return b"".join(self._parts)
        self._file.seek(0)
        return self._file.read()

    def pieces(self) -> Iterator[bytes]:
        """All of it, a piece at a time; at least one."""
        if self._file is None:
            yield self.whole()
            return
        self._file.seek(0)
        while piece := self._file.read(_PIECE_BYTES):
            yield piece

    def close(self) -> None:
        """Forget it."""
        self._parts = []
        if self._file is not None:
            self._file.close()
