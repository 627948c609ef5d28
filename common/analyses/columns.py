"""Which patients an analysis takes, and how large a value of a column may be.

The bounds of a statistic have to be known before any patient is looked at, so each column has one. A patient with a
missing value is left out and counted, and so is one with an impossible age, predicted age or gap. Nobody is left out
for the size of another column: a value beyond its bound refuses the analysis at that site and names the column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.cohort import Cohort, UnusableColumn, not_binary_text
from fedage.common.statistics.influence import differing
from fedage.common.statistics.statistic import MAX_PATIENTS as MAX_PATIENTS
from fedage.common.statistics.statistic import Cell, FloatArray

MAX_AGE_YEARS = 130.0
MAX_GAP_YEARS = 130.0
MAX_PREDICTED_YEARS = MAX_AGE_YEARS + MAX_GAP_YEARS
MAX_OUTCOME = 1e18
"""Largest |value| of a column that only the campaign file names: a bound on sums, far above any unit in use (a brain
volume in mm³ is 1.5e6)."""


_OF_THE_COHORT = ("healthy", "is_male", "is_train", "is_validation", "is_test")
"""Columns that FedAge makes itself, of 0 and 1."""


def bound_of(column: str) -> float:
    """Largest |value| of a column, in its own unit."""
    if column.endswith("gap_years"):
        return MAX_GAP_YEARS
    if column in ("predicted_years", "corrected_years"):
        return MAX_PREDICTED_YEARS
    if column == "age_years":
        return MAX_AGE_YEARS
    if column in _OF_THE_COHORT:
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


def is_usable(cohort: Cohort, columns: tuple[str, ...], *, subset: str | None = None) -> NDArray[np.bool_]:
    """Whom `in_subset` and `usable` leave, (n,)."""
    inside = np.ones(cohort.n, dtype=np.bool_) if subset is None else np.asarray(cohort[subset] == 1)
    return inside & within_bounds(cohort, columns)


def usable(cohort: Cohort, columns: tuple[str, ...]) -> tuple[Cohort, int]:
    """The patients with a known and possible value in every column, and how many had to be left out.

    Raises
    ------
    UnusableColumn
        If a column that only the campaign file names has a value beyond its bound.
    """
    for column in columns:
        values = cohort[column]
        if bound_of(column) == MAX_OUTCOME and np.any(np.abs(values[np.isfinite(values)]) > MAX_OUTCOME):
            raise UnusableColumn(
                column, f"has a value beyond ±{bound_of(column):g}; correct it, or give the column in a larger unit"
            )
    mask = within_bounds(cohort, columns)
    return cohort.where(mask), int(np.count_nonzero(~mask))


def within_bounds(cohort: Cohort, columns: tuple[str, ...]) -> NDArray[np.bool_]:
    """Who (n,) has a known and possible value in every column."""
    mask = np.ones(cohort.n, dtype=np.bool_)
    for column in columns:
        values = cohort[column]
        mask &= np.isfinite(values) & (np.abs(values) <= bound_of(column))
    return mask


@dataclass(frozen=True)
class TwoGroups:
    """A column that tells two groups by two of its values; patients with another value are in neither."""

    column: str
    equals: float
    reference: float

    def member(self, cohort: Cohort) -> FloatArray:
        """1 for the group, 0 for the reference group, (n,); NaN for the others."""
        codes = cohort[self.column]
        return np.where(codes == self.equals, 1.0, np.where(codes == self.reference, 0.0, np.nan))


def present(cohort: Cohort, columns: tuple[str | TwoGroups, ...]) -> FloatArray:
    """Those of the columns that the site has at all, (n, up to r); of the others it releases nothing."""
    columns_there = [np.empty((cohort.n, 0))]
    for each in columns:
        if (each.column if isinstance(each, TwoGroups) else each) in cohort.columns:
            columns_there.append((each.member(cohort) if isinstance(each, TwoGroups) else cohort[each])[:, None])
    return np.concatenate(columns_there, axis=1)


def require_binary(cohort: Cohort, column: str, *, meaning: str) -> None:
    """Refuse a column whose known values are other than 0 and 1.

    Parameters
    ----------
    meaning
        What 1 stands for, and 0, e.g. `1 (event) and 0 (censored)`.

    Raises
    ------
    UnusableColumn
        With the mapping that would mend it. Coded otherwise, e.g. 1 and 2, the column would be read as its opposite.
    """
    values = cohort[column]
    if not np.isin(values[np.isfinite(values)], (0.0, 1.0)).all():
        raise UnusableColumn(column, not_binary_text(column, meaning=meaning))


def cells_of_predictions(predicted: FloatArray) -> list[Cell]:
    """The patients (n,) whose prediction is not the most frequent one; no cell where all are equal.

    Attack: a model that predicts the same for all but one patient, such as the bound that predictions are cut to, makes
    of Σ ŷ and Σ Ωŷ that patient's age and prediction. Rule: those who differ are a cell of the sums.
    """
    count = differing(predicted)
    return [Cell(count, "patients with another prediction than the most frequent one")] if count else []
