"""Whether the exams of one PatientID can be one person's.

Whoever makes files anonymous may write one PatientID into all of them (ANONYMOUS, 0), and two clinics may give the same
one to different people. All of them would count as one patient, of whom one exam is in.
"""

from __future__ import annotations

from collections.abc import Iterable

from fedage.client.cohort.ages import DAYS_PER_YEAR, AgeSource

BIRTHS_APART_YEARS = 2.0
"""Births further apart are no slip of the pen, and no dates that were shifted exam by exam."""


def is_one_person(exams: Iterable[tuple[float, str, int | None]]) -> bool:
    """Whether exams tell of births that lie close together.

    Parameters
    ----------
    exams
        Age in years, how it was obtained, and the exam's day, shifted by as much for all exams of a PatientID. Only
        ages that follow from dates count: others are too coarse, or their days may have been changed.
    """
    births = [
        day - age_years * DAYS_PER_YEAR
        for age_years, source, day in exams
        if source == AgeSource.DATES and day is not None
    ]
    return len(births) < 2 or max(births) - min(births) <= BIRTHS_APART_YEARS * DAYS_PER_YEAR
