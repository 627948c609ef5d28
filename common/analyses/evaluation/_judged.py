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
