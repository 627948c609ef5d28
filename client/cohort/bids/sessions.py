"""Participants of a BIDS data set, their sessions and ages: from folders and tables, before any volume is opened."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from fedage.client.cohort.ages import DAYS_PER_YEAR, OLDEST_YEARS, Age
from fedage.client.cohort.bids.label_maps import DERIVATIVES, anat_folders, is_label_map
from fedage.client.cohort.bids.participants import (
    AgeColumn,
    Row,
    acquisition_day,
    age_unit,
    column_names,
    described,
    is_missing,
    read_description,
    read_rows,
    require_sexes,
    sex_codes,
)
from fedage.client.cohort.bids.session_order import SESSION, first_label, is_later, label_day, label_numbers
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.table.header import columns_text
from fedage.client.cohort.table.identifiers import without_zeros
from fedage.client.cohort.table.summary_rows import is_summary
from fedage.common.errors import FedAgeError

PARTICIPANTS = "participants.tsv"
_SESSION_COLUMNS = ("session", "ses", "session_label", "visit", "timepoint")
"""Other names for the column `session_id`."""
_T1W = re.compile(r"(?P<participant>sub-[A-Za-z0-9+]+)(_[a-z]+-[A-Za-z0-9+]+)*_T1w\.nii(\.gz)?")
_SESSION_IN_NAME = re.compile(r"_(ses-[A-Za-z0-9+]+)_")
_LIKE_T1W = re.compile(r"(.*[^a-z])?(t1w?|mprage)\.nii(\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class BidsLayout:
    """Where a data set keeps its volumes.

    Parameters
    ----------
    bases
        Folders that hold the participants' folders.
    anat
        Folder of the volumes inside a session's.
    """

    bases: tuple[str, ...] = (".",)
    anat: str = "anat"


STANDARD = BidsLayout()
"""As the BIDS specification has it."""


@dataclass(frozen=True)
class Session:
    """One session of a participant.

    Parameters
    ----------
    participant, label
        `sub-…`, and `ses-…` or nothing.
    position
        Index among the participant's sessions, from 0; None where their order is not known.
    volumes
        Its T1-weighted volumes.
    misnamed
        Files that look like such a volume, but are not named as one of this participant and session.
    label_maps
        Segmentations of its volumes.
    day
        Its date, if all of the participant's sessions have one; it may be shifted.
    age
        Age at the session, or why it is not known.
    sex
        `M`, `F`, or None if unknown.
    """

    participant: str = field(repr=False)
    label: str
    position: int | None
    volumes: tuple[Path, ...] = field(repr=False)
    misnamed: tuple[Path, ...] = field(repr=False)
    label_maps: tuple[Path, ...] = field(repr=False)
    day: date | None = field(repr=False)
    age: Age | Reason
    sex: str | None


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
class _SessionFiles:
    """A session's files and table rows, before its age is known; without volumes if only a table names it."""

    label: str
    volumes: tuple[Path, ...]
    rows: tuple[Row, ...] = field(repr=False)
    day: date | None = field(repr=False)
    misnamed: tuple[Path, ...] = ()
    label_maps: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Participant:
    """One participant's sessions, in order where that is known, and rows of `participants.tsv`.

    `unit` is the unit of ages in the participant's table of sessions, where its JSON gives one.
    """

    sessions: tuple[_SessionFiles, ...]
    rows: tuple[Row, ...] = field(repr=False)
    ordered: bool
    unreadable: bool
    unit: str | None

    @property
    def has_days(self) -> bool:
        return all(session.day is not None for session in self.sessions)


@dataclass(frozen=True)
class _Reading:
    """How ages are read, in `participants.tsv` and in tables of sessions; and the label of the first session."""

    ages: AgeColumn
    later: AgeColumn
    first: str | None


