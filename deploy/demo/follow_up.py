"""Follow-up of the phantoms' patients: survival times from a planted hazard ratio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray

HAZARD_RATIO_PER_YEAR = 1.20
"""Planted, per year of true gap, chronological age held fixed."""

LOG_HAZARD_RATIO_PER_YEAR_OF_AGE = 0.03
BASELINE_HAZARD_PER_YEAR = 0.09
"""At 60 years and no gap; the same at every hospital."""

STUDY_END_YEARS = 10.0
DROP_OUT_PER_YEAR = 0.0
"""Nobody is lost: the demo's hospitals follow up through a registry. A few lost patients between two table times would
be a small cell, and sites would have to merge the times around it."""


@dataclass(frozen=True)
class FollowUp:
    """Time under observation in years and whether it ended with the event, both (n,)."""

    time_years: FloatArray
    event: NDArray[np.bool_]


def simulate_follow_up(
    age_years: FloatArray,
    gap_years: FloatArray,
    *,
    rng: np.random.Generator,
    hazard_ratio_per_year: float = HAZARD_RATIO_PER_YEAR,
    baseline_hazard_per_year: float = BASELINE_HAZARD_PER_YEAR,
    drop_out_per_year: float = DROP_OUT_PER_YEAR,
    study_end_years: float = STUDY_END_YEARS,
) -> FollowUp:
    """Exponential event times, cut by the study's end and by exponential drop-out.

    The hazard is h₀ · exp(log(HR)·g + 0.03·(Ω − 60)), constant in time: proportional in the true gap g and in age Ω.

    Parameters
    ----------
    age_years, gap_years
        Chronological age Ω and true gap g at the exam, (n,).
    rng
        Draws two exponentials a patient.
    """
    log_hazard = np.log(hazard_ratio_per_year) * gap_years + LOG_HAZARD_RATIO_PER_YEAR_OF_AGE * (age_years - 60.0)
    to_event = rng.standard_exponential(len(age_years)) / (baseline_hazard_per_year * np.exp(log_hazard))
    to_drop_out = rng.standard_exponential(len(age_years))
    to_drop_out = to_drop_out / drop_out_per_year if drop_out_per_year > 0 else np.full(len(age_years), np.inf)
    watched = np.minimum(to_drop_out, study_end_years)
    return FollowUp(time_years=np.minimum(to_event, watched), event=to_event <= watched)
