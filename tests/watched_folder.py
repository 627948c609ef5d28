"""Files that appear in a folder, told in the moment when they do: inotify of Linux."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path


class WatchedFolder:
    """Tells of files that are made in a folder or moved there."""

    _MADE, _MOVED = 0x100, 0x80

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._file = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(self._file, os.fsencode(path), self._MADE | self._MOVED) > 0, path

    def names(self, *, timeout_s: float) -> list[str]:
        """Those since the last call; waits for the first."""
        if not select.select([self._file], [], [], timeout_s)[0]:
            return []
        content, found, at = os.read(self._file, 65536), list[str](), 0
        while at < len(content):
            size = struct.unpack_from("iIII", content, at)[3]
            found.append(content[at + 16 : at + 16 + size].rstrip(b"\0").decode())
            at += 16 + size
        return found

    def close(self) -> None:
        os.close(self._file)
