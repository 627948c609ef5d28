"""Which patients an analysis takes, and how large a value of a column may be.

The bounds of a statistic have to be known before any patient is looked at, so each column has one. A value beyond it is
treated like a missing one: the patient is left out and counted.
"""

from __future__ import annotations

import numpy as np

from fedage.common.cohort import Cohort

MAX_PATIENTS = 1e7
"""Most patients of one site, for bounds."""
MAX_AGE_YEARS = 130.0
MAX_GAP_YEARS = 130.0
MAX_PREDICTED_YEARS = MAX_AGE_YEARS + MAX_GAP_YEARS
MAX_OUTCOME = 1e6
"""Largest |value| of a column that only the campaign file names."""


def bound_of(column: str) -> float:
    """Largest |value| of a column, in its own unit."""
    if column.endswith("gap_years"):
        return MAX_GAP_YEARS
    if column in ("predicted_years", "corrected_years"):
        return MAX_PREDICTED_YEARS
    if column == "age_years":
        return MAX_AGE_YEARS
    if column == "healthy" or column.startswith("is_"):
        return 1.0
    return MAX_OUTCOME


def in_subset(cohort: Cohort, subset: str | None, *, healthy_only: bool = False) -> Cohort:
    """The patients whose column `subset` is 1 (all, if None), and who are healthy if only those are wanted."""
    mask = np.ones(cohort.n, dtype=bool)
    if subset is not None:
        mask &= cohort[subset] == 1
    if healthy_only:
        mask &= cohort["healthy"] == 1
    return cohort.where(mask)


def usable(cohort: Cohort, columns: tuple[str, ...]) -> tuple[Cohort, int]:
    """The patients with a finite value within its bound in every column, and how many had to be left out."""
    mask = np.ones(cohort.n, dtype=bool)
    for column in columns:
        values = cohort[column]
        mask &= np.isfinite(values) & (np.abs(values) <= bound_of(column))
    return cohort.where(mask), int(np.count_nonzero(~mask))
