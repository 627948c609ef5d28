"""Indexing a folder of DICOM files into the store: in parallel, incrementally, every file accounted for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from fedage.client.cohort.dicom import Facts, read_facts
from fedage.client.cohort.outcomes import read_outcomes
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.store import CohortStore, Exam, ImageFile, Outcome, Patient, RejectedFile, Setting
from fedage.common.errors import FedAgeError

_PARALLEL_FROM = 400
"""Below this a pool of processes takes longer to start than the headers to read."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Found:
    """A file with what tells whether it has changed."""

    path: str
    mtime_ns: int
    size_bytes: int


@dataclass
class IndexReport:
    """What an indexing found: files by fate, what the store holds now, and what the outcomes' table had."""

    files: int = 0
    new: int = 0
    unchanged: int = 0
    removed: int = 0
    patients: int = 0
    exams: int = 0
    images: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)


def index_folder(
    store: CohortStore,
    root: Path,
    *,
    outcomes_csv: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> IndexReport:
    """Bring the store up to date with a folder; files whose size and time are as before are not read again.

    Parameters
    ----------
    store
        The site's store.
    root
        The folder, opened read-only. Links that lead out of it are not followed.
    outcomes_csv
        The hospital's table of outcomes, or None.
    workers
        Processes that read headers; as many as there are processors if not given.
    progress
        Told of files read and files to read.

    Raises
    ------
    FedAgeError
        If the folder is not there, or the table of outcomes cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise FedAgeError(f"{root} is not a folder; set data in site.toml to the folder with the images")
    found = {file.path: file for file in _files(root)}
    report = IndexReport(files=len(found))
    outcomes = read_outcomes(outcomes_csv) if outcomes_csv is not None else None
    with Session(store.engine) as session:
        session.merge(Setting(name="root", value=str(root.absolute())))
        known = _known(session)
        gone = [path for path, file in known.items() if found.get(path) != file]
        report.removed = sum(path not in found for path in gone)
        _forget(session, gone)
        fresh = sorted(path for path, file in found.items() if known.get(path) != file)
        report.new, report.unchanged = len(fresh), len(found) - len(fresh)
        for done, (path, facts) in enumerate(_read(root, fresh, workers=workers), start=1):
            _keep(session, store, found[path], facts)
            if progress is not None:
                progress(done, len(fresh))
        _second_chances(session, store, root)
        _drop_childless(session)
        if outcomes is not None:
            report.outcomes = _keep_outcomes(session, store, outcomes.values)
            report.outcomes |= {"duplicate-rows": outcomes.duplicates, "rows-without-id": outcomes.without_id}
            report.outcomes |= {f"not-a-number:{name}": n for name, n in outcomes.not_numbers.items()}
        session.commit()
    counts = store.counts()
    report.patients, report.exams, report.images = counts["patients"], counts["exams"], counts["images"]
    report.rejected = store.rejected_by_reason()
    return report


def _files(root: Path) -> Iterator[Found]:
    """Every regular file below the folder, links to files outside left out."""
    inside = root.resolve()
    for folder, folders, names in os.walk(root, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            try:
                if path.is_symlink() and not path.resolve().is_relative_to(inside):
                    continue
                state = path.stat()
            except OSError:
                continue
            if path.is_file():
                yield Found(path.relative_to(root).as_posix(), state.st_mtime_ns, state.st_size)


def _known(session: Session) -> dict[str, Found]:
    known = {}
    for table in (ImageFile, RejectedFile):
        for row in session.execute(select(table.path, table.mtime_ns, table.size_bytes)):
            known[row[0]] = Found(*row)
    return known


def _forget(session: Session, paths: Iterable[str]) -> None:
    for path in paths:
        session.execute(delete(ImageFile).where(ImageFile.path == path))
        session.execute(delete(RejectedFile).where(RejectedFile.path == path))


def _read(root: Path, paths: list[str], *, workers: int | None) -> Iterator[tuple[str, Facts | Reason]]:
    full = [root / path for path in paths]
    count = workers or os.cpu_count() or 1
    if len(paths) < _PARALLEL_FROM or count == 1:
        yield from zip(paths, map(read_facts, full), strict=True)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield from zip(paths, pool.map(read_facts, full, chunksize=64), strict=True)


def _keep(session: Session, store: CohortStore, file: Found, facts: Facts | Reason) -> None:
    if isinstance(facts, Reason):
        _reject(session, file, facts)
        return
    key = store.hasher.digest(facts.sop_uid, purpose="image")
    if session.scalar(select(ImageFile.path).where(ImageFile.key == key)) is not None:
        _reject(session, file, Reason.DUPLICATE_IMAGE)
        return
    patient = store.hasher.digest(facts.patient_id, purpose="patient")
    exam = store.hasher.digest(facts.study_uid, purpose="exam")
    unit = store.hasher.unit(facts.patient_id)
    session.execute(insert(Patient).values(key=patient, unit=unit, is_male=facts.is_male).on_conflict_do_nothing())
    session.execute(
        insert(Exam)
        .values(
            key=exam,
            patient=patient,
            age_years=facts.age.years,
            age_source=facts.age.source,
            age_capped=facts.age.capped,
            manufacturer=facts.manufacturer,
        )
        .on_conflict_do_nothing()
    )
    session.execute(
        insert(ImageFile).values(
            path=file.path,
            key=key,
            exam=exam,
            mtime_ns=file.mtime_ns,
            size_bytes=file.size_bytes,
            modality=facts.modality,
            view=facts.view,
            laterality=facts.laterality,
            rows=facts.rows,
            columns=facts.columns,
            photometric=facts.photometric,
            transfer_syntax=facts.transfer_syntax,
        )
    )


def _reject(session: Session, file: Found, reason: Reason) -> None:
    session.execute(
        insert(RejectedFile).values(
            path=file.path, mtime_ns=file.mtime_ns, size_bytes=file.size_bytes, reason=str(reason)
        )
    )


def _second_chances(session: Session, store: CohortStore, root: Path) -> None:
    """A duplicate whose original has gone is an image now; the rest are found to be duplicates again."""
    waiting = session.scalars(select(RejectedFile).where(RejectedFile.reason == str(Reason.DUPLICATE_IMAGE))).all()
    files = [Found(row.path, row.mtime_ns, row.size_bytes) for row in waiting]
    for file in sorted(files, key=lambda file: file.path):
        session.execute(delete(RejectedFile).where(RejectedFile.path == file.path))
        _keep(session, store, file, read_facts(root / file.path))


def _drop_childless(session: Session) -> None:
    """Exams without an image and patients without an exam are no longer in the cohort."""
    session.execute(delete(Exam).where(Exam.key.not_in(select(ImageFile.exam))))
    session.execute(delete(Patient).where(Patient.key.not_in(select(Exam.patient))))


def _keep_outcomes(session: Session, store: CohortStore, values: dict[str, dict[str, float]]) -> dict[str, int]:
    """Replace all outcomes by the table's, for patients the store knows."""
    known = set(session.scalars(select(Patient.key)))
    session.execute(delete(Outcome))
    counts: Counter[str] = Counter()
    rows = []
    for identifier, columns in values.items():
        patient = store.hasher.digest(identifier, purpose="patient")
        if patient not in known:
            counts["unknown-patients"] += 1
            continue
        counts["patients-with-outcomes"] += 1
        rows += [{"patient": patient, "column": name, "value": value} for name, value in columns.items()]
    if rows:
        session.execute(insert(Outcome), rows)
    counts["patients-without-outcomes"] = (
        int(session.scalar(select(func.count()).select_from(Patient)) or 0) - counts["patients-with-outcomes"]
    )
    return dict(counts)
