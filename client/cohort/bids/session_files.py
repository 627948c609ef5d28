"""Folders and table rows of a BIDS data set's sessions, before ages are known."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

from fedage.client.cohort.bids.counted_days import days_since_first
from fedage.client.cohort.bids.label_maps import anat_folders, is_label_map
from fedage.client.cohort.bids.participants import (
    Row,
    acquisition_day,
    age_unit,
    described,
    is_missing,
    read_description,
    read_rows,
)
from fedage.client.cohort.bids.session_order import SESSION, label_day, label_numbers
from fedage.common.errors import FedAgeError

_SESSION_COLUMNS = ("session", "ses", "session_label", "visit", "timepoint")
"""Other names for the column `session_id`."""
_T1W = re.compile(r"(?P<participant>sub-[A-Za-z0-9+]+)(_[a-z]+-[A-Za-z0-9+]+)*_T1w\.nii(\.gz)?")
_SESSION_IN_NAME = re.compile(r"_(ses-[A-Za-z0-9+]+)_")
_LIKE_T1W = re.compile(r"(.*[^a-z])?(t1w?|mprage)\.nii(\.gz)?", re.IGNORECASE)
_ANY_DAY = date(2000, 6, 15)
"""What days are counted from where only the days between sessions are known."""
_SPREAD_DAYS = 31


@dataclass(frozen=True)
class BidsLayout:
    """Where a data set keeps its volumes.

    Parameters
    ----------
    bases
        Folders that hold the participants' folders.
    anat
        Folder of the volumes inside a session's.
    derivative
        Folder below `derivatives` whose volumes are read too; none if empty.
    """

    bases: tuple[str, ...] = (".",)
    anat: str = "anat"
    derivative: str = ""


STANDARD = BidsLayout()
"""As the BIDS specification has it."""


@dataclass
class FolderWalk:
    """Lists a data set's folders, and records links and folders that cannot be opened."""

    root: Path
    links: int = 0
    closed: list[str] = field(default_factory=list)

    def listed(self, folder: Path) -> list[Path]:
        """A folder's entries by name. Links are counted and left out; a folder that cannot be opened is recorded."""
        try:
            entries = sorted(folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError:
            self.closed.append(folder.relative_to(self.root).as_posix())
            return []
        self.links += sum(path.is_symlink() for path in entries if path.name.startswith(("sub-", "ses-")))
        return [path for path in entries if not path.is_symlink()]

    def folders(self, folder: Path, prefix: str) -> list[Path]:
        """Its sub-folders whose names have this prefix."""
        return [path for path in self.listed(folder) if path.name.startswith(prefix) and path.is_dir()]


@dataclass(frozen=True)
class SessionFiles:
    """A session's files and table rows, before its age is known; without volumes if only a table names it."""

    label: str
    volumes: tuple[Path, ...]
    rows: tuple[Row, ...] = field(repr=False)
    day: date | None = field(repr=False)
    misnamed: tuple[Path, ...] = ()
    label_maps: tuple[Path, ...] = ()
    derived: tuple[Path, ...] = ()

    @property
    def days_since_first(self) -> float | None:
        """Days since the participant's first session, where the table of sessions counts them."""
        return days_since_first(self.rows)


@dataclass(frozen=True)
class Participant:
    """One participant's sessions, in order where that is known, and rows of `participants.tsv`.

    `unit` is the unit of ages in the participant's table of sessions, where its JSON gives one.
    """

    sessions: tuple[SessionFiles, ...]
    rows: tuple[Row, ...] = field(repr=False)
    ordered: bool
    unreadable: bool
    unit: str | None

    @property
    def has_days(self) -> bool:
        return all(session.day is not None for session in self.sessions)


def with_prefix(name: str, prefix: str) -> str:
    """A name with its BIDS prefix (`sub-`, `ses-`), whether it has one or not."""
    return name if name.startswith(prefix) else f"{prefix}{name}"


def common_value(rows: Iterable[Row], column: str) -> str | None:
    """The value that all rows share in a column; empty if none has one, None if they differ."""
    texts = {row[column] for row in rows if not is_missing(row.get(column, ""))}
    return None if len(texts) > 1 else next(iter(texts), "")


def read_participant(
    folder: Path, walk: FolderWalk, layout: BidsLayout, rows: tuple[Row, ...], pipelines: list[Path]
) -> Participant:
    """A participant's sessions: those with a folder, and those named in a table."""
    session_rows: dict[str, list[Row]] = defaultdict(list)
    unreadable, unit = False, None
    read_too = [pipeline for pipeline in pipelines if pipeline.name == layout.derivative]
    file = folder / f"{folder.name}_sessions.tsv"
    try:
        for row in read_rows(file, key="session_id") if file.is_file() else ():
            session_rows[with_prefix(row["session_id"], SESSION)].append(row)
        sidecar = read_description(file.with_suffix(".json"))
        unit = age_unit(sidecar, file="its JSON") if described(sidecar, "age") else None
    except FedAgeError:  # its message names the participant; the file is counted by reason instead
        unreadable = True
    sessions = {}
    session_folders = walk.folders(folder, SESSION)
    labels = {session_folder.name for session_folder in session_folders}
    rows = tuple(_with_session(row, labels) for row in rows)
    # Volumes beside the sessions' folders belong to no session.
    without_session = _t1w_candidates(walk.listed(folder / layout.anat)) if session_folders else ()
    for session_folder in session_folders or [folder]:
        label = session_folder.name if session_folder is not folder else ""
        entries = walk.listed(session_folder / layout.anat)
        candidates = _t1w_candidates(entries)
        volumes = tuple(path for path in candidates if _is_of(path.name, folder.name, label))
        misnamed = tuple(path for path in candidates if path not in volumes) + without_session
        without_session = ()
        day = _day_of(session_rows[label])
        try:
            day = day or _scan_day(session_folder, volumes)
        except FedAgeError:
            unreadable = True
        derived_folders = anat_folders(pipelines, participant=folder.name, session=label, anat=layout.anat)
        label_maps = tuple(
            path
            for path in (*entries, *(path for derived in derived_folders for path in walk.listed(derived)))
            if is_label_map(path.name, participant=folder.name, session=label) and path.is_file()
        )
        derived = tuple(
            path
            for place in anat_folders(read_too, participant=folder.name, session=label, anat=layout.anat)
            for path in _t1w_candidates(walk.listed(place))
            if _is_of(path.name, folder.name, label)
        )
        sessions[label] = SessionFiles(label, volumes, tuple(session_rows[label]), day, misnamed, label_maps, derived)
    if "" not in sessions:
        for label in {*session_rows, *(label for row in rows if (label := session_of(row)))} - sessions.keys():
            rows_of_label = tuple(session_rows.get(label, ()))
            sessions[label] = SessionFiles(label, (), rows_of_label, _day_of(rows_of_label))
    sessions_without_placeholders = _with_counted_days(_without_placeholders(list(sessions.values())))
    ordered = _order_sessions(sessions_without_placeholders)
    return Participant(tuple(ordered or sessions_without_placeholders), rows, ordered is not None, unreadable, unit)


def _day_of(rows: Sequence[Row]) -> date | None:
    """The day that a session's rows in its table of sessions give."""
    return acquisition_day(common_value(rows, "acq_time") or "")


def _t1w_candidates(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Files, and pipes or devices, whose names end like those of T1-weighted volumes."""
    return tuple(path for path in paths if _LIKE_T1W.fullmatch(path.name) and not path.is_dir())


def _is_of(name: str, participant: str, label: str) -> bool:
    """Whether a volume's name follows BIDS and agrees with its folders on participant and session."""
    match = _T1W.fullmatch(name)
    session = _SESSION_IN_NAME.search(name)
    return match is not None and match["participant"] == participant and (session is None or session[1] == label)


def _scan_day(session_folder: Path, volumes: Sequence[Path]) -> date | None:
    """The earliest day that a session's `*_scans.tsv` gives for its volumes."""
    names = {volume.name for volume in volumes}
    days = [
        day
        for file in sorted(session_folder.glob("sub-*_scans.tsv"))
        for row in read_rows(file, key="filename")
        if row["filename"].rpartition("/")[2] in names and (day := acquisition_day(row.get("acq_time", ""))) is not None
    ]
    return min(days, default=None)


def _without_placeholders(sessions: list[SessionFiles]) -> list[SessionFiles]:
    """Drop days that are one first of January for all of several sessions: a placeholder, not a date."""
    days = {session.day for session in sessions}
    (day, *others) = days or {None}
    if len(sessions) > 1 and not others and day is not None and (day.month, day.day) == (1, 1):
        sessions = [replace(session, day=None) for session in sessions]
    if sessions and all(session.day is None for session in sessions):
        by_label = [label_day(session.label) for session in sessions]
        if None not in by_label:
            sessions = [replace(session, day=day) for session, day in zip(sessions, by_label, strict=True)]
    return sessions


def _with_counted_days(sessions: list[SessionFiles]) -> list[SessionFiles]:
    """Sessions with days as their table counts them where they have no dates; without days where the two differ."""
    counts = [count for session in sessions if (count := session.days_since_first) is not None]
    if len(counts) < len(sessions):
        return sessions
    if any(session.day is None for session in sessions):
        days = [_ANY_DAY + timedelta(days=round(count)) for count in counts]
        return [replace(session, day=day) for session, day in zip(sessions, days, strict=True)]
    starts = [session.day.toordinal() - count for session, count in zip(sessions, counts, strict=True) if session.day]
    if max(starts) - min(starts) > _SPREAD_DAYS:
        return [replace(session, day=None) for session in sessions]
    return sessions


def _order_sessions(sessions: list[SessionFiles]) -> list[SessionFiles] | None:
    """Sessions sorted by day if each has one, else by the number in their labels; None if neither is known."""
    if len(sessions) < 2:
        return sessions
    if all(session.day is not None for session in sessions):
        return sorted(sessions, key=lambda session: (session.day or date.min, session.label))
    numbers = label_numbers([session.label for session in sessions])
    return None if numbers is None else sorted(sessions, key=lambda session: numbers[session.label])


def _with_session(row: Row, labels: Collection[str]) -> Row:
    """A row of `participants.tsv` with `session_id` added, where another column names an existing session."""
    if "session_id" in row:
        return row
    named = (row[column] for column in _SESSION_COLUMNS if with_prefix(row.get(column, ""), SESSION) in labels)
    text = next(named, "")
    return {**row, "session_id": text} if text else row


def session_of(row: Row) -> str:
    """Label of the session that a row of `participants.tsv` names; empty if it names none."""
    text = row.get("session_id", "")
    return "" if is_missing(text) else with_prefix(text, SESSION)
