"""Participants of a BIDS data set, their sessions and ages: from folders and tables, before any volume is opened."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from fedage.client.cohort.ages import DAYS_PER_YEAR, OLDEST_YEARS, Age
from fedage.client.cohort.bids.derivatives import derivative_folder
from fedage.client.cohort.bids.label_maps import DERIVATIVES
from fedage.client.cohort.bids.participants import (
    AgeColumn,
    Row,
    age_unit,
    column_names,
    described,
    read_description,
    read_rows,
    require_sexes,
    sex_codes,
)
from fedage.client.cohort.bids.session_files import (
    BidsLayout,
    FolderWalk,
    Participant,
    SessionFiles,
    common_value,
    read_participant,
    session_of,
    with_prefix,
)
from fedage.client.cohort.bids.session_order import first_label, is_later, label_day
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.table.header import columns_text
from fedage.client.cohort.table.identifiers import without_zeros
from fedage.client.cohort.table.summary_rows import is_summary
from fedage.client.cohort.table.units import NOT_FROM_BIRTH, counts_from_conception
from fedage.common.errors import FedAgeError

PARTICIPANTS = "participants.tsv"
_MOMENT = r"(?:mr_?i?_?)?(?:scan|scanning|mri?|exam|examination|acq|acquisition|imaging|visit|session)"
_AT_SCAN = re.compile(
    rf"(?:age_?(?:at_?)?(?:the_?)?{_MOMENT}|{_MOMENT}_?age)(?:_in)?(?:_?(?P<unit>year|month|week|day)s?)?"
)
"""Names of other columns of ages at the scan, in small letters."""


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
    derived
        Volumes that the site's tools made of them.
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
    derived: tuple[Path, ...] = field(repr=False)
    day: date | None = field(repr=False)
    age: Age | Reason
    sex: str | None


@dataclass(frozen=True)
class _Reading:
    """How ages are read, in `participants.tsv` and in tables of sessions; and the label of the first session.

    `at_scan` are the other columns of ages at the scan, as `age_at_scan`.
    """

    ages: AgeColumn
    later: AgeColumn
    first: str | None
    at_scan: Mapping[str, AgeColumn]

    def contradicts_itself(self, row: Row, *, ages: AgeColumn) -> bool:
        """Whether a row's `age` and another age at the scan in it are more than a year apart."""
        stated = [ages.age(row.get("age", ""))]
        stated += [column.age(row.get(name, "")) for name, column in self.at_scan.items()]
        years = [age.years for age in stated if isinstance(age, Age)]
        return len(years) > 1 and max(years) - min(years) > 1


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
        rows[with_prefix(row["participant_id"], "sub-")].append(row)
    pipelines = walk.folders(root / DERIVATIVES, "")
    derivative_folder(pipelines, layout.derivative)
    participants = {
        folder.name: read_participant(folder, walk, layout, tuple(rows.get(folder.name, ())), pipelines)
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
        _columns_at_scan(
            [*(row for name in names for row in rows[name]), *_rows_of(all_sessions)],
            {**sessions_sidecar, **participants_sidecar},
        ),
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
            session.derived if session.volumes else (),
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


def _columns_at_scan(rows: Sequence[Row], sidecar: Mapping[str, Any]) -> dict[str, AgeColumn]:
    """Other columns than `age` that hold ages at the scan, by name; in years where a name and the JSON give no unit."""
    columns = {}
    for name in sorted({name for row in rows for name in row}):
        if match := _AT_SCAN.fullmatch(name):
            try:
                stated = age_unit(sidecar, file="participants.json", column=name)
            except FedAgeError:  # no age at the scan, as its description says
                continue
            texts = [row.get(name, "") for row in rows]
            columns[name] = AgeColumn.from_texts(texts, unit=match["unit"] or stated)
    return columns


def _sex_text(rows: Iterable[Row]) -> str:
    """What a participant's rows say of the sex, in either column; empty where they say nothing or disagree."""
    rows = tuple(rows)
    return common_value(rows, "sex") or common_value(rows, "gender") or ""


def _rows_of(sessions: Iterable[SessionFiles]) -> list[Row]:
    """All rows that tables of sessions hold for them."""
    return [row for session in sessions for row in session.rows]


def _require_ages(path: Path, rows: Iterable[Row]) -> None:
    """Refuse a data set whose tables have no column of ages; otherwise every volume would be set aside singly."""
    names = [name.strip().casefold() for name in column_names(path)]
    if "age" not in names and not any("age" in row for row in rows):
        if any(map(counts_from_conception, names)):
            raise FedAgeError(
                f"{path.name} has no column 'age'; that of an age which it has {NOT_FROM_BIRTH} in a column age"
            )
        available = columns_text(names, wanted=["age", "age_years", "age_at_scan"], known=["participant_id"])
        raise FedAgeError(
            f"{path.name} has no column 'age' (it has {available}), and no sub-*_sessions.tsv has one; rename the "
            "column of ages to age, and give a unit other than years in participants.json"
        )


def _age(participant: Participant, session: SessionFiles, reading: _Reading) -> Age | Reason:
    """Age at a session, unless another column of its rows gives an age at the scan that is another one."""
    age = _age_in_column_age(participant, session, reading)
    rows = [row for row in participant.rows if session_of(row) in ("", session.label)]
    session_ages = replace(reading.later, unit=participant.unit) if participant.unit else reading.later
    differ = any(
        reading.contradicts_itself(row, ages=ages)
        for own_rows, ages in ((session.rows, session_ages), (rows, reading.ages))
        for row in own_rows
    )
    return Reason.SEVERAL_AGES if differ and isinstance(age, Age) else age


def _age_in_column_age(participant: Participant, session: SessionFiles, reading: _Reading) -> Age | Reason:
    """Age at a session: its own, else that of another session plus the time between them."""
    if participant.unreadable:
        return Reason.UNREADABLE_TABLE
    if not participant.rows:
        return Reason.NOT_IN_TABLE
    rows_of_session = [row for row in participant.rows if not session.label or session_of(row) == session.label]
    session_ages = replace(reading.later, unit=participant.unit) if participant.unit else reading.later
    for rows, column in ((session.rows, session_ages), (rows_of_session, reading.ages)):
        text = common_value(rows, "age")
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


def _reference_session(participant: Participant, reading: _Reading) -> tuple[SessionFiles, Age | Reason] | Reason:
    """A session of known age: the earliest that `participants.tsv` names, else the one that a single age refers to."""
    for session in participant.sessions:
        text = common_value([row for row in participant.rows if session_of(row) == session.label], "age")
        if session.label and text:
            return session, reading.ages.age(text)
    text = common_value([row for row in participant.rows if not session_of(row)], "age")
    if text is None:
        return Reason.SEVERAL_AGES
    if not text:
        return Reason.NO_AGE if not any(session_of(row) for row in participant.rows) else Reason.NO_AGE_OF_SESSION
    first = _first_session(participant, reading)
    return Reason.NO_AGE_OF_SESSION if first is None else (first, reading.ages.age(text))


def _first_session(participant: Participant, reading: _Reading) -> SessionFiles | None:
    """The session to which a participant's single age refers: the earliest of several, else the data set's first.

    None if that is not known, for example if all labels say that there was an earlier session.
    """
    sessions = participant.sessions
    if any(session.days_since_first is not None for session in sessions):
        return next((session for session in sessions if session.days_since_first == 0), None)
    if participant.has_days and (len(sessions) > 1 or label_day(sessions[0].label) is not None):
        return None if all(is_later(session.label) for session in sessions) else sessions[0]
    if len(sessions) == 1 and not sessions[0].label:
        return sessions[0]
    return next((session for session in sessions if session.label == reading.first), None)
