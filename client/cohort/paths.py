"""Conventions for paths of images in archives and series, and the stamp of a file."""

from __future__ import annotations

from typing import NamedTuple

SEPARATOR = "\0"
"""Separates an archive from its member; at the start of a path it marks a series of slices."""
OBLIQUE = "oblique"
"""Suffix of the orientation of a stack that is oblique to the body's planes."""


class FileStamp(NamedTuple):
    """A file as the walk saw it: path relative to the root, modification time, size in bytes."""

    path: str
    mtime_ns: int
    size: int
