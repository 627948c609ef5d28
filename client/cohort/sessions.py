"""Who took part in a BIDS data set, when, and how old: folders and tables together, before any volume is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from fedage.client.cohort.ages import DAYS_PER_YEAR, OLDEST_YEARS, Age
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
from fedage.client.cohort.reasons import Reason

PARTICIPANTS = "participants.tsv"
_T1W = re.compile(r"sub-[A-Za-z0-9+]+(_[a-z]+-[A-Za-z0-9+]+)*_T1w\.nii(\.gz)?")


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
        Among the participant's sessions, from 0.
    volumes
        Its T1-weighted volumes.
    day
        When it was, if all of the participant's sessions say so; perhaps shifted.
    age
        Then, or why nobody knows it.
    sex
        `M`, `F` or unknown.
    """

    participant: str = field(repr=False)
    label: str
    position: int
    volumes: tuple[Path, ...] = field(repr=False)
    day: date | None = field(repr=False)
    age: Age | Reason
    sex: str | None


@dataclass
class Walk:
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
    """A session's folder and rows, before ages are told."""

    label: str
    volumes: tuple[Path, ...]
    row: Row
    day: date | None


def read_sessions(walk: Walk, layout: BidsLayout) -> list[Session]:
    """All sessions with volumes.

    Raises
    ------
    FedAgeError
        If a table cannot be read.
    """
    root = walk.root
    about, named = read_json(root / "participants.json"), read_tsv(root / PARTICIPANTS, key="participant_id")
    rows = {_prefixed(name, "sub-"): row for name, row in named.items()}
    seen = {
        participant.name: _seen(participant, walk, layout)
        for base in layout.bases
        for participant in walk.folders(root / base, "sub-")
    }
    unit = age_unit(about, file="participants.json")
    ages = AgeColumn.of([row.get("age", "") for row in rows.values()], unit=unit)
    later = AgeColumn.of([session.row.get("age", "") for found in seen.values() for session in found], unit=unit)
    sexes = {**sex_codes(about, column="gender"), **sex_codes(about)}
    sessions = []
    for participant, found in seen.items():
        row = rows.get(participant)
        sex = sexes.get((row or {}).get("sex", (row or {}).get("gender", "")).casefold())
        for position, session in enumerate(found):
            if session.volumes:
                age = _age(found, position, row, ages=ages, later=later)
                sessions.append(Session(participant, session.label, position, session.volumes, session.day, age, sex))
    return sessions


def _prefixed(name: str, prefix: str) -> str:
    return name if name.startswith(prefix) else f"{prefix}{name}"


def _seen(participant: Path, walk: Walk, layout: BidsLayout) -> list[_Seen]:
    """A participant's sessions, by day where each has one, else by label; those without volumes count as times."""
    file = participant / f"{participant.name}_sessions.tsv"
    rows = read_tsv(file, key="session_id") if file.is_file() else {}
    rows = {_prefixed(name, "ses-"): row for name, row in rows.items()}
    sessions = []
    for folder in walk.folders(participant, "ses-") or [participant]:
        label = folder.name if folder is not participant else ""
        there = walk.listed(folder / layout.anat)
        volumes = tuple(path for path in there if _T1W.fullmatch(path.name) and path.is_file())
        row: Mapping[str, str] = rows.get(label, {})
        sessions.append(_Seen(label, volumes, row, acquisition_day(row.get("acq_time", ""))))
    if all(session.day is not None for session in sessions):
        return sorted(sessions, key=lambda session: (session.day or date.min, session.label))
    return [_Seen(session.label, session.volumes, session.row, None) for session in sessions]


def _age(sessions: list[_Seen], position: int, row: Row | None, *, ages: AgeColumn, later: AgeColumn) -> Age | Reason:
    """Of a session: its own age, else the participant's at the first, or at the first plus the time since."""
    session, first = sessions[position], sessions[0]
    if row is None:
        return Reason.NOT_IN_TABLE
    if not is_missing(session.row.get("age", "")):
        return later.age(session.row["age"])
    age = ages.age(row.get("age", ""))
    if position == 0 or isinstance(age, Reason):
        return age
    if session.day is None or first.day is None:
        return Reason.NO_AGE
    years = age.years + (session.day - first.day).days / DAYS_PER_YEAR
    return Age(years, age.source, age.capped) if years <= OLDEST_YEARS else Reason.IMPLAUSIBLE_AGE
