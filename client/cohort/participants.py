"""The tables of a BIDS data set: who took part, how old at which session, of which sex.

`participants.tsv` gives one age a participant, which is that of the first session; a later session needs its own age in
`sub-*_sessions.tsv`, or acquisition times in both, else nobody knows it. Where a whole column holds whole numbers, they
are completed units, and the middle of the unit is the age (as with DICOM's `PatientAge`).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from fedage.client.cohort.ages import DAYS_PER_YEAR, OLDEST_YEARS, Age, AgeSource
from fedage.client.cohort.reasons import Reason
from fedage.common.errors import FedAgeError

Row = Mapping[str, str]

_MISSING = frozenset(("", "n/a", "na", "nan", "none", "null", "unknown"))
_PER_YEAR = {"year": 1.0, "month": 12.0, "week": DAYS_PER_YEAR / 7, "day": DAYS_PER_YEAR}
_UNITS = {
    **dict.fromkeys(("year", "years", "yr", "yrs", "y", "a", ""), "year"),
    **dict.fromkeys(("month", "months", "mo"), "month"),
    **dict.fromkeys(("week", "weeks", "wk"), "week"),
    **dict.fromkeys(("day", "days", "d"), "day"),
}
_SOURCE = {
    "year": AgeSource.AGE_YEARS,
    "month": AgeSource.AGE_MONTHS,
    "week": AgeSource.AGE_WEEKS,
    "day": AgeSource.AGE_DAYS,
}
_NUMBER = re.compile(r"(?P<least>>=?)?\s*(?P<number>\d{1,5}(\.\d+)?)\s*(?P<cap>\+)?")
_SEX = {"m": "M", "male": "M", "man": "M", "boy": "M", "f": "F", "female": "F", "woman": "F", "girl": "F"}
_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True)
class AgeColumn:
    """How the ages of one table are to be read.

    Parameters
    ----------
    unit
        `year`, `month`, `week` or `day`.
    whole
        Whether all of them are whole numbers, that is, completed units.
    """

    unit: str
    whole: bool

    @classmethod
    def of(cls, texts: Sequence[str], *, unit: str) -> AgeColumn:
        """The reading that fits all texts of a column."""
        return cls(unit, whole=not any("." in text and not text.rstrip("0").endswith(".") for text in texts))

    def age(self, text: str) -> Age | Reason:
        """One cell: a number, or `89+` and `>89`, which only say "at least"."""
        found = _NUMBER.fullmatch(text.strip())
        if found is None:
            return Reason.NO_AGE
        capped = bool(found["cap"] or found["least"])
        number = float(found["number"]) + (0.5 if self.whole and not capped else 0.0)
        years = number / _PER_YEAR[self.unit]
        if not 0 <= years <= OLDEST_YEARS:
            return Reason.IMPLAUSIBLE_AGE
        return Age(years=years, source=_SOURCE[self.unit] if self.whole else AgeSource.AGE_MONTHS, capped=capped)


def is_missing(text: str) -> bool:
    """Whether a cell says nothing."""
    return text.strip().casefold() in _MISSING


def read_tsv(path: Path, *, key: str) -> dict[str, Row]:
    """The first row of each value of the column `key`, its cells by column names in lower case.

    Raises
    ------
    FedAgeError
        If it cannot be read, or has no such column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream, delimiter="\t"))
    except OSError as error:
        raise FedAgeError(f"{path.name} cannot be read ({error.strerror}); look at its permissions") from None
    except (UnicodeDecodeError, csv.Error):
        raise FedAgeError(f"{path.name} is no table in UTF-8 with tabs; save it again") from None
    names = [name.strip().casefold() for name in lines[0]] if lines else []
    if key not in names:
        raise FedAgeError(
            f"{path.name} has no column {key!r}, it has {', '.join(names[:20]) or 'none'}; rename its first column"
        )
    rows: dict[str, Row] = {}
    for cells in lines[1:]:
        row = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        if not is_missing(row.get(key, "")):
            rows.setdefault(row[key], row)
    return rows


def read_json(path: Path) -> Mapping[str, Any]:
    """An object in JSON; empty if there is none, or none that can be read."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            return {}
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def age_unit(about: Mapping[str, Any], *, file: str, column: str = "age") -> str:
    """The unit of ages that a table's JSON tells; years if it tells none.

    Raises
    ------
    FedAgeError
        If it tells another than years, months, weeks and days.
    """
    described = about.get(column)
    told = described.get("Units", "") if isinstance(described, Mapping) else ""
    unit = _UNITS.get(str(told).strip().casefold())
    if unit is None:
        raise FedAgeError(
            f"{file} says that {column} is in {str(told)[:30]!r}; allowed are years, months, weeks and days; correct it"
        )
    return unit


def sex_codes(about: Mapping[str, Any], *, column: str = "sex") -> dict[str, str]:
    """What a table's own codes mean, from the levels that its JSON describes; `M` or `F` by code in lower case."""
    described = about.get(column)
    levels = described.get("Levels") if isinstance(described, Mapping) else None
    codes = dict(_SEX)
    for code, meaning in levels.items() if isinstance(levels, Mapping) else ():
        text = meaning.get("Description", "") if isinstance(meaning, Mapping) else meaning
        words = re.findall(r"[a-z]+", str(text).casefold())
        sexes = {_SEX[word] for word in words if word in _SEX}
        if len(sexes) == 1:
            codes[str(code).casefold()] = sexes.pop()
    return codes


def acquisition_day(text: str) -> date | None:
    """The day of an `acq_time`, which may be shifted into another century."""
    try:
        return date.fromisoformat(text.strip()[:10])
    except ValueError:
        return None
