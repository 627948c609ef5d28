"""How the store writes down where an image lies, beyond what a path says."""

from __future__ import annotations

from typing import NamedTuple

SEPARATOR = "\0"
"""Between an archive and its member; with nothing in front, what follows names a series of slices."""
OBLIQUE = "oblique"
"""Ends the orientation of a stack whose slices do not lie straight above each other."""


class FileStamp(NamedTuple):
    """A file as the walk saw it: path relative to the root, modification time, size in bytes."""

    path: str
    mtime_ns: int
    size: int
