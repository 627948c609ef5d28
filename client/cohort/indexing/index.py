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
from fedage.client.cohort.dicom.dicomdir import MAX_DIRECTORY_BYTES, Unreadable, missing_files, missing_of
from fedage.client.cohort.dicom.facts import DicomFacts, read_bytes, read_facts
from fedage.client.cohort.indexing.join_outcomes import keep_outcomes
from fedage.client.cohort.indexing.tree import Tree, walk
from fedage.client.cohort.paths import SEPARATOR
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.client.cohort.store.store import CohortStore, FileStamp, KnownFile
from fedage.client.cohort.store.writer import READER_VERSION, LastIndexing, writing
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table_facts import NoTableFacts, TableFacts, TableFactsSource

Progress = Callable[[int, int], None]
"""Told of files read and files to read."""
EligibleImage = list[tuple[FileStamp, DicomFacts | Rejected]]
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
    said: tuple[str, ...] = ()


def index_folder(
    store: CohortStore,
    root: Path,
    *,
    outcomes_csv: Path | None = None,
    id_column: str = "patient_id",
    telling: TableFactsSource | None = None,
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
    telling
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
    root, telling = Path(root).absolute(), telling or NoTableFacts()
    reader = f"{READER_VERSION}{telling.digest}"
    table = None if outcomes_csv is None else read_outcomes(Path(outcomes_csv), id_column=id_column)
    with store.exclusive():
        tree = walk(root)
        before, after = LastIndexing.read(store), LastIndexing(reader, tree.digest())
        rejected, new, removed = store.rejected_by_reason(), 0, 0
        if before != after or _is_mended(store, tree, telling, rejected):
            new, removed = _update(store, tree, telling, before=before, after=after, workers=workers, progress=progress)
            rejected = store.rejected_by_reason()
        outcomes, said = ({}, ()) if table is None else keep_outcomes(store, table)
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
        said=said,
    )


def _is_mended(store: CohortStore, tree: Tree, telling: TableFactsSource, rejected: Mapping[str, int]) -> bool:
    """Whether a file that could not be read can be now; in a folder that looks the same only these are tried."""
    if _WORTH_ANOTHER_LOOK.isdisjoint(rejected):
        return False
    for path, reason in store.rejected_for(_WORTH_ANOTHER_LOOK).items():
        source, _, member = path.partition(SEPARATOR)
        if source not in tree.files:
            continue  # below a folder that cannot be opened
        entries = _entry(tree, source, member, telling) if member else _entries(tree, source, telling)
        now = {stamp.path: fact for stamp, fact in entries}.get(path)
        if not isinstance(now, Rejected) or now.code is not reason:
            return True
    return False


def _update(
    store: CohortStore,
    tree: Tree,
    telling: TableFactsSource,
    *,
    before: LastIndexing,
    after: LastIndexing,
    workers: int | None,
    progress: Progress | None,
) -> tuple[int, int]:
    """Read what is new or changed and forget what is gone; the numbers of files of both kinds."""
    known: dict[str, dict[str, KnownFile]] = defaultdict(dict)  # by the file in the folder, then by path
    for path, file in store.files().items():
        known[path.partition(SEPARATOR)[0]][path] = file
    gone = [source for source in known if tree.vanished(source)]
    there = known.keys() & tree.files.keys()
    changed = {source for source in there if _changed(known[source], tree, source)}
    fresh = tree.files.keys() - known.keys()
    reasons = _WORTH_ANOTHER_LOOK | (_DEPENDS_ON_OTHERS if gone or changed or fresh else frozenset())
    again = {
        source
        for source in there - changed
        if before.reader != after.reader or any(file.reason in reasons for file in known[source].values())
    }
    stale = (path for source in (*gone, *changed, *again) for path in known[source])
    with writing(store) as writer:
        writer.set_root(tree.root)
        # Until the end nothing may look finished; a reader's version that is behind stays so.
        writer.remember(LastIndexing(before.reader if known else after.reader, ""))
        writer.forget(stale)
        writer.prune()  # an exam or a patient read anew may have another age or sex
    new = 0
    for batch in _read(tree, sorted(fresh | changed | again), telling, workers=workers, progress=progress):
        new += sum(stamp.path.partition(SEPARATOR)[0] not in again for stamp, _ in batch)
        with writing(store) as writer:
            writer.add(batch)
    more = True
    while more:
        with writing(store) as writer:
            more = writer.judge_series()
    with writing(store) as writer:
        writer.prune()
        writer.remember(after)
    return new, sum(len(known[source]) for source in gone)


