"""Who took part in a BIDS data set, when, and how old: folders and tables together, before any volume is opened."""

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
from fedage.client.cohort.table.header import columns_in_words
from fedage.client.cohort.table.identifiers import without_zeros
from fedage.client.cohort.table.summary_rows import is_summary
from fedage.common.errors import FedAgeError

PARTICIPANTS = "participants.tsv"
_SESSION_COLUMNS = ("session", "ses", "session_label", "visit", "timepoint")
"""What tables call their column of sessions instead of `session_id`."""
_T1W = re.compile(r"(?P<participant>sub-[A-Za-z0-9+]+)(_[a-z]+-[A-Za-z0-9+]+)*_T1w\.nii(\.gz)?")
_SESSION_IN_NAME = re.compile(r"_(ses-[A-Za-z0-9+]+)_")
_LIKE_T1W = re.compile(r"(.*[^a-z])?(t1w?|mprage)\.nii(\.gz)?", re.IGNORECASE)


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
        Among the participant's sessions, from 0; None where their order is not known.
    volumes
        Its T1-weighted volumes.
    misnamed
        What looks like one and is named as no volume of this participant and session.
    label_maps
        Segmentations of its volumes.
    day
        When it was, if all of the participant's sessions say so; perhaps shifted.
    age
        Then, or why nobody knows it.
    sex
        `M`, `F` or unknown.
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
    """A data set's folders: what was passed by on the way."""

    root: Path
    links: int = 0
    closed: list[str] = field(default_factory=list)

    def listed(self, folder: Path) -> list[Path]:
        """What is in a folder, by name; links are counted and left, a folder that cannot be opened is remembered."""
        try:
            there = sorted(folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError:
            self.closed.append(folder.relative_to(self.root).as_posix())
            return []
        self.links += sum(path.is_symlink() for path in there if path.name.startswith(("sub-", "ses-")))
        return [path for path in there if not path.is_symlink()]

    def folders(self, folder: Path, prefix: str) -> list[Path]:
        """Its sub-folders with names that begin so."""
        return [path for path in self.listed(folder) if path.name.startswith(prefix) and path.is_dir()]


@dataclass(frozen=True)
class _Seen:
    """A session's folder and rows, before ages are told; without volumes where only a table names it."""

    label: str
    volumes: tuple[Path, ...]
    rows: tuple[Row, ...] = field(repr=False)
    day: date | None = field(repr=False)
    misnamed: tuple[Path, ...] = ()
    label_maps: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Participant:
    """One participant's sessions, in their order where it is known, and rows of `participants.tsv`.

    `unit` is that of ages in the participant's own table of sessions, where its JSON tells one.
    """

    sessions: tuple[_Seen, ...]
    rows: tuple[Row, ...] = field(repr=False)
    ordered: bool
    unreadable: bool
    unit: str | None

    @property
    def has_days(self) -> bool:
        return all(session.day is not None for session in self.sessions)


@dataclass(frozen=True)
class _Reading:
    """How ages are read, in `participants.tsv` and in tables of sessions; the label of the data set's first session."""

    ages: AgeColumn
    later: AgeColumn
    first: str | None


def read_sessions(walk: FolderWalk, layout: BidsLayout) -> list[Session]:
    """All sessions with volumes.

    Raises
    ------
    FedAgeError
        If a table of the whole data set cannot be read.
    """
    root = walk.root
    about, of_sessions = read_description(root / "participants.json"), read_description(root / "sessions.json")
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(root / PARTICIPANTS, key="participant_id"):
        rows[_prefixed(row["participant_id"], "sub-")].append(row)
    pipelines = walk.folders(root / DERIVATIVES, "")
    seen = {
        folder.name: _participant(folder, walk, layout, tuple(rows.get(folder.name, ())), pipelines)
        for base in layout.bases
        for folder in walk.folders(root / base, "sub-")
    }
    unit = age_unit(about, file="participants.json")
    later_unit = age_unit(of_sessions, file="sessions.json") if described(of_sessions, "age") else unit
    every = [session for found in seen.values() for session in found.sessions]
    if seen:
        _require_ages(root / PARTICIPANTS, [*(row for some in rows.values() for row in some), *_rows_of(every)])
    people = [name for name in rows if not is_summary(name.removeprefix("sub-"))]  # a mean of whole ages is not whole
    reading = _Reading(
        AgeColumn.of([row.get("age", "") for name in people for row in rows[name]], unit=unit),
        AgeColumn.of([row.get("age", "") for row in _rows_of(every)], unit=later_unit),
        first_label({session.label for session in every if session.label}),
    )
    reading.ages.require_plausible([row.get("age", "") for name in people for row in rows[name]], file=PARTICIPANTS)
    reading.later.require_plausible([row.get("age", "") for row in _rows_of(every)], file="sub-*_sessions.tsv")
    sexes = {**sex_codes(about, column="gender"), **sex_codes(about)}
    for column in ("sex", "gender"):
        require_sexes([row.get(column, "") for some in rows.values() for row in some], sexes, file=PARTICIPANTS)
    without = {without_zeros(name) for name in rows}
    return [
        Session(
            participant,
            session.label,
            position if found.ordered else None,
            session.volumes,
            session.misnamed,
            session.label_maps if session.volumes else (),
            session.day if found.has_days else None,
            Reason.ZEROS_DIFFER
            if not found.rows and without_zeros(participant) in without
            else _age(found, session, reading),
            sexes.get((_agreed(found.rows, "sex") or _agreed(found.rows, "gender") or "").casefold()),
        )
        for participant, found in seen.items()
        for position, session in enumerate(found.sessions)
        if session.volumes or session.misnamed
    ]


def _rows_of(sessions: Iterable[_Seen]) -> list[Row]:
    """The rows that tables of sessions have of them."""
    return [row for session in sessions for row in session.rows]


def _require_ages(path: Path, rows: Iterable[Row]) -> None:
    """Refuse a data set whose tables have no column of ages: else each volume of it would be set aside for itself."""
    names = [name.strip().casefold() for name in column_names(path)]
    if "age" not in names and not any("age" in row for row in rows):
        near = columns_in_words(names, wanted=["age", "age_years", "age_at_scan"], known=["participant_id"])
        raise FedAgeError(
            f"{path.name} has no column 'age', it has {near}, and no sub-*_sessions.tsv has one; rename the column of "
            "ages to age, and tell another unit than years in participants.json"
        )


def _prefixed(name: str, prefix: str) -> str:
    return name if name.startswith(prefix) else f"{prefix}{name}"


def _agreed(rows: Iterable[Row], column: str) -> str | None:
    """What rows say in a column: empty if nothing, None if they differ."""
    texts = {row[column] for row in rows if not is_missing(row.get(column, ""))}
    return None if len(texts) > 1 else next(iter(texts), "")


def _participant(
    folder: Path, walk: FolderWalk, layout: BidsLayout, rows: tuple[Row, ...], pipelines: list[Path]
) -> _Participant:
    """A participant's sessions: those with a folder, and those that a table names."""
    told: dict[str, list[Row]] = defaultdict(list)
    unreadable, unit = False, None
    file = folder / f"{folder.name}_sessions.tsv"
    try:
        for row in read_rows(file, key="session_id") if file.is_file() else ():
            told[_prefixed(row["session_id"], SESSION)].append(row)
        about = read_description(file.with_suffix(".json"))
        unit = age_unit(about, file="its JSON") if described(about, "age") else None
    except FedAgeError:  # names the participant; counted by reason instead
        unreadable = True
    sessions = {}
    places = walk.folders(folder, SESSION)
    rows = tuple(_with_session(row, {place.name for place in places}) for row in rows)
    beside = _like_t1w(walk.listed(folder / layout.anat)) if places else ()  # of no session, though there are some
    for place in places or [folder]:
        label = place.name if place is not folder else ""
        listed = walk.listed(place / layout.anat)
        there = _like_t1w(listed)
        volumes = tuple(path for path in there if _is_of(path.name, folder.name, label))
        misnamed = tuple(path for path in there if path not in volumes) + beside
        beside = ()
        day = acquisition_day(_agreed(told[label], "acq_time") or "")
        try:
            day = day or _scanned(place, volumes)
        except FedAgeError:
            unreadable = True
        made = anat_folders(pipelines, participant=folder.name, session=label, anat=layout.anat)
        label_maps = tuple(
            path
            for path in (*listed, *(path for derived in made for path in walk.listed(derived)))
            if is_label_map(path.name, participant=folder.name, session=label) and path.is_file()
        )
        sessions[label] = _Seen(label, volumes, tuple(told[label]), day, misnamed, label_maps)
    if "" not in sessions:
        for label in {*told, *(label for row in rows if (label := _session_of(row)))} - sessions.keys():
            of_label = tuple(told.get(label, ()))
            sessions[label] = _Seen(label, (), of_label, acquisition_day(_agreed(of_label, "acq_time") or ""))
    some = _without_placeholders(list(sessions.values()))
    ordered = _ordered(some)
    return _Participant(tuple(ordered or some), rows, ordered is not None, unreadable, unit)


def _like_t1w(there: Iterable[Path]) -> tuple[Path, ...]:
    """Files that are T1-weighted volumes by the end of their name, however the rest is written."""
    return tuple(path for path in there if _LIKE_T1W.fullmatch(path.name) and path.is_file())


def _is_of(name: str, participant: str, label: str) -> bool:
    """Whether a volume's name is one of BIDS and says no other participant or session than its folders do."""
    found = _T1W.fullmatch(name)
    session = _SESSION_IN_NAME.search(name)
    return found is not None and found["participant"] == participant and (session is None or session[1] == label)


def _scanned(place: Path, volumes: Sequence[Path]) -> date | None:
    """The day that a session's `*_scans.tsv` gives its volumes."""
    names = {volume.name for volume in volumes}
    days = [
        day
        for file in sorted(place.glob("sub-*_scans.tsv"))
        for row in read_rows(file, key="filename")
        if row["filename"].rpartition("/")[2] in names and (day := acquisition_day(row.get("acq_time", ""))) is not None
    ]
    return min(days, default=None)


def _without_placeholders(sessions: list[_Seen]) -> list[_Seen]:
    """Without days where all of several sessions were on one first of January: nobody's dates, and no time between."""
    days = {session.day for session in sessions}
    (day, *others) = days or {None}
    if len(sessions) > 1 and not others and day is not None and (day.month, day.day) == (1, 1):
        sessions = [replace(session, day=None) for session in sessions]
    if sessions and all(session.day is None for session in sessions):
        by_label = [label_day(session.label) for session in sessions]
        if None not in by_label:
            sessions = [replace(session, day=day) for session, day in zip(sessions, by_label, strict=True)]
    return sessions


def _ordered(sessions: list[_Seen]) -> list[_Seen] | None:
    """Sessions by day where each has one, else by the number in their labels; None where neither is known."""
    if len(sessions) < 2:
        return sessions
    if all(session.day is not None for session in sessions):
        return sorted(sessions, key=lambda session: (session.day or date.min, session.label))
    numbers = label_numbers([session.label for session in sessions])
    return None if numbers is None else sorted(sessions, key=lambda session: numbers[session.label])


def _with_session(row: Row, labels: Collection[str]) -> Row:
    """A row of `participants.tsv` with its session, where another column than `session_id` names one that is there."""
    if "session_id" in row:
        return row
    named = (row[column] for column in _SESSION_COLUMNS if _prefixed(row.get(column, ""), SESSION) in labels)
    text = next(named, "")
    return {**row, "session_id": text} if text else row


def _session_of(row: Row) -> str:
    """The session that a row of `participants.tsv` is of; empty where it names none."""
    text = row.get("session_id", "")
    return "" if is_missing(text) else _prefixed(text, SESSION)


def _age(participant: _Participant, session: _Seen, reading: _Reading) -> Age | Reason:
    """Of a session: its own age, else one of another session plus the time between."""
    if participant.unreadable:
        return Reason.UNREADABLE_TABLE
    if not participant.rows:
        return Reason.NOT_IN_TABLE
    of_this = [row for row in participant.rows if not session.label or _session_of(row) == session.label]
    later = replace(reading.later, unit=participant.unit) if participant.unit else reading.later
    for rows, column in ((session.rows, later), (of_this, reading.ages)):
        text = _agreed(rows, "age")
        if text != "":
            return Reason.SEVERAL_AGES if text is None else column.age(text)
    known = _known(participant, reading)
    if isinstance(known, Reason):
        return known
    reference, age = known
    if reference is session or isinstance(age, Reason):
        return age
    if session.day is None or reference.day is None or not participant.has_days:
        return Reason.NO_AGE_OF_SESSION
    years = age.years + (session.day - reference.day).days / DAYS_PER_YEAR
    return Age(years, age.source, age.capped) if 0 <= years <= OLDEST_YEARS else Reason.IMPLAUSIBLE_AGE


def _known(participant: _Participant, reading: _Reading) -> tuple[_Seen, Age | Reason] | Reason:
    """A session of known age: the earliest that `participants.tsv` names, else the first, which its one age is of."""
    for session in participant.sessions:
        text = _agreed([row for row in participant.rows if _session_of(row) == session.label], "age")
        if session.label and text:
            return session, reading.ages.age(text)
    text = _agreed([row for row in participant.rows if not _session_of(row)], "age")
    if text is None:
        return Reason.SEVERAL_AGES
    if not text:
        return Reason.NO_AGE if not any(_session_of(row) for row in participant.rows) else Reason.NO_AGE_OF_SESSION
    first = _first(participant, reading)
    return Reason.NO_AGE_OF_SESSION if first is None else (first, reading.ages.age(text))


def _first(participant: _Participant, reading: _Reading) -> _Seen | None:
    """The session that one age of a participant is of: the earliest of several, else the data set's first.

    None where nobody knows, as where the names of all of them say that another was before.
    """
    sessions = participant.sessions
    if participant.has_days and (len(sessions) > 1 or label_day(sessions[0].label) is not None):
        return None if all(is_later(session.label) for session in sessions) else sessions[0]
    if len(sessions) == 1 and not sessions[0].label:
        return sessions[0]
    return next((session for session in sessions if session.label == reading.first), None)
