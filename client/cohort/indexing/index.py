"""Bring a store up to date with a folder of DICOM files, reading only what is new, every file accounted for."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fedage.client.cohort.decoding.archive import Refused, is_archive, members, open_image
from fedage.client.cohort.dicom.dicomdir import MAX_DIRECTORY_BYTES, Unreadable, missing_files, missing_files_in_stream
from fedage.client.cohort.dicom.facts import DicomFacts, read_bytes, read_facts
from fedage.client.cohort.indexing.join_outcomes import store_outcomes
from fedage.client.cohort.indexing.tree import Tree, walk
from fedage.client.cohort.paths import SEPARATOR
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.client.cohort.store.store import CohortStore, FileStamp, KnownFile
from fedage.client.cohort.store.writer import READER_VERSION, LastIndexing, writing
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table_facts import NoTableFacts, TableFacts, TableFactsSource

Progress = Callable[[int, int], None]
"""Told of files read and files to read."""
FileEntries = list[tuple[FileStamp, DicomFacts | Rejected]]
"""What reading gave: one entry a file, several for an archive or a DICOMDIR."""

_BATCH = 1000
"""Files in one transaction: what a crash in the middle can lose."""
_CHUNK = 50
"""Files a thread takes at a time."""
_WORTH_ANOTHER_LOOK = frozenset((Reason.UNSUPPORTED_TRANSFER_SYNTAX, Reason.UNREADABLE))
"""Reasons that can go away without a change in the folder: a decoder is installed, a permission given."""
_DEPENDS_ON_OTHERS = frozenset((Reason.DUPLICATE_IMAGE, Reason.DIRECTORY, Reason.MISSING_FILE))
"""Reasons that can change when other files come or go."""


@dataclass(frozen=True)
class IndexReport:
    """What an indexing found.

    Parameters
    ----------
    files, new, unchanged, removed
        Files seen, those in archives and those that a DICOMDIR misses among them; of them new or changed, and as
        before; files gone since.
    links, closed_folders
        Symbolic links left alone; folders that could not be opened (what is known of them stays).
    patients, exams, images
        What the store holds now.
    volumes, oblique
        Of the images, those that are series of slices in single files; of them those oblique to the body's planes.
    rejected
        Files that are out now, by reason code.
    outcomes
        Counts of the table of outcomes; empty if none was given.
    said
        What the hospital should know of the outcomes, in sentences.
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
    volumes: int = 0
    oblique: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    messages: tuple[str, ...] = ()


