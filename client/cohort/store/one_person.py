"""Whether the images of one PatientID can be one person's.

Whoever makes files anonymous may write one PatientID into all of them (ANONYMOUS, 0), and two clinics may give the same
one to different people. All of them would count as one patient, of whom one exam is in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedage.client.cohort.ages import DAYS_PER_YEAR

SEVERAL_PEOPLE = "several-people"
"""Left out: images under one PatientID that cannot be one person's, by birth dates, ages or a placeholder."""
SEVERAL_SEXES = "several-sexes"
"""Left out: images under one PatientID that give both sexes."""
SHARED_STUDY = "shared-study"
"""Left out: somebody with a study that stands under another PatientID too."""
BIRTHS_APART_YEARS = 2.0
"""Births further apart are no slip of the pen, and no dates that were shifted exam by exam."""
AGES_APART_YEARS = 40.0
"""Without days, ages that may lie so far apart: digital images are no older."""
_SAME_EXAM_YEARS = 0.2
"""Ages that one exam's images may lie apart: an exam may go on for a month, and months may have 30 days."""
_SAME_BIRTH_DAYS = 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """What an image says of its patient.

    Parameters
    ----------
    exam, study
        Keyed hashes; the study's is the same under any PatientID, and empty where the file has none.
    age_from_years, age_until_years
        The interval in which the age lies; None where an earlier release indexed the image.
    real_day
        The exam's day, shifted by as much for all exams of a PatientID; None if unknown, or perhaps changed.
    """

    exam: str
    study: str = ""
    sex: str | None = None
    age_from_years: float | None = None
    age_until_years: float | None = None
    real_day: int | None = None
    is_placeholder_id: bool = False


def why_not_one_person(statements: Iterable[Statement]) -> str | None:
    """Why images under one PatientID are not one person's; None if they can be."""
    some = list(statements)
    if not _can_be_born_together(some) or not _are_exams_consistent(some):
        return SEVERAL_PEOPLE
    if any(one.is_placeholder_id for one in some) and not _is_one_exam_or_birth(some):
        return SEVERAL_PEOPLE
    return SEVERAL_SEXES if {one.sex for one in some} >= {"M", "F"} else None


def not_one_person(by_patient: Mapping[str, Iterable[Statement]]) -> dict[str, str]:
    """Why, by patient, of all who cannot be one person or share a study with another PatientID."""
    patients_of: dict[str, set[str]] = defaultdict(set)
    found: dict[str, str] = {}
    for patient, statements in by_patient.items():
        some = list(statements)
        for one in some:
            if one.study:
                patients_of[one.study].add(patient)
        if why := why_not_one_person(some):
            found[patient] = why
    for patients in patients_of.values():
        if len(patients) > 1:
            found |= dict.fromkeys(patients - found.keys(), SHARED_STUDY)
    return found


def _can_be_born_together(statements: Iterable[Statement]) -> bool:
    """Whether births, or ages where no day is known, lie close together."""
    births, ages = [], []
    for one in statements:
        if one.age_from_years is None or one.age_until_years is None:
            continue
        ages.append((one.age_from_years, one.age_until_years))
        if one.real_day is not None:
            year = one.real_day / DAYS_PER_YEAR
            births.append((year - one.age_until_years, year - one.age_from_years))
    return _gap(births) <= BIRTHS_APART_YEARS and _gap(ages) <= AGES_APART_YEARS


def _are_exams_consistent(statements: Iterable[Statement]) -> bool:
    ages: dict[str, set[tuple[float, float]]] = defaultdict(set)
    for one in statements:
        if one.age_from_years is not None and one.age_until_years is not None:
            ages[one.exam].add((one.age_from_years, one.age_until_years))
    return all(_gap(some) <= _SAME_EXAM_YEARS for some in ages.values())


def _is_one_exam_or_birth(statements: list[Statement]) -> bool:
    """Whether a placeholder stands for one person: there is one exam, or all birth dates are known and the same."""
    if len({one.exam for one in statements}) < 2:
        return True
    births = []
    for one in statements:
        if one.real_day is None or one.age_from_years is None or one.age_from_years != one.age_until_years:
            return False
        births.append(one.real_day - one.age_from_years * DAYS_PER_YEAR)
    return max(births) - min(births) <= _SAME_BIRTH_DAYS


def _gap(intervals: Iterable[tuple[float, float]]) -> float:
    """How far apart the two intervals are that lie furthest apart; at most 0 where all have a point in common."""
    some = list(intervals)
    if not some:
        return 0.0
    return max(low for low, _ in some) - min(high for _, high in some)
