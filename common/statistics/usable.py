"""Whether a vector can be a site's sums for a layout: the coordinator asks of a bare one, a site of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import MAX_PATIENTS, Layout

_ROUNDING = 1e-9
"""Relative excess of a bound that is put down to adding up in another order."""


def why_unusable(layout: Layout, vector: NDArray[Any], *, patients: int | None = None) -> tuple[str, str] | None:
    """Why a vector is not the sums of patients, in words and by its rule; None if it may be.

    Attack: a site whose sums are of patients that nobody has decides a pooled result.
    Rule: a sum lies within what the campaign file implies for as many patients as there are, a count is a whole number
    of them. Residual risk: patients who are made up within these bounds cannot be told from real ones.

    Parameters
    ----------
    patients
        How many there are at most; None where it is not known.
    """
    if vector.dtype != np.float64:
        return f"a contribution of type {vector.dtype}; needed is float64", "sum-type"
    if vector.shape != (layout.size,):
        return "a contribution of the wrong size", "sum-size"
    if not np.isfinite(vector).all():
        return "a contribution with values that are not finite", "sum-not-finite"
    lower, upper = layout.bounds()
    if np.any(vector < lower) or np.any(vector > upper):
        return "a contribution outside the bounds that the campaign file implies", "sum-bounds"
    counts = vector[layout.whole()]
    if np.any(counts != np.rint(counts)):
        return "a count that is not a whole number", "sum-count"
    if patients is not None:
        share = patients / MAX_PATIENTS * (1 + _ROUNDING)
        least, most = (np.where(np.abs(end) >= MAX_PATIENTS, end * share, end) for end in (lower, upper))
        if np.any(vector < least) or np.any(vector > most):
            return f"a contribution of more than the {patients} patients that the site described", "sum-patients"
    return None
