"""Files that are there as a whole or not at all, however the process that writes them ends."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(
    path: Path,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    durable: bool = True,
    replaces: bool = True,
) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of `path` when the block ends, and is discarded if the block raises.

    The content is written to a new file in the same folder, whose name begins with a dot and ends with `.partial`; no
    link that somebody has put there is followed.

    Parameters
    ----------
    mode
        Permissions, from the first byte on; the umask narrows them no further.
    owner
        User and group id; None for this process's.
    durable
        Whether file and folder are synchronised, so that the new content survives a power cut, not only the process.
    replaces
        Whether a file that is there already is replaced.

    Raises
    ------
    FileExistsError
        Without `replaces`, if another process or an earlier call has written the file; that one stays.
    OSError
        If the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            if durable:
                os.fsync(stream.fileno())
        if replaces:
            partial.replace(path)
        else:
            os.link(partial, path)  # unlike a rename, it fails if the file is there
        if durable:
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(
    path: Path,
    content: bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    durable: bool = True,
    replaces: bool = True,
) -> None:
    """Write a file as a whole; parameters and errors as of `atomic_file`."""
    with atomic_file(path, mode=mode, owner=owner, durable=durable, replaces=replaces) as stream:
        stream.write(content)


def sync(path: Path) -> None:
    """Synchronise a folder's entries, or a closed file, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
