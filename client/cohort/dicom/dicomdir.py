"""Files that a DICOMDIR lists (PS3.10 section 8, PS3.3 annex F), to detect those missing from a medium."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pydicom

from fedage.client.cohort.dicom.decoder_logs import silence_decoders
from fedage.client.cohort.dicom.facts import open_nonblocking

MAX_DIRECTORY_BYTES = 64 * 2**20


class Unreadable(ValueError):
    """A DICOMDIR that cannot be read."""


def missing_files(root: Path, path: str, *, known_paths: Container[str]) -> list[str]:
    """Files that a DICOMDIR lists and that are missing, as paths relative to the root, in its order.

    Files that exist are read by the walk, whether a DICOMDIR lists them or not.

    Parameters
    ----------
    root, path
        The indexed folder, and the DICOMDIR's path relative to it.
    known_paths
        Case-folded paths of all files: media are often mounted with their names in lower case.

    Raises
    ------
    Unreadable
        If it is too large or breaks the rules.
    """
    try:
        with open(root / path, "rb", opener=open_nonblocking) as stream:
            if os.fstat(stream.fileno()).st_size > MAX_DIRECTORY_BYTES:
                raise Unreadable
            return missing_files_in_stream(stream, path, known_paths=known_paths)
    except OSError:
        raise Unreadable from None


def missing_files_in_stream(stream: BinaryIO, path: str, *, known_paths: Container[str]) -> list[str]:
    """`missing_files` for the DICOMDIR in a stream.

    Raises
    ------
    Unreadable
        If it breaks the rules.
    """
    silence_decoders()
    folder = PurePosixPath(path).parent
    missing: dict[str, None] = {}
    try:
        records = pydicom.dcmread(stream).get("DirectoryRecordSequence") or []
        for record in records:
            parts = record.get("ReferencedFileID") or []
            names = [str(part).strip() for part in ([parts] if isinstance(parts, str) else parts)]
            if not names or any(name in ("", ".", "..") or "/" in name for name in names):
                continue  # no file is named, or one that lies outside the medium: never followed
            referenced = (folder / "/".join(names)).as_posix()
            if referenced.casefold() not in known_paths:
                missing[referenced] = None
    except Exception:  # noqa: BLE001 (what a hostile file raises in a parser cannot be listed)
        raise Unreadable from None
    return list(missing)
