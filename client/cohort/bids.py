"""A BIDS data set into a store: T1-weighted volumes under `sub-*/[ses-*/]anat`, ages and sexes from its tables.

A volume counts as unchanged while its file, its JSON sidecar and what the tables say of its session are as before.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from fedage.client.cohort.ages import DAYS_PER_YEAR, OLDEST_YEARS, Age
from fedage.client.cohort.dicom import DicomFacts
from fedage.client.cohort.index import IndexReport
from fedage.client.cohort.nifti import read_volume
from fedage.client.cohort.participants import (
    AgeColumn,
    Row,
    acquisition_day,
    age_unit,
    is_missing,
    read_json,
    read_tsv,
    sex_codes,
)
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.client.cohort.store import CohortStore, FileStamp
from fedage.client.cohort.writer import Remembered
from fedage.common.errors import FedAgeError

PARTICIPANTS = "participants.tsv"
_T1W = re.compile(r"sub-[A-Za-z0-9+]+(_[a-z]+-[A-Za-z0-9+]+)*_T1w\.nii(\.gz)?")
_READER = "bids-1"
_BATCH = 100


@dataclass(frozen=True)
class BidsLayout:
    """Where a data set keeps what.

    Parameters
    ----------
    bases
        Folders that hold the participants' folders.
    anat
        Folder of the volumes inside a session's.
    """

    bases: tuple[str, ...] = (".",)
    anat: str = "anat"


@dataclass(frozen=True, slots=True, kw_only=True)
class BidsFacts(DicomFacts):
    """Facts of a volume: besides an image's, how many slices, how long its voxels and where its axes point."""

    slices: int
    voxel_mm: str
    orientation: str


@dataclass(frozen=True)
class _Session:
    """One session of a participant: its volumes, and what the tables say of it."""

    participant: str
    label: str
    volumes: tuple[Path, ...]
    row: Row
    day: date | None


