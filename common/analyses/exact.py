"""What an exact phase of an estimator needs of its analysis, beyond what every analysis has.

Its sums become a model, so they keep the influence rule like any sum of products (`Reducible`), and a site that is sent
the total of all sites solves it itself, after making sure that patients could have it (`check_total`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from fedage.common.analyses.agreement import Reducible
from fedage.common.analyses.base import Analysis, Iterate
from fedage.common.analyses.columns import MAX_PATIENTS
from fedage.common.statistics.statistic import FloatArray, Layout, Statistic

MAX_SITES = 10_000
"""Most sites of a campaign, for what counts once a site and not once a patient."""


@dataclass(frozen=True, kw_only=True)
class SumsNoise:
    """Noise of an exact phase with privacy for each patient: σ, and the L2 norm that a patient's row is cut to."""

    noise_multiplier: float
    clip_norm: float


class NoSumOfPatients(ValueError):
    """A total that no patients have; the message says why."""


@runtime_checkable
class ExactAnalysis(Reducible, Protocol):
    """An analysis whose solution becomes arrays of a model."""

    def check_total(self, vector: FloatArray, iterate: Iterate) -> Statistic:
        """The total over all sites as a statistic. Raises `NoSumOfPatients` unless patients could have it."""


@runtime_checkable
class NoisedAnalysis(Analysis, Protocol):
    """An exact phase's analysis of sums that one patient moves by at most 1, in L2 norm, whatever the patient.

    So the site's noise of them is a Gaussian mechanism, and no rule needs to look at the patients behind them.
    """

    @property
    def noised_block(self) -> str:
        """The block of the statistic that gets noise; the others do not depend on any patient."""

    @property
    def noise_multiplier(self) -> float:
        """The noise's standard deviation."""

    def check_total(self, vector: FloatArray, iterate: Iterate) -> Statistic:
        """As of `ExactAnalysis`."""


def within_bounds(layout: Layout, vector: FloatArray) -> Statistic:
    """A total as a statistic, if it is within the bounds that the layout has for a site, for all sites together.

    Raises
    ------
    NoSumOfPatients
        If it is of the wrong size, not finite, out of bounds, or has parts of patients.
    """
    if vector.shape != (layout.size,) or not np.isfinite(vector).all():
        raise NoSumOfPatients("the total is of the wrong size, or not finite")
    lower, upper = (np.where(np.abs(end) < MAX_PATIENTS, end * MAX_SITES, end) for end in layout.bounds())
    if np.any(vector < lower) or np.any(vector > upper):
        raise NoSumOfPatients("the total is outside the bounds that the campaign file implies")
    return Statistic(layout=layout, vector=vector, smallest=None)
