"""Zipped studies, read member by member in memory; and opening an image in a folder or an archive.

A member's path is the archive's path, a NUL, and the member's name. No file name contains a NUL.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from fedage.client.cohort.dicom.facts import open_nonblocking
from fedage.client.cohort.dicom.header import INFLATED_FREE_BYTES, MAX_INFLATED_BYTES, MAX_INFLATION
from fedage.client.cohort.paths import SEPARATOR
from fedage.client.cohort.reasons import Reason

MAX_MEMBERS = 100_000
MAX_DIRECTORY_BYTES = 64 * 2**20
"""Largest central directory that is read into memory."""
EXPANSION_FREE_BYTES, MAX_EXPANSION = 2**30, 100
"""What any archive may unpack to, and how many times its own size beyond that."""

_PIECE_BYTES = 2**20
_LOCAL_HEADER = struct.Struct("<26x2H")
"""What a member's own header says that the directory does not: how long its name and extra field are."""
_STARTS = (b"PK\x03\x04", b"PK\x05\x06")


class Refused(Exception):
    """An archive or a member that is not read. `.code` says why."""

    def __init__(self, code: Reason) -> None:
        self.code = code
        super().__init__(str(code))


def is_archive(start: bytes) -> bool:
    """Whether a file that starts like this is a zip."""
    return start.startswith(_STARTS)


def open_image(path: Path) -> BinaryIO:
    """Open a file, or a member of an archive, from its beginning; for reading only.

    Raises
    ------
    OSError, Refused
        If it is not there, or not read.
    """
    file, _, member = str(path).partition(SEPARATOR)
    if not member:
        return open(file, "rb", opener=open_nonblocking)
    with io.FileIO(file, "rb", opener=open_nonblocking) as stream:
        state = os.fstat(stream.fileno())
        info = _directory(file, state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size).get(member)
        if info is None:
            raise Refused(Reason.BROKEN_ARCHIVE)
        return io.BytesIO(_content(stream, info))


def members(path: Path) -> Iterator[tuple[str, bytes | Reason]]:
    """Name and content of every file in an archive, one in memory at a time; or why one is not read.

    Raises
    ------
    OSError, Refused
        If the archive as a whole is not read.
    """
    with _open(path) as (archive, stream):
        replaced: Counter[str] = Counter()
        for info in archive.infolist():
            name = info.filename
            if info.is_dir():
                continue
            if archive.NameToInfo[name] is not info:
                replaced[name] += 1
                yield f"{name}{SEPARATOR}{replaced[name]}", Reason.REPEATED_NAME
                continue
            try:
                content = _content(stream, info)
            except Refused as refused:
                yield name, refused.code
            else:
                yield name, Reason.NESTED_ARCHIVE if is_archive(content[:4]) else content


@lru_cache(maxsize=4)
def _directory(path: str, *_state: int) -> Mapping[str, zipfile.ZipInfo]:
    """The members of an archive by name: reading it anew for each of its members would take the square of the time.

    Only what was read is kept; an open file would hold on to a disk that the hospital wants to take out.
    """
    with _open(Path(path)) as (archive, _):
        return archive.NameToInfo


@contextmanager
def _open(path: Path) -> Iterator[tuple[zipfile.ZipFile, BinaryIO]]:
    with _BoundedDirectoryReader(path) as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError):
            raise Refused(Reason.BROKEN_ARCHIVE) from None
        with archive:
            infos = archive.infolist()
            files, unpacked_bytes = sum(not info.is_dir() for info in infos), sum(info.file_size for info in infos)
            allowed_bytes = EXPANSION_FREE_BYTES + MAX_EXPANSION * os.fstat(stream.fileno()).st_size
            if files > MAX_MEMBERS or unpacked_bytes > allowed_bytes:
                raise Refused(Reason.ARCHIVE_TOO_LARGE)
            if not files:
                raise Refused(Reason.BROKEN_ARCHIVE)
            stream.directory_read = True
            yield archive, stream


def _content(stream: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    """A member of the archive in `stream`, whole and checked against its checksum.

    Read in pieces: in one, zipfile would inflate up to 2 GiB before it noticed that the directory promised less.
    """
    if info.flag_bits & 0x1:
        raise Refused(Reason.ENCRYPTED)
    if info.file_size > min(MAX_INFLATED_BYTES, INFLATED_FREE_BYTES + MAX_INFLATION * info.compress_size):
        raise Refused(Reason.TOO_LARGE)
    try:
        stream.seek(info.header_offset)
        head = stream.read(_LOCAL_HEADER.size)
        if not head.startswith(_STARTS[0]):
            raise Refused(Reason.BROKEN_ARCHIVE)
        name_bytes, extra_bytes = _LOCAL_HEADER.unpack(head)
        stream.seek(name_bytes + extra_bytes, os.SEEK_CUR)
        with zipfile.ZipExtFile(stream, "r", info) as member:
            return b"".join(iter(lambda: member.read(_PIECE_BYTES), b""))
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        EOFError,
        zlib.error,
        RuntimeError,
        OSError,
        struct.error,
    ):
        raise Refused(Reason.BROKEN_ARCHIVE) from None


class _BoundedDirectoryReader(io.BufferedReader):
    """A file that refuses reads above `MAX_DIRECTORY_BYTES` until zipfile has read the archive's directory."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(str(path), "rb", opener=open_nonblocking))
        self.directory_read = False

    def read(self, size: int | None = -1, /) -> bytes:
        if self.directory_read:
            return super().read(size)
        content = super().read(
            MAX_DIRECTORY_BYTES + 1 if size is None or size < 0 else min(size, MAX_DIRECTORY_BYTES + 1)
        )
        if len(content) > MAX_DIRECTORY_BYTES:
            raise Refused(Reason.ARCHIVE_TOO_LARGE)
        return content
