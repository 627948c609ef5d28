"""What an exact phase of an estimator needs of its analysis, beyond what every analysis has.

Its sums become a model, so they keep the influence rule like any sum of products (`Reducible`), and a site that is sent
the total of all sites solves it itself, after making sure that patients could have it (`check_total`).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from fedage.common.analyses.agreement import Reducible
from fedage.common.analyses.base import Iterate
from fedage.common.analyses.columns import MAX_PATIENTS
from fedage.common.statistics.statistic import FloatArray, Layout, Statistic

MAX_SITES = 10_000
"""Most sites of a campaign, for what counts once a site and not once a patient."""


class NoSumOfPatients(ValueError):
    """A total that no patients have; the message says why."""


@runtime_checkable
class ExactAnalysis(Reducible, Protocol):
    """An analysis whose solution becomes arrays of a model."""

    def check_total(self, vector: FloatArray, iterate: Iterate) -> Statistic:
        """The total over all sites as a statistic. Raises `NoSumOfPatients` unless patients could have it."""


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
