"""The age-bias line of a campaign with privacy for each patient, from sums with noise (`noised_validation`).

Notation as there: u age from -1 to 1 over the range of ages of half width h, x error in largest errors E. A patient's
row is (1, u, u², x, ux) / √5. Least squares of x on u gives β, and ŷ = aΩ + b has the slope a = 1 + β E / h.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedage.common.analyses.base import Done, Iterate, NotComputable, Outcome
from fedage.common.analyses.columns import in_subset, usable
from fedage.common.analyses.noised_validation import OUTWEIGHED, NoisedValidation
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray, Statistic

SMALLEST_SLOPE, LARGEST_SLOPE = 0.05, 5.0
"""What a site corrects by."""


@dataclass(frozen=True)
class NoisedLine(NoisedValidation):
    """The line on the healthy patients of one part, with noise.

    Result: `n` (with noise, rounded), `slope`, `intercept_years`, `mean_age_years`, `slope_noise_sd`.
    """

    weights: ClassVar[tuple[float, ...]] = (1 / math.sqrt(5),) * 5

    def _rows(self, cohort: Cohort) -> FloatArray:
        kept, _ = usable(in_subset(cohort, self.subset, healthy_only=True), ("age_years", "predicted_years"))
        u = self.bounds.ages(kept["age_years"])
        x = self.bounds.errors(kept["predicted_years"] - kept["age_years"])
        return np.stack([np.ones(kept.n), u, u * u, x, u * x], axis=1)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        found = self._means(total)
        if found is None:
            return NotComputable(OUTWEIGHED)
        n, (u, u_squared, x, ux), noise = found
        variance, covariance = u_squared - u * u, ux - u * x
        of_mean = noise / (self.weights[0] * n)  # SD of the noise of a mean
        if not variance > max(2 * of_mean, 1e-9):
            return NotComputable("the noise outweighs the spread of the ages, or all are of one age: there is no line")
        beta = covariance / variance
        in_years = self.bounds.error_years / self.bounds.half_years
        slope = 1.0 + beta * in_years
        if not SMALLEST_SLOPE < slope < LARGEST_SLOPE:
            return NotComputable(
                f"the noised bias line has slope {slope:.3f}, which must be above {SMALLEST_SLOPE} and below "
                f"{LARGEST_SLOPE:g}: the noise is too large for so few patients, or predictions hardly rise with age"
            )
        age = (self.bounds.youngest_years + self.bounds.oldest_years) / 2 + self.bounds.half_years * u
        return Done(
            {
                "n": round(n),
                "slope": slope,
                "intercept_years": age + self.bounds.error_years * x - slope * age,
                "mean_age_years": age,
                # Of ux, and of u² times β; those of the other means count less, as u and x are small on average.
                "slope_noise_sd": in_years * of_mean * math.hypot(1.0, beta) / variance,
            }
        )
