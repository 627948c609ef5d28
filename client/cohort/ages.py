"""Age at exam: from birth and study date first, from `PatientAge` otherwise.

`PatientAge` in years is floored (a year wide, half a year low on average) and often capped at 89 or 90; both are kept
with the age, so that an estimator may refuse them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Literal

DAYS_PER_YEAR = 365.25
AGE_MAX_YEARS = 120.0
_AGE = re.compile(r"^(\d{1,3})([DWMY])$")
_PER_YEAR = {"D": DAYS_PER_YEAR, "W": DAYS_PER_YEAR / 7, "M": 12.0, "Y": 1.0}

AgeSource = Literal["dates", "days", "weeks", "months", "years"]
_SOURCES: dict[str, AgeSource] = {"D": "days", "W": "weeks", "M": "months", "Y": "years"}


@dataclass(frozen=True)
class Age:
    """An age at exam with where it comes from; `capped` if it may stand for anything from 89 years on."""

    years: float
    source: AgeSource
    capped: bool = False

    @property
    def plausible(self) -> bool:
        """Whether it can be an age of a living person."""
        return 0 <= self.years <= AGE_MAX_YEARS


def age_at_exam(*, birth: str, exam_dates: tuple[str, ...], patient_age: str) -> Age | None:
    """The age from DICOM texts, or None if there is nothing to take it from.

    Parameters
    ----------
    birth
        `PatientBirthDate`, YYYYMMDD.
    exam_dates
        Dates of the exam in order of preference.
    patient_age
        `PatientAge`, e.g. `004Y`.
    """
    born = _date(birth)
    taken = next((day for text in exam_dates if (day := _date(text)) is not None), None)
    if born is not None and taken is not None:
        return Age((taken - born).days / DAYS_PER_YEAR, "dates")
    found = _AGE.match(patient_age.strip().upper())
    if found is None:
        return None
    number, unit = int(found[1]), found[2]
    return Age(number / _PER_YEAR[unit], _SOURCES[unit], capped=unit == "Y" and number in (89, 90))


def _date(text: str) -> date | None:
    digits = text.strip().replace(".", "")
    if len(digits) != 8 or not digits.isdigit():
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