def _changed(files: Mapping[str, KnownFile], tree: Tree, source: str) -> bool:
    stamp = tree.files[source]
    return any((file.stamp.mtime_ns, file.stamp.size) != stamp for file in files.values())


def _read(
    tree: Tree, sources: list[str], telling: TableFactsSource, *, workers: int | None, progress: Progress | None
) -> Iterator[EligibleImage]:
    """What files hold, in their order, in batches; all of an archive is in one batch, so that it is kept or not."""

    def read(chunk: list[str]) -> EligibleImage:
        return [entry for source in chunk for entry in _entries(tree, source, telling)]

    done = 0
    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1), thread_name_prefix="headers") as pool:
        for start in range(0, len(sources), _BATCH):
            batch = sources[start : start + _BATCH]
            chunks = [batch[at : at + _CHUNK] for at in range(0, len(batch), _CHUNK)]
            found: EligibleImage = []
            for chunk, some in zip(chunks, pool.map(read, chunks), strict=True):
                found += some
                done += len(chunk)
                if progress is not None:
                    progress(done, len(sources))
            yield found


def _entries(tree: Tree, source: str, telling: TableFactsSource) -> EligibleImage:
    """What a file of the folder holds."""
    stamp = FileStamp(source, *tree.files[source])
    told = telling.of(source)
    fact = Rejected(told) if isinstance(told, Reason) else read_facts(tree.root / source, told)
    if isinstance(fact, Rejected) and fact.code is Reason.NOT_DICOM and _is_archive(tree.root / source):
        return _archived(tree, stamp, telling)
    if isinstance(fact, Rejected) and fact.code is Reason.DIRECTORY:
        return _named(tree, stamp, fact)
    return [(stamp, fact)]


def _is_archive(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return is_archive(stream.read(4))
    except OSError:
        return False


def _archived(tree: Tree, archive: FileStamp, telling: TableFactsSource) -> EligibleImage:
    """The members of an archive, with the archive's stamp; the archive itself only if it is not read."""
    found: EligibleImage = []
    directories: dict[str, bytes] = {}
    kept_bytes = 0

    def add(name: str, fact: DicomFacts | Rejected) -> None:
        found.append((archive._replace(path=f"{archive.path}{SEPARATOR}{name}"), fact))

    try:
        for name, content in members(tree.root / archive.path):
            fact = Rejected(content) if isinstance(content, Reason) else _member(content, telling.of(name))
            if isinstance(fact, Rejected) and fact.code is Reason.DIRECTORY and isinstance(content, bytes):
                kept_bytes += len(content)
                directories |= {name: content} if kept_bytes <= MAX_DIRECTORY_BYTES else {}
            add(name, fact)
        there = {stamp.path.partition(SEPARATOR)[2].casefold() for stamp, _ in found}
        missing = {lost for name, content in directories.items() for lost in _missing_beside(name, content, there)}
        for lost in sorted(missing):
            add(lost, Rejected(Reason.MISSING_FILE))
        return found
    except Refused as refused:
        return [(archive, Rejected(refused.code))]
    except OSError:
        return [(archive, Rejected(Reason.UNREADABLE))]


def _missing_beside(name: str, content: bytes, there: Container[str]) -> list[str]:
    """What a DICOMDIR in an archive names and the archive does not hold; nothing of one that cannot be read."""
    try:
        return missing_of(io.BytesIO(content), name, there=there)
    except Unreadable:
        return []


def _entry(tree: Tree, archive: str, member: str, telling: TableFactsSource) -> EligibleImage:
    """One member of an archive."""
    path = f"{archive}{SEPARATOR}{member}"
    try:
        with open_image(tree.root / path) as stream:
            fact = _member(stream.read(), telling.of(member))
    except Refused as refused:
        fact = Rejected(refused.code)
    except OSError:
        fact = Rejected(Reason.UNREADABLE)
    return [(FileStamp(path, *tree.files[archive]), fact)]


def _member(content: bytes, told: TableFacts | Reason) -> DicomFacts | Rejected:
    return Rejected(told) if isinstance(told, Reason) else read_bytes(content, told)


def _named(tree: Tree, directory: FileStamp, fact: Rejected) -> EligibleImage:
    """A DICOMDIR, and the files it names in vain."""
    try:
        missing = missing_files(tree.root, directory.path, there=tree.folded)
    except Unreadable:
        return [(directory, Rejected(Reason.UNREADABLE))]
    in_vain = [
        (directory._replace(path=f"{directory.path}{SEPARATOR}{path}"), Rejected(Reason.MISSING_FILE))
        for path in missing
    ]
    return [(directory, fact), *in_vain]