def read_sessions(walk: FolderWalk, layout: BidsLayout) -> list[Session]:
    """All sessions that have volumes.

    Raises
    ------
    FedAgeError
        If a table of the whole data set cannot be read.
    """
    root = walk.root
    participants_sidecar = read_description(root / "participants.json")
    sessions_sidecar = read_description(root / "sessions.json")
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(root / PARTICIPANTS, key="participant_id"):
        rows[_prefixed(row["participant_id"], "sub-")].append(row)
    pipelines = walk.folders(root / DERIVATIVES, "")
    participants = {
        folder.name: _participant(folder, walk, layout, tuple(rows.get(folder.name, ())), pipelines)
        for base in layout.bases
        for folder in walk.folders(root / base, "sub-")
    }
    unit = age_unit(participants_sidecar, file="participants.json")
    session_unit = age_unit(sessions_sidecar, file="sessions.json") if described(sessions_sidecar, "age") else unit
    all_sessions = [session for participant in participants.values() for session in participant.sessions]
    if participants:
        participant_rows = [row for rows_of_one in rows.values() for row in rows_of_one]
        _require_ages(root / PARTICIPANTS, [*participant_rows, *_rows_of(all_sessions)])
    # Rows of totals and means are left out: the mean of whole years is no whole number.
    names = [name for name in rows if not is_summary(name.removeprefix("sub-"))]
    reading = _Reading(
        AgeColumn.from_texts([row.get("age", "") for name in names for row in rows[name]], unit=unit),
        AgeColumn.from_texts([row.get("age", "") for row in _rows_of(all_sessions)], unit=session_unit),
        first_label({session.label for session in all_sessions if session.label}),
    )
    reading.ages.require_plausible([row.get("age", "") for name in names for row in rows[name]], file=PARTICIPANTS)
    reading.later.require_plausible([row.get("age", "") for row in _rows_of(all_sessions)], file="sub-*_sessions.tsv")
    sexes = {**sex_codes(participants_sidecar, column="gender"), **sex_codes(participants_sidecar)}
    for column in ("sex", "gender"):
        require_sexes([row.get(column, "") for some in rows.values() for row in some], sexes, file=PARTICIPANTS)
    ids_without_zeros = {without_zeros(name) for name in rows}
    return [
        Session(
            name,
            session.label,
            position if participant.ordered else None,
            session.volumes,
            session.misnamed,
            session.label_maps if session.volumes else (),
            session.day if participant.has_days else None,
            Reason.ZEROS_DIFFER
            if not participant.rows and without_zeros(name) in ids_without_zeros
            else _age(participant, session, reading),
            sexes.get(_sex_text(participant.rows).casefold()),
        )
        for name, participant in participants.items()
        for position, session in enumerate(participant.sessions)
        if session.volumes or session.misnamed
    ]


def _sex_text(rows: Iterable[Row]) -> str:
    """What a participant's rows say of the sex, in either column; empty where they say nothing or disagree."""
    rows = tuple(rows)
    return _common_value(rows, "sex") or _common_value(rows, "gender") or ""


def _rows_of(sessions: Iterable[_SessionFiles]) -> list[Row]:
    """All rows that tables of sessions hold for them."""
    return [row for session in sessions for row in session.rows]


def _require_ages(path: Path, rows: Iterable[Row]) -> None:
    """Refuse a data set whose tables have no column of ages; otherwise every volume would be set aside singly."""
    names = [name.strip().casefold() for name in column_names(path)]
    if "age" not in names and not any("age" in row for row in rows):
        available = columns_text(names, wanted=["age", "age_years", "age_at_scan"], known=["participant_id"])
        raise FedAgeError(
            f"{path.name} has no column 'age' (it has {available}), and no sub-*_sessions.tsv has one; rename the "
            "column of ages to age, and give a unit other than years in participants.json"
        )


def _prefixed(name: str, prefix: str) -> str:
    return name if name.startswith(prefix) else f"{prefix}{name}"


def _common_value(rows: Iterable[Row], column: str) -> str | None:
    """The value that all rows share in a column; empty if none has one, None if they differ."""
    texts = {row[column] for row in rows if not is_missing(row.get(column, ""))}
    return None if len(texts) > 1 else next(iter(texts), "")