@dataclass
class _Found:
    """Volumes below a root with their facts-to-be, and what was passed by."""

    todo: dict[str, tuple[FileStamp, Callable[[], DicomFacts | Rejected]]] = field(default_factory=dict)
    links: int = 0
    closed: list[str] = field(default_factory=list)

    def listed(self, folder: Path, root: Path) -> list[Path]:
        """What is in a folder, by name; links are counted and left, a folder that cannot be opened is remembered."""
        try:
            there = sorted(folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError:
            self.closed.append(folder.relative_to(root).as_posix())
            return []
        self.links += sum(path.is_symlink() for path in there if path.name.startswith(("sub-", "ses-")))
        return [path for path in there if not path.is_symlink()]

    def vanished(self, path: str) -> bool:
        """Whether a known file is gone; below a folder that cannot be opened nobody knows."""
        return path not in self.todo and not path.startswith(tuple(f"{folder}/" for folder in self.closed))


@dataclass(frozen=True)
class _Tables:
    """The data set's own tables, ready to be asked."""

    rows: Mapping[str, Row]
    ages: AgeColumn
    session_ages: AgeColumn
    sexes: Mapping[str, str]

    @property
    def sex_column(self) -> str:
        """`sex`, or `gender` in older data sets."""
        return "sex" if any("sex" in row for row in self.rows.values()) else "gender"


def is_bids(root: Path) -> bool:
    """Whether a folder looks like a BIDS data set."""
    return (root / PARTICIPANTS).is_file()


def index_bids(
    store: CohortStore,
    root: Path,
    *,
    layout: BidsLayout = BidsLayout(),
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Index a data set. Symbolic links are not followed.

    Raises
    ------
    FedAgeError
        If there is no `participants.tsv`, or a table cannot be read; then the store is as it was.
    """
    root = Path(root).absolute()
    if not (root / PARTICIPANTS).is_file():
        raise FedAgeError(f"{root} has no {PARTICIPANTS}; set data in site.toml to the BIDS data set's own folder")
    with store.exclusive():
        found = _find(root, layout)
        known = store.files()
        gone = [path for path in known if found.vanished(path)]
        changed = [path for path, file in known.items() if path in found.todo and found.todo[path][0] != file.stamp]
        todo = sorted({*changed, *(found.todo.keys() - known.keys())})
        with store.writing() as writer:
            writer.set_root(root)
            writer.remember(Remembered(_READER, ""))
            writer.forget([*gone, *changed])
            writer.prune()  # an exam or a patient read anew may have another age or sex
        for entries in _read(found, todo, workers=workers, progress=progress):
            with store.writing() as writer:
                writer.add(entries)
        with store.writing() as writer:
            writer.prune()
    return IndexReport(
        files=len(found.todo),
        new=len(todo),
        unchanged=len(found.todo) - len(todo),
        removed=len(gone),
        links=found.links,
        closed_folders=len(found.closed),
        **store.counts(),
        rejected=store.rejected_by_reason(),
        outcomes={},
    )


def _read(
    found: _Found, todo: list[str], *, workers: int | None, progress: Callable[[int, int], None] | None
) -> Iterator[list[tuple[FileStamp, DicomFacts | Rejected]]]:
    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1), thread_name_prefix="volumes") as pool:
        for start in range(0, len(todo), _BATCH):
            batch = todo[start : start + _BATCH]
            read = pool.map(lambda path: found.todo[path][1](), batch)
            entries = []
            for number, (path, fact) in enumerate(zip(batch, read, strict=True), start=start + 1):
                entries.append((found.todo[path][0], fact))
                if progress is not None:
                    progress(number, len(todo))
            yield entries


def _find(root: Path, layout: BidsLayout) -> _Found:
    found = _Found()
    about, rows = read_json(root / "participants.json"), read_tsv(root / PARTICIPANTS, key="participant_id")
    rows = {name if name.startswith("sub-") else f"sub-{name}": row for name, row in rows.items()}
    everybody = [
        _sessions(participant, root, rows.get(participant.name, {}), layout, found)
        for base in layout.bases
        for participant in found.listed(root / base, root)
        if participant.name.startswith("sub-") and participant.is_dir()
    ]
    unit = age_unit(about, file="participants.json")
    told = [session.row["age"] for sessions in everybody for session in sessions if "age" in session.row]
    tables = _Tables(
        rows=rows,
        ages=AgeColumn.of([row.get("age", "") for row in rows.values()], unit=unit),
        session_ages=AgeColumn.of(told, unit=unit),
        sexes={**sex_codes(about, column="gender"), **sex_codes(about)},
    )
    for sessions in everybody:
        for position, session in enumerate(sessions):
            age = _age(sessions, position, tables)
            for volume in session.volumes:
                _plan(root, volume, session, position, age, tables, found)
    return found


def _sessions(participant: Path, root: Path, row: Row, layout: BidsLayout, found: _Found) -> list[_Session]:
    """A participant's sessions with volumes, by day where each has one, else by label."""
    file = participant / f"{participant.name}_sessions.tsv"
    rows = read_tsv(file, key="session_id") if file.is_file() else {}
    rows = {name if name.startswith("ses-") else f"ses-{name}": found_row for name, found_row in rows.items()}
    folders = [path for path in found.listed(participant, root) if path.name.startswith("ses-") and path.is_dir()]
    sessions = []
    for folder in folders or [participant]:
        label = folder.name if folder is not participant else ""
        there = found.listed(folder / layout.anat, root)
        volumes = tuple(path for path in there if _T1W.fullmatch(path.name) and path.is_file())
        told = rows.get(label, {} if label else row)
        if volumes:
            sessions.append(_Session(participant.name, label, volumes, told, acquisition_day(told.get("acq_time", ""))))
    if all(session.day is not None for session in sessions):
        sessions.sort(key=lambda session: (session.day or date.min, session.label))
    return sessions


def _age(sessions: list[_Session], position: int, tables: _Tables) -> Age | Reason:
    """Of a session: its own age, else the participant's at the first, or at the first plus the time since."""
    session, first = sessions[position], sessions[0]
    row = tables.rows.get(session.participant)
    if row is None:
        return Reason.NOT_IN_TABLE
    own = session.row.get("age", "") if session.label else ""
    if not is_missing(own):
        return tables.session_ages.age(own)
    age = tables.ages.age(row.get("age", ""))
    if position == 0 or isinstance(age, Reason):
        return age
    if session.day is None or first.day is None:
        return Reason.NO_AGE
    years = age.years + (session.day - first.day).days / DAYS_PER_YEAR
    return Age(years, age.source, age.capped) if years <= OLDEST_YEARS else Reason.IMPLAUSIBLE_AGE


def _plan(
    root: Path,
    volume: Path,
    session: _Session,
    position: int,
    age: Age | Reason,
    tables: _Tables,
    found: _Found,
) -> None:
    """Remember a volume, a stamp of all that its facts depend on, and how to get them."""
    row = tables.rows.get(session.participant, {})
    sex = tables.sexes.get(row.get(tables.sex_column, "").casefold())
    sidecars = (root / "T1w.json", volume.with_name(volume.name.partition(".")[0] + ".json"))
    told = [(file.stat().st_mtime_ns, file.stat().st_size) for file in sidecars if file.is_file()]
    state = volume.stat()
    depends = hashlib.sha256(repr((_READER, state.st_mtime_ns, told, age, sex, position, str(session.day))).encode())
    path = volume.relative_to(root).as_posix()
    stamp = FileStamp(path, int.from_bytes(depends.digest()[:7], "big"), state.st_size)

    def facts() -> DicomFacts | Rejected:
        if isinstance(age, Reason):
            return Rejected(age, modality="MR")
        read = read_volume(volume)
        if isinstance(read, Rejected):
            return read
        about = {**read_json(sidecars[0]), **read_json(sidecars[1])}
        return BidsFacts(
            patient_id=session.participant,
            study_uid=session.label or "ses-",
            sop_uid=f"bids/{session.participant}/{session.label}/{volume.name}",
            exam_day=session.day.toordinal() if session.day else position + 1,
            sex=sex,
            age=age,
            manufacturer=str(about.get("Manufacturer", "")).strip()[:64],
            modality="MR",
            view="T1W",
            laterality="",
            rows=read.shape[0],
            columns=read.shape[1],
            photometric="MONOCHROME2",
            transfer_syntax="nifti",
            spacing_known=True,
            slices=read.shape[2],
            voxel_mm=" ".join(f"{length:.4g}" for length in read.spacing_mm),
            orientation=read.orientation,
        )

    found.todo[path] = (stamp, facts)
