"""Age at an exam: from birth and exam dates first, from `PatientAge` otherwise.

`PatientAge` is completed units: "004Y" is anything from 4 to under 5 years, so its plain value is half a unit too low
on average. The middle of the unit is used (our own choice; no source says what to add), and the source is kept with the
age, so that an estimator on a scale of months can refuse whole years.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from fedage.client.cohort.reasons import Reason

DAYS_PER_YEAR = 365.25
OLDEST_YEARS = 120.0
CAPS_YEARS = (89, 90)
"""De-identification replaces ages above 89 by 089Y or 090Y: those say "at least"."""


class AgeSource(StrEnum):
    """How an age was obtained; the coarser, the less exact."""

    DATES = "dates"
    AGE_DAYS = "age-days"
    AGE_WEEKS = "age-weeks"
    AGE_MONTHS = "age-months"
    AGE_YEARS = "age-years"

    @property
    def resolution_years(self) -> float:
        """Width of the interval in which the true age lies."""
        return _UNIT_YEARS[self]


_UNIT_YEARS = {
    AgeSource.DATES: 1 / DAYS_PER_YEAR,
    AgeSource.AGE_DAYS: 1 / DAYS_PER_YEAR,
    AgeSource.AGE_WEEKS: 7 / DAYS_PER_YEAR,
    AgeSource.AGE_MONTHS: 1 / 12,
    AgeSource.AGE_YEARS: 1.0,
}
_SOURCES = {
    "D": AgeSource.AGE_DAYS,
    "W": AgeSource.AGE_WEEKS,
    "M": AgeSource.AGE_MONTHS,
    "Y": AgeSource.AGE_YEARS,
}
_AGE = re.compile(r"(\d{1,4})\s*([DWMY])", re.IGNORECASE | re.ASCII)
_DATE = re.compile(r"(\d{4})([.-]?)(\d{2})\2(\d{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Age:
    """Age at exam in years, how it was obtained, and whether it only says "at least"."""

    years: float
    source: AgeSource
    capped: bool = False


def parse_date(text: str) -> date | None:
    """A DICOM date, `YYYYMMDD` or the older `YYYY.MM.DD`; None unless it is a whole and real one."""
    found = _DATE.fullmatch(text.strip())
    if found is None:
        return None
    try:
        return date(int(found[1]), int(found[3]), int(found[4]))
    except ValueError:
        return None


def first_date(texts: Iterable[str]) -> date | None:
    """The first real date among texts."""
    return next((day for text in texts if (day := parse_date(text)) is not None), None)


def age_at_exam(*, birth: date | None, exam: date | None, age_string: str) -> Age | Reason:
    """The age, or `NO_AGE` or `IMPLAUSIBLE_AGE`.

    Dates that contradict each other are not mended by `PatientAge`: nobody could say which of them is wrong.
    """
    if birth is not None and exam is not None:
        age = Age(years=(exam - birth).days / DAYS_PER_YEAR, source=AgeSource.DATES)
    else:
        found = _AGE.fullmatch(age_string.strip())
        if found is None:
            return Reason.NO_AGE
        source, units = _SOURCES[found[2].upper()], int(found[1])
        capped = source is AgeSource.AGE_YEARS and units in CAPS_YEARS
        age = Age(years=(units + (0.0 if capped else 0.5)) * source.resolution_years, source=source, capped=capped)
    return age if 0 <= age.years <= OLDEST_YEARS else Reason.IMPLAUSIBLE_AGE
