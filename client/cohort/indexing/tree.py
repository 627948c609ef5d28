"""All regular files below a folder with their stamps; links are not followed."""

from __future__ import annotations

import hashlib
import marshal
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fedage.common.errors import FedAgeError

DEEP = 16
"""Levels below which folders are remembered; a circle of mounts gets there, an archive hardly does."""

Stamp = tuple[int, int]
"""Detects a change of a file: modification time in nanoseconds and size in bytes."""


@dataclass
class Tree:
    """What is below a folder.

    Parameters
    ----------
    root
        The folder.
    files
        Stamps of the regular files, by path relative to the root.
    links
        Number of symbolic links, which are left alone.
    closed
        Folders that could not be opened.
    """

    root: Path
    files: dict[str, Stamp] = field(default_factory=dict)
    links: int = 0
    closed: list[str] = field(default_factory=list)

    def vanished(self, path: str) -> bool:
        """Whether a known file is gone; files below a folder that cannot be opened are not counted as gone."""
        return path not in self.files and not path.startswith(tuple(f"{folder}/" for folder in self.closed))

    @cached_property
    def folded(self) -> frozenset[str]:
        """The files' paths without regard to case."""
        return frozenset(path.casefold() for path in self.files)

    def digest(self) -> str:
        """SHA-256 over root, paths, stamps and closed folders: equal exactly for a tree that looks the same."""
        paths = sorted(self.files)
        contents = (str(self.root), sorted(self.closed), paths, [self.files[path] for path in paths])
        return hashlib.sha256(marshal.dumps(contents, 2)).hexdigest()  # version 2: equal values, equal bytes


def walk(root: Path) -> Tree:
    """Every regular file below the root.

    Links are not followed: they could lead anywhere, or round in a circle. A folder that is mounted into itself ends
    where it comes round again.

    Raises
    ------
    FedAgeError
        If the root cannot be read as a folder.
    """
    tree, folders, visited = Tree(root), [""], set[tuple[int, int]]()
    while folders:
        folder = folders.pop()
        path = f"{root}/{folder}"
        try:
            if folder.count("/") >= DEEP:
                state = os.stat(path)  # noqa: PTH116 (as a string, like all of this loop: Path objects cost more)
                if (state.st_dev, state.st_ino) in visited:
                    continue
                visited.add((state.st_dev, state.st_ino))
            with os.scandir(path) as entries:
                _look_at(entries, tree, f"{folder}/" if folder else "", folders)
        except OSError as error:
            if not folder:
                raise FedAgeError(
                    f"{root} cannot be read as a folder ({error.strerror}); set data in site.toml to the images' folder"
                ) from None
            tree.closed.append(folder)
    return tree


def _look_at(entries: Iterable[os.DirEntry[str]], tree: Tree, prefix: str, folders: list[str]) -> None:
    files = tree.files
    for entry in entries:
        if entry.is_file(follow_symlinks=False):
            try:
                state = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # removed while the walk went on
                continue
            files[prefix + entry.name] = (state.st_mtime_ns, state.st_size)
        elif entry.is_dir(follow_symlinks=False):
            folders.append(prefix + entry.name)
        elif entry.is_symlink():
            tree.links += 1