def _participant(
    folder: Path, walk: FolderWalk, layout: BidsLayout, rows: tuple[Row, ...], pipelines: list[Path]
) -> _Participant:
    """A participant's sessions: those with a folder, and those named in a table."""
    session_rows: dict[str, list[Row]] = defaultdict(list)
    unreadable, unit = False, None
    file = folder / f"{folder.name}_sessions.tsv"
    try:
        for row in read_rows(file, key="session_id") if file.is_file() else ():
            session_rows[_prefixed(row["session_id"], SESSION)].append(row)
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
        day = acquisition_day(_common_value(session_rows[label], "acq_time") or "")
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
        sessions[label] = _SessionFiles(label, volumes, tuple(session_rows[label]), day, misnamed, label_maps)
    if "" not in sessions:
        for label in {*session_rows, *(label for row in rows if (label := _session_of(row)))} - sessions.keys():
            rows_of_label = tuple(session_rows.get(label, ()))
            sessions[label] = _SessionFiles(
                label, (), rows_of_label, acquisition_day(_common_value(rows_of_label, "acq_time") or "")
            )
    sessions_without_placeholders = _without_placeholders(list(sessions.values()))
    ordered = _order_sessions(sessions_without_placeholders)
    return _Participant(tuple(ordered or sessions_without_placeholders), rows, ordered is not None, unreadable, unit)


def _t1w_candidates(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Files whose names end like those of T1-weighted volumes."""
    return tuple(path for path in paths if _LIKE_T1W.fullmatch(path.name) and path.is_file())


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


def _without_placeholders(sessions: list[_SessionFiles]) -> list[_SessionFiles]:
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


def _order_sessions(sessions: list[_SessionFiles]) -> list[_SessionFiles] | None:
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
    named = (row[column] for column in _SESSION_COLUMNS if _prefixed(row.get(column, ""), SESSION) in labels)
    text = next(named, "")
    return {**row, "session_id": text} if text else row


def _session_of(row: Row) -> str:
    """Label of the session that a row of `participants.tsv` names; empty if it names none."""
    text = row.get("session_id", "")
    return "" if is_missing(text) else _prefixed(text, SESSION)


def _age(participant: _Participant, session: _SessionFiles, reading: _Reading) -> Age | Reason:
    """Age at a session: its own, else that of another session plus the time between them."""
    if participant.unreadable:
        return Reason.UNREADABLE_TABLE
    if not participant.rows:
        return Reason.NOT_IN_TABLE
    rows_of_session = [row for row in participant.rows if not session.label or _session_of(row) == session.label]
    session_ages = replace(reading.later, unit=participant.unit) if participant.unit else reading.later
    for rows, column in ((session.rows, session_ages), (rows_of_session, reading.ages)):
        text = _common_value(rows, "age")
        if text != "":
            return Reason.SEVERAL_AGES if text is None else column.age(text)
    known = _reference_session(participant, reading)
    if isinstance(known, Reason):
        return known
    reference, age = known
    if reference is session or isinstance(age, Reason):
        return age
    if session.day is None or reference.day is None or not participant.has_days:
        return Reason.NO_AGE_OF_SESSION
    years = age.years + (session.day - reference.day).days / DAYS_PER_YEAR
    return Age(years, age.source, age.capped) if 0 <= years <= OLDEST_YEARS else Reason.IMPLAUSIBLE_AGE


def _reference_session(participant: _Participant, reading: _Reading) -> tuple[_SessionFiles, Age | Reason] | Reason:
    """A session of known age: the earliest that `participants.tsv` names, else the one that a single age refers to."""
    for session in participant.sessions:
        text = _common_value([row for row in participant.rows if _session_of(row) == session.label], "age")
        if session.label and text:
            return session, reading.ages.age(text)
    text = _common_value([row for row in participant.rows if not _session_of(row)], "age")
    if text is None:
        return Reason.SEVERAL_AGES
    if not text:
        return Reason.NO_AGE if not any(_session_of(row) for row in participant.rows) else Reason.NO_AGE_OF_SESSION
    first = _first_session(participant, reading)
    return Reason.NO_AGE_OF_SESSION if first is None else (first, reading.ages.age(text))


def _first_session(participant: _Participant, reading: _Reading) -> _SessionFiles | None:
    """The session to which a participant's single age refers: the earliest of several, else the data set's first.

    None if that is not known, for example if all labels say that there was an earlier session.
    """
    sessions = participant.sessions
    if participant.has_days and (len(sessions) > 1 or label_day(sessions[0].label) is not None):
        return None if all(is_later(session.label) for session in sessions) else sessions[0]
    if len(sessions) == 1 and not sessions[0].label:
        return sessions[0]
    return next((session for session in sessions if session.label == reading.first), None)