def index_folder(
    store: CohortStore,
    root: Path,
    *,
    outcomes_csv: Path | None = None,
    id_column: str = "patient_id",
    table_facts: TableFactsSource | None = None,
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
    table_facts
        What the data set's own tables say of its images.
    workers
        Threads that read headers; what they wait for is the disk.
    progress
        Told how far the reading is.

    Raises
    ------
    FedAgeError
        If the folder or the table cannot be read; then the store is as it was.
    """
    root, table_facts = Path(root).absolute(), table_facts or NoTableFacts()
    reader = f"{READER_VERSION}{table_facts.digest}"
    table = None if outcomes_csv is None else read_outcomes(Path(outcomes_csv), id_column=id_column)
    with store.exclusive():
        tree = walk(root)
        before, after = LastIndexing.read(store), LastIndexing(reader, tree.digest())
        rejected, new, removed = store.rejected_by_reason(), 0, 0
        if before != after or _is_now_readable(store, tree, table_facts, rejected):
            new, removed = _update(
                store, tree, table_facts, before=before, after=after, workers=workers, progress=progress
            )
            rejected = store.rejected_by_reason()
        outcomes, messages = ({}, ()) if table is None else store_outcomes(store, table)
    counts = store.counts()
    volumes = store.volumes()
    files = counts["images"] - volumes.number + volumes.files + sum(rejected.values())
    return IndexReport(
        files=files,
        new=new,
        unchanged=files - new,
        removed=removed,
        links=tree.links,
        closed_folders=len(tree.closed),
        **counts,
        volumes=volumes.number,
        oblique=volumes.oblique,
        rejected=rejected,
        outcomes=outcomes,
        messages=messages,
    )


def _is_now_readable(
    store: CohortStore, tree: Tree, table_facts: TableFactsSource, rejected: Mapping[str, int]
) -> bool:
    """Whether a file that could not be read can be now; in a folder that looks the same only these are tried."""
    if _WORTH_ANOTHER_LOOK.isdisjoint(rejected):
        return False
    for path, reason in store.rejected_for(_WORTH_ANOTHER_LOOK).items():
        source, _, member = path.partition(SEPARATOR)
        if source not in tree.files:
            continue  # below a folder that cannot be opened
        entries = _member_entries(tree, source, member, table_facts) if member else _entries(tree, source, table_facts)
        fact = {stamp.path: fact for stamp, fact in entries}.get(path)
        if not isinstance(fact, Rejected) or fact.code is not reason:
            return True
    return False


def _update(
    store: CohortStore,
    tree: Tree,
    table_facts: TableFactsSource,
    *,
    before: LastIndexing,
    after: LastIndexing,
    workers: int | None,
    progress: Progress | None,
) -> tuple[int, int]:
    """Read what is new or changed and forget what is gone; the numbers of files of both kinds."""
    known_files: dict[str, dict[str, KnownFile]] = defaultdict(dict)  # by the file in the folder, then by path
    for path, file in store.files().items():
        known_files[path.partition(SEPARATOR)[0]][path] = file
    vanished = [source for source in known_files if tree.vanished(source)]
    present = known_files.keys() & tree.files.keys()
    changed = {source for source in present if _is_changed(known_files[source], tree, source)}
    added = tree.files.keys() - known_files.keys()
    reasons = _WORTH_ANOTHER_LOOK | (_DEPENDS_ON_OTHERS if vanished or changed or added else frozenset())
    to_reread = {
        source
        for source in present - changed
        if before.reader != after.reader or any(file.reason in reasons for file in known_files[source].values())
    }
    stale_paths = (path for source in (*vanished, *changed, *to_reread) for path in known_files[source])
    with writing(store) as writer:
        writer.set_root(tree.root)
        # Until the end nothing may look finished; a reader's version that is behind stays so.
        writer.remember(LastIndexing(before.reader if known_files else after.reader, ""))
        writer.forget(stale_paths)
        writer.prune()  # an exam or a patient read anew may have another age or sex
    new = 0
    for batch in _read(tree, sorted(added | changed | to_reread), table_facts, workers=workers, progress=progress):
        new += sum(stamp.path.partition(SEPARATOR)[0] not in to_reread for stamp, _ in batch)
        with writing(store) as writer:
            writer.add(batch)
    more = True
    while more:
        with writing(store) as writer:
            more = writer.judge_series()
    with writing(store) as writer:
        writer.prune()
        writer.remember(after)
    return new, sum(len(known_files[source]) for source in vanished)


def _is_changed(files: Mapping[str, KnownFile], tree: Tree, source: str) -> bool:
    stamp = tree.files[source]
    return any((file.stamp.mtime_ns, file.stamp.size) != stamp for file in files.values())


def _read(
    tree: Tree, sources: list[str], table_facts: TableFactsSource, *, workers: int | None, progress: Progress | None
) -> Iterator[FileEntries]:
    """What files hold, in their order, in batches; all of an archive is in one batch, so that it is kept or not."""

    def read(chunk: list[str]) -> FileEntries:
        return [entry for source in chunk for entry in _entries(tree, source, table_facts)]

    done = 0
    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1), thread_name_prefix="headers") as pool:
        for start in range(0, len(sources), _BATCH):
            batch = sources[start : start + _BATCH]
            chunks = [batch[at : at + _CHUNK] for at in range(0, len(batch), _CHUNK)]
            entries: FileEntries = []
            for chunk, chunk_entries in zip(chunks, pool.map(read, chunks), strict=True):
                entries += chunk_entries
                done += len(chunk)
                if progress is not None:
                    progress(done, len(sources))
            yield entries


def _entries(tree: Tree, source: str, source_of_facts: TableFactsSource) -> FileEntries:
    """What a file of the folder holds."""
    stamp = FileStamp(source, *tree.files[source])
    table_facts = source_of_facts.facts_for(source)
    fact = Rejected(table_facts) if isinstance(table_facts, Reason) else read_facts(tree.root / source, table_facts)
    if isinstance(fact, Rejected) and fact.code is Reason.NOT_DICOM and _is_archive(tree.root / source):
        return _archive_entries(tree, stamp, source_of_facts)
    if isinstance(fact, Rejected) and fact.code is Reason.DIRECTORY:
        return _dicomdir_entries(tree, stamp, fact)
    return [(stamp, fact)]


def _is_archive(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return is_archive(stream.read(4))
    except OSError:
        return False


def _archive_entries(tree: Tree, archive: FileStamp, table_facts: TableFactsSource) -> FileEntries:
    """The members of an archive, with the archive's stamp; the archive itself only if it is not read."""
    entries: FileEntries = []
    directories: dict[str, bytes] = {}
    directory_bytes = 0

    def add(name: str, fact: DicomFacts | Rejected) -> None:
        entries.append((archive._replace(path=f"{archive.path}{SEPARATOR}{name}"), fact))

    try:
        for name, content in members(tree.root / archive.path):
            fact = (
                Rejected(content)
                if isinstance(content, Reason)
                else _member_facts(content, table_facts.facts_for(name))
            )
            if isinstance(fact, Rejected) and fact.code is Reason.DIRECTORY and isinstance(content, bytes):
                directory_bytes += len(content)
                directories |= {name: content} if directory_bytes <= MAX_DIRECTORY_BYTES else {}
            add(name, fact)
        present_names = {stamp.path.partition(SEPARATOR)[2].casefold() for stamp, _ in entries}
        missing = {
            missing_name
            for name, content in directories.items()
            for missing_name in _missing_from_archive(name, content, present_names)
        }
        for missing_name in sorted(missing):
            add(missing_name, Rejected(Reason.MISSING_FILE))
        return entries
    except Refused as refused:
        return [(archive, Rejected(refused.code))]
    except OSError:
        return [(archive, Rejected(Reason.UNREADABLE))]


def _missing_from_archive(name: str, content: bytes, there: Container[str]) -> list[str]:
    """What a DICOMDIR in an archive names and the archive does not hold; nothing of one that cannot be read."""
    try:
        return missing_files_in_stream(io.BytesIO(content), name, known_paths=there)
    except Unreadable:
        return []


def _member_entries(tree: Tree, archive: str, member: str, table_facts: TableFactsSource) -> FileEntries:
    """One member of an archive."""
    path = f"{archive}{SEPARATOR}{member}"
    try:
        with open_image(tree.root / path) as stream:
            fact = _member_facts(stream.read(), table_facts.facts_for(member))
    except Refused as refused:
        fact = Rejected(refused.code)
    except OSError:
        fact = Rejected(Reason.UNREADABLE)
    return [(FileStamp(path, *tree.files[archive]), fact)]


def _member_facts(content: bytes, table_facts: TableFacts | Reason) -> DicomFacts | Rejected:
    return Rejected(table_facts) if isinstance(table_facts, Reason) else read_bytes(content, table_facts)


def _dicomdir_entries(tree: Tree, directory: FileStamp, fact: Rejected) -> FileEntries:
    """A DICOMDIR, and the files it names in vain."""
    try:
        missing = missing_files(tree.root, directory.path, known_paths=tree.folded)
    except Unreadable:
        return [(directory, Rejected(Reason.UNREADABLE))]
    missing_entries = [
        (directory._replace(path=f"{directory.path}{SEPARATOR}{path}"), Rejected(Reason.MISSING_FILE))
        for path in missing
    ]
    return [(directory, fact), *missing_entries]
