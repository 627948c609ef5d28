"""The mean absolute error of a campaign with privacy for each patient, from sums with noise (`noised_validation`).

Notation: e predicted less chronological age, E the largest error that counts, x = e / E cut to -1 … 1, n patients, s
the SD of the noise of all sites together. A patient's row is (√.2, √.8 |x|), the weights with which the noise of the
quotient is least where the mean of |x| is a quarter. MAE = E · Σ|x| / n, and the SD that noise gives it is about
s/n · √(E² / .8 + MAE² / .2).
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np

from fedage.common.analyses.base import Done, Iterate, NotComputable, Outcome
from fedage.common.analyses.evaluation._judged import judged
from fedage.common.analyses.noised_validation import OUTWEIGHED, NoisedValidation
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray, Statistic


@dataclass(frozen=True)
class NoisedErrors(NoisedValidation):
    """MAE of predicted ages on one part of the patients, with noise.

    Result: `n` (with noise, rounded), `mae_years`, `noise_sd_years` (of `mae_years`), `largest_error_years` (E).
    """

    _: KW_ONLY
    healthy_only: bool = False

    weights: ClassVar[tuple[float, ...]] = (math.sqrt(0.2), math.sqrt(0.8))

    def _rows(self, cohort: Cohort) -> FloatArray:
        kept, _ = judged(cohort, subset=self.subset, healthy_only=self.healthy_only)
        x = self.bounds.errors(kept["predicted_years"] - kept["age_years"])
        return np.stack([np.ones(kept.n), np.abs(x)], axis=1)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        found = self._means(total)
        if found is None:
            return NotComputable(OUTWEIGHED)
        n, (absolute,), noise = found
        largest = self.bounds.error_years
        mae = largest * float(np.clip(absolute, 0.0, 1.0))
        of_n, of_errors = self.weights
        return Done(
            {
                "n": round(n),
                "mae_years": mae,
                "noise_sd_years": noise / n * math.hypot(largest / of_errors, mae / of_n),
                "largest_error_years": largest,
            }
        )
