"""Whose predicted ages are evaluated: the same patients in every analysis, as close sums could be subtracted."""

from __future__ import annotations

import numpy as np

from fedage.common.analyses.columns import MAX_GAP_YEARS, in_subset, usable
from fedage.common.statistics.cohort import Cohort

AGES = ("age_years", "predicted_years")


def judged(
    cohort: Cohort, *, subset: str, healthy_only: bool, prediction: str = "predicted_years"
) -> tuple[Cohort, int]:
    """The patients of `subset` with an age and a plausible prediction, and how many of it had to be left out."""
    kept, left_out = usable(in_subset(cohort, subset, healthy_only=healthy_only), ("age_years", prediction))
    plausible = np.abs(kept[prediction] - kept["age_years"]) <= MAX_GAP_YEARS
    return kept.where(plausible), left_out + int(np.count_nonzero(~plausible))


def told_count(count: int, *, of: int, minimum_count: int) -> tuple[int, int]:
    """Bounds of how many of these patients something holds for; equal unless they or the others are few or none.

    None is told like few, as bounds for few alone would tell that there is one.
    """
    least = minimum_count
    low = high = count
    if least > 1 and count < least:
        low, high = 0, min(least, of)
    if least > 1 and of - count < least:
        low, high = (of - least if of >= 2 * least and count >= least else 0), of
    return low, high
