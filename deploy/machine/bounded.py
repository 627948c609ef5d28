"""Files of settings and records, read up to a size: what is larger is refused before it is in memory."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

MAX_STATE_BYTES = 2**20
"""What a process writes of itself for others: who is supervised, why a run was given up."""
MAX_RECORD_BYTES = 64 * 2**20
"""Records of runs, their events, and what a site keeps of a table: they grow with sites, rounds and patients."""
_PART_BYTES = 2**20


class FileTooLarge(OSError):
    """A file of more bytes than are read. An `OSError`: whoever reports files that cannot be read reports it."""

    def __init__(self, path: Path, *, most_bytes: int) -> None:
        super().__init__(errno.EFBIG, f"more than the {most_bytes} bytes allowed", str(path))


def read_at_most(path: Path, *, most_bytes: int) -> bytes:
    """A file's content.

    Raises
    ------
    FileTooLarge
        If it holds more; no more than `most_bytes` + 1 were read.
    OSError
        If it cannot be read.
    """
    content = bytearray()
    with path.open("rb") as stream:
        # Part by part: for one `read` of so many bytes a buffer of all of them is made, however small the file is.
        while part := stream.read(min(_PART_BYTES, most_bytes + 1 - len(content))):
            content += part
    if len(content) > most_bytes:
        raise FileTooLarge(path, most_bytes=most_bytes)
    return bytes(content)


def read_text_at_most(path: Path, *, most_bytes: int) -> str:
    """A file's content as text in UTF-8. Raises as `read_at_most` does, and `UnicodeDecodeError`."""
    return read_at_most(path, most_bytes=most_bytes).decode("utf-8")


def read_json(path: Path, *, most_bytes: int, encoding: str = "utf-8") -> Any:
    """A JSON file's value.

    Raises
    ------
    FileTooLarge
        If it has more bytes.
    OSError
        If it cannot be read.
    ValueError
        If it is no JSON in this encoding, or is nested too deeply.
    """
    text = read_at_most(path, most_bytes=most_bytes).decode(encoding)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
