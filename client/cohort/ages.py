"""Age at an exam: from birth and exam dates where `PatientAge` does not contradict them, from `PatientAge` otherwise.

`PatientAge` is completed units: "004Y" is anything from 4 to under 5 years, so its plain value is half a unit too low
on average. The middle of the unit is used (our own choice; no source says what to add), and the source is kept with the
age, so that an estimator on a scale of months can refuse whole years.

Dates are not used where the file says that they were modified or removed, where its exam dates contradict each other,
where the exam lies in the future, and where one of them is a placeholder: before 1865, one that programs write for
none (1900-01-01, 1899-12-30, 1911-11-11 and others), or a birth date that is the exam's own.
Then `PatientAge` counts, unless it may have been computed from those same dates.

Some dates are as often placeholders and are some patients' birthdays too (1970-01-01, 2000-01-01 and others). A birth
date that is one of them counts only where `PatientAge` agrees with it; else `PatientAge` counts, and without one the
file is set aside: one patient in tens of thousands was born on each of these days, so that next to nobody is lost. A
scanner that computed `PatientAge` from such a placeholder is not noticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

from fedage.client.cohort.reasons import Reason

DAYS_PER_YEAR = 365.25
OLDEST_YEARS = 120.0
EXAM_SPREAD = timedelta(days=31)
"""How far study, acquisition and series dates of one image may lie apart before they contradict each other."""
_EARLIEST_BIRTH_YEAR = 1865
"""The year of birth of the oldest (120 years) in 1985, when the first digital images were exchanged."""
_PLACEHOLDERS = frozenset(
    [date(1899, 12, 30), date(1899, 12, 31), date(1900, 1, 1), date(1901, 1, 1), date(1911, 11, 11)]
)
"""Day 0 of spreadsheets and data bases, and dates that people type. Patients born then need `PatientAge`."""
_MAYBE_PLACEHOLDERS = frozenset(
    [
        *(date(1900, 1, 2), date(1901, 1, 2), date(1904, 1, 1), date(1904, 1, 2), date(1910, 10, 10)),
        *(date(1912, 12, 12), date(1969, 12, 31), date(1970, 1, 1), date(1980, 1, 1), date(1999, 9, 9)),
        *(date(1999, 12, 31), date(2000, 1, 1), date(2001, 1, 1)),
    ]
)
"""Days 0 and 1 of other spreadsheets, systems and file formats, in any time zone, and dates that people type; they are
also real birthdays."""
_SHORT_MONTHS = 0.0145
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
_OF_INFANTS = frozenset([AgeSource.AGE_DAYS, AgeSource.AGE_WEEKS, AgeSource.AGE_MONTHS])
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
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError:
        return None


def exam_date(*, study: date | None, acquisition: date | None, series: date | None) -> tuple[date | None, bool]:
    """The exam's date, the study's first, and whether the dates that there are agree."""
    days = [day for day in (study, acquisition, series) if day is not None]
    if not days:
        return None, True
    return days[0], max(days) - min(days) <= EXAM_SPREAD


def age_at_exam(
    *, birth: date | None, exam: date | None, age_string: str, trusted: bool = True, today: date | None = None
) -> Age | Reason:
    """The age at an exam, or the reason why it is not known.

    Parameters
    ----------
    birth, exam
        As the file has them.
    age_string
        `PatientAge`.
    trusted
        False where the file says that its dates were modified, or its exam dates contradict each other.
    today
        The day of reading, after which no exam can have been; by default this machine's.

    Returns
    -------
    Age or Reason
        `NO_AGE`, `UNREADABLE_AGE`, `IMPLAUSIBLE_AGE`, `UNRELIABLE_DATES`, `ZERO_AGE` (000Y and the like count only
        where dates confirm them: programs write them where they know none), or `CONTRADICTORY_AGE` where dates and
        `PatientAge` are further apart than one unit of the latter: nobody could say which of them is wrong.
    """
    stated_age = _stated(age_string)
    age_alone = Reason.ZERO_AGE if isinstance(stated_age, Age) and _is_zero(age_string) else stated_age
    if birth is None or exam is None:
        return age_alone
    years = (exam - birth).days / DAYS_PER_YEAR
    age_by_dates = Age(years=years, source=AgeSource.DATES)
    if not trusted:
        return age_alone if isinstance(stated_age, Age) else Reason.UNRELIABLE_DATES
    if birth == exam and isinstance(stated_age, Age) and stated_age.source in _OF_INFANTS and _agree(years, stated_age):
        return age_by_dates  # a newborn
    is_placeholder = _is_placeholder(birth) or _is_placeholder(exam) or birth == exam
    if is_placeholder or exam > (today or date.today()) + timedelta(days=1):
        # A scanner computes PatientAge from the dates it was given: where both agree, neither is known.
        return age_alone if isinstance(stated_age, Age) and not _agree(years, stated_age) else Reason.UNRELIABLE_DATES
    if not 0 <= years <= OLDEST_YEARS:
        return Reason.IMPLAUSIBLE_AGE
    if birth in _MAYBE_PLACEHOLDERS and not isinstance(stated_age, Age):
        return Reason.UNRELIABLE_DATES
    if isinstance(stated_age, Age) and not _agree(years, stated_age):
        return age_alone if birth in _MAYBE_PLACEHOLDERS else Reason.CONTRADICTORY_AGE
    return age_by_dates


def is_real_day(day: date | None, *, today: date | None = None) -> bool:
    """Whether an exam can have been on a day: it is neither a date that programs write for none nor in the future."""
    if day is None or day in _MAYBE_PLACEHOLDERS or _is_placeholder(day):
        return False
    return day <= (today or date.today()) + timedelta(days=1)


def age_limits_years(age: Age) -> tuple[float, float]:
    """The interval in which the true age lies."""
    if age.source is AgeSource.DATES:
        return age.years, age.years
    if age.capped:
        return age.years, OLDEST_YEARS
    half = 0.5 * age.source.resolution_years
    return age.years - half, age.years + half


def _stated(age_string: str) -> Age | Reason:
    """The age that `PatientAge` states."""
    text = age_string.strip()
    match = _AGE.fullmatch(text)
    if match is None:
        return Reason.UNREADABLE_AGE if text else Reason.NO_AGE
    source, units = _SOURCES[match[2].upper()], int(match[1])
    capped = source is AgeSource.AGE_YEARS and units in CAPS_YEARS
    years = (units + (0.0 if capped else 0.5)) * source.resolution_years
    return Age(years=years, source=source, capped=capped) if years <= OLDEST_YEARS else Reason.IMPLAUSIBLE_AGE


def _is_zero(age_string: str) -> bool:
    match = _AGE.fullmatch(age_string.strip())
    return match is not None and int(match[1]) == 0


def _agree(years: float, stated: Age) -> bool:
    """Whether an age lies in the interval that `PatientAge` states, or within a unit of it.

    Months may have been counted as 30 days, which is 1.4 % less than a twelfth of a year.
    """
    unit = stated.source.resolution_years
    lowest = stated.years if stated.capped else stated.years - 0.5 * unit
    months_of_30_days = _SHORT_MONTHS * lowest if stated.source is AgeSource.AGE_MONTHS else 0.0
    highest = OLDEST_YEARS if stated.capped else lowest + unit
    return lowest - unit - months_of_30_days <= years < highest + unit


def _is_placeholder(birth: date) -> bool:
    """Whether a date is a placeholder: nobody with a digital image was born then."""
    return birth.year < _EARLIEST_BIRTH_YEAR or birth in _PLACEHOLDERS
