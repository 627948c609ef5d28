"""What lies below a folder: every regular file with its stamp, nothing followed, nothing walked twice."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from fedage.common.errors import FedAgeError


class Stamp(NamedTuple):
    """By what a change of a file is noticed: modification time and size in bytes."""

    mtime_ns: int
    size: int


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
        """Whether a known file is gone; below a folder that cannot be opened nobody knows."""
        return path not in self.files and not path.startswith(tuple(f"{folder}/" for folder in self.closed))

    @cached_property
    def folded(self) -> frozenset[str]:
        """The files' paths without regard to case."""
        return frozenset(path.casefold() for path in self.files)

    def digest(self) -> str:
        """SHA-256 over root, paths, stamps and closed folders: equal exactly for a tree that looks the same."""
        lines = [f"{path}\0{stamp[0]}\0{stamp[1]}" for path, stamp in sorted(self.files.items())]
        text = "\0\0".join([str(self.root), *sorted(self.closed), "", *lines])
        return hashlib.sha256(os.fsencode(text)).hexdigest()


def walk(root: Path) -> Tree:
    """Every regular file below the root.

    Links are not followed: they could lead anywhere, or round in a circle. A folder that is mounted twice, or into
    itself, is walked once.

    Raises
    ------
    FedAgeError
        If the root cannot be read as a folder.
    """
    tree, folders, walked = Tree(root), [""], set[tuple[int, int]]()
    while folders:
        folder = folders.pop()
        try:
            state = (root / folder).stat()
            if (state.st_dev, state.st_ino) in walked:
                continue
            walked.add((state.st_dev, state.st_ino))
            _look_into(tree, folder, folders)
        except OSError as error:
            if not folder:
                raise FedAgeError(
                    f"{root} cannot be read as a folder ({error.strerror}); set data in site.toml to the images' folder"
                ) from None
            tree.closed.append(folder)
    return tree


def _look_into(tree: Tree, folder: str, folders: list[str]) -> None:
    files, prefix = tree.files, f"{folder}/" if folder else ""
    with os.scandir(tree.root / folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                try:
                    state = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # removed while the walk went on
                    continue
                files[prefix + entry.name] = Stamp(state.st_mtime_ns, state.st_size)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(prefix + entry.name)
            elif entry.is_symlink():
                tree.links += 1
