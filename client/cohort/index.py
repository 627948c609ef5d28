"""Bring a store up to date with a folder of DICOM files, reading only what is new, every file accounted for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fedage.client.cohort.dicom import DicomFacts, read_facts
from fedage.client.cohort.outcomes import OutcomeTable, read_outcomes
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.client.cohort.store import CohortStore, FileStamp, KnownFile
from fedage.common.errors import FedAgeError

Progress = Callable[[int, int], None]
"""Told of files read and files to read."""

_BATCH = 1000
"""Files in one transaction: what a crash in the middle can lose."""
_CHUNK = 50
"""Files a thread takes at a time."""
_WORTH_ANOTHER_LOOK = (Reason.UNSUPPORTED_TRANSFER_SYNTAX, Reason.UNREADABLE)
"""Reasons that can go away without a change of the file: a decoder is installed, a permission given."""


@dataclass(frozen=True)
class IndexReport:
    """What an indexing found.

    Parameters
    ----------
    files, new, unchanged, removed
        Regular files seen; of them new or changed, and as before; files gone since.
    links, closed_folders
        Symbolic links left alone; folders that could not be opened (what is known of them stays).
    patients, exams, images
        What the store holds now.
    rejected
        Files that are out now, by reason code.
    outcomes
        Counts of the table of outcomes; empty if none was given.
    """

    files: int
    new: int
    unchanged: int
    removed: int
    links: int
    closed_folders: int
    patients: int
    exams: int
    images: int
    rejected: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)


@dataclass
class _Walked:
    """What is below a folder."""

    files: dict[str, FileStamp] = field(default_factory=dict)
    links: int = 0
    closed: list[str] = field(default_factory=list)

    def vanished(self, path: str) -> bool:
        """Whether a known file is gone; below a folder that cannot be opened nobody knows."""
        return path not in self.files and not path.startswith(tuple(f"{folder}/" for folder in self.closed))


def index_folder(
    store: CohortStore,
    root: Path,
    *,
    outcomes_csv: Path | None = None,
    id_column: str = "patient_id",
    workers: int | None = None,
    progress: Progress | None = None,
) -> IndexReport:
    """Index a folder. A file whose path, size and modification time are as before is not read again.

    Parameters
    ----------
    store
        The site's store.
    root
        The folder, only ever read. Symbolic links below it are not followed. An empty folder gives an empty store.
    outcomes_csv, id_column
        The hospital's table, which replaces the outcomes there were, and its column of patient identifiers.
    workers
        Threads that read headers; what they wait for is the disk.
    progress
        Told how far the reading is.

    Raises
    ------
    FedAgeError
        If the folder or the table cannot be read; then the store is as it was.
    """
    root = Path(root).absolute()
    table = None if outcomes_csv is None else read_outcomes(Path(outcomes_csv), id_column=id_column)
    with store.exclusive():
        walked, known = _walk(root), store.files()
        gone = [path for path in known if walked.vanished(path)]
        changed = [path for path, file in known.items() if path in walked.files and walked.files[path] != file.stamp]
        fresh = [path for path in walked.files if path not in known]
        again = _again(known, walked, anything_left=bool(gone or changed))
        with store.writing() as writer:
            writer.set_root(root)
            writer.forget([*gone, *changed, *again])
        todo = [walked.files[path] for path in sorted([*fresh, *changed, *again])]
        for batch in _read(root, todo, workers=workers, progress=progress):
            with store.writing() as writer:
                writer.add(batch)
        if gone or todo:
            with store.writing() as writer:
                writer.prune()
        outcomes = {} if table is None else _keep_outcomes(store, table)
    return IndexReport(
        files=len(walked.files),
        new=len(fresh) + len(changed),
        unchanged=len(walked.files) - len(fresh) - len(changed),
        removed=len(gone),
        links=walked.links,
        closed_folders=len(walked.closed),
        **store.counts(),
        rejected=store.rejected_by_reason(),
        outcomes=outcomes,
    )


def _walk(root: Path) -> _Walked:
    """Every regular file below the root. Links are not followed: they could lead anywhere, or round in a circle."""
    walked, folders = _Walked(), [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_symlink():
                        walked.links += 1
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    elif entry.is_file(follow_symlinks=False):
                        state = entry.stat(follow_symlinks=False)
                        walked.files[path] = FileStamp(path=path, mtime_ns=state.st_mtime_ns, size=state.st_size)
        except OSError as error:
            if not folder:
                raise FedAgeError(
                    f"{root} cannot be read as a folder ({error.strerror}); set data in site.toml to the images' folder"
                ) from None
            walked.closed.append(folder)
    return walked


def _again(known: dict[str, KnownFile], walked: _Walked, *, anything_left: bool) -> list[str]:
    """Unchanged files to read once more: a duplicate may be the only one now, a decoder may have come."""
    reasons = {*_WORTH_ANOTHER_LOOK, *((Reason.DUPLICATE_IMAGE,) if anything_left else ())}
    return [path for path, file in known.items() if file.reason in reasons and walked.files.get(path) == file.stamp]


def _read(
    root: Path, files: list[FileStamp], *, workers: int | None, progress: Progress | None
) -> Iterator[list[tuple[FileStamp, DicomFacts | Rejected]]]:
    """Facts of files in their order, in batches."""

    def facts(chunk: list[FileStamp]) -> list[tuple[FileStamp, DicomFacts | Rejected]]:
        return [(stamp, read_facts(root / stamp.path)) for stamp in chunk]

    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1), thread_name_prefix="headers") as pool:
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            found: list[tuple[FileStamp, DicomFacts | Rejected]] = []
            for some in pool.map(facts, [batch[at : at + _CHUNK] for at in range(0, len(batch), _CHUNK)]):
                found += some
                if progress is not None:
                    progress(start + len(found), len(files))
            yield found


def _keep_outcomes(store: CohortStore, table: OutcomeTable) -> dict[str, int]:
    with store.writing() as writer:
        unknown = writer.replace_outcomes(table.values)
    known = len(table.values) - unknown
    return {
        "patients-with-outcomes": known,
        "patients-without-outcomes": store.counts()["patients"] - known,
        "unknown-patients": unknown,
        **table.counts(),
    }
