"""Whether sums over all sites can be sums over patients: a model is made of them, and they come from whoever asks.

Without these checks a total is any model whatsoever. With them the ridge on standardised features has ‖β‖ ≤
SD(t) √n / (2√λ), because Σ(t − t̄)² ≥ rᵀ(R + λI)⁻¹r bounds the right-hand side by R itself.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np

from fedage.common.analyses.columns import MAX_PATIENTS
from fedage.common.analyses.exact import NoSumOfPatients, within_bounds
from fedage.common.analyses.preparation import _ridge
from fedage.common.analyses.preparation import table_sums as _table_sums
from fedage.common.analyses.preparation.age_scale import AgeScale
from fedage.common.statistics.statistic import FloatArray, Layout, Statistic

_TOLERANCE = 1e-6
"""How far below 0 the least eigenvalue of a correlation matrix may lie by rounding, and a mean outside its bounds."""


def check_total(layout: Layout, vector: FloatArray, *, features: int, products: bool, scale: AgeScale) -> Statistic:
    """The total as a statistic, after making sure that patients could have it.

    Parameters
    ----------
    layout
        Of one site's statistic (`_table_sums.layout`).
    vector
        (v,), summed over the sites.
    features, products
        As in `_table_sums.moments`.
    scale
        Of age.

    Raises
    ------
    NoSumOfPatients
        If it is of the wrong size, not finite, out of the layout's bounds, has parts of patients, or second moments
        that no patients have.
    """
    total = within_bounds(layout, vector)
    if np.any(total["n"] != np.rint(total["n"])) or total["n"].sum() > MAX_PATIENTS:
        raise NoSumOfPatients("the total's patients are no whole number, or too many")
    _check_moments(reduce(add, _table_sums.moments(total, features, products=products)), scale)
    return total


def _check_moments(sums: _table_sums.Moments, scale: AgeScale) -> None:
    if sums.n < 1:
        raise NoSumOfPatients("the total is of no patient")
    least, greatest = scale.bounds
    mean = sums.t / sums.n
    variance = sums.tt / sums.n - mean**2
    slack = _TOLERANCE * max(1.0, abs(least), abs(greatest))
    if not least - slack <= mean <= greatest + slack:
        raise NoSumOfPatients("the mean age of the total is none that patients have")
    # Of values in an interval with this mean the variance is at most this (Bhatia & Davis 2000).
    most = max(0.0, (greatest - mean) * (mean - least))
    if not -slack <= variance <= most + slack * (greatest - least):
        raise NoSumOfPatients("the variance of age in the total is none that patients have")
    standard = _ridge.standard_of(sums)
    square = (np.diagonal(sums.uu) if sums.uu.ndim == 2 else sums.uu) / sums.n
    if np.any(square - standard.mean**2 < -_TOLERANCE * np.maximum(square, 1.0)):
        raise NoSumOfPatients("a variance of the total is negative")
    varies = standard.varies
    sds = np.append(standard.sd[varies], np.sqrt(max(variance, 0.0)))
    if sums.uu.ndim == 1 or not varies.any():
        return
    cross = (sums.ut[varies] / sums.n - standard.mean[varies] * mean)[:, None]
    inner = (sums.uu / sums.n - np.outer(standard.mean, standard.mean))[np.ix_(varies, varies)]
    joint = np.block([[inner, cross], [cross.T, np.array([[max(variance, 0.0)]])]])
    unit = np.divide(1.0, sds, out=np.zeros_like(sds), where=sds > 0)
    correlations = joint * np.outer(unit, unit)
    # Features of little variance around a large mean keep few digits of it.
    digits = np.append(square[varies] / standard.sd[varies] ** 2, 1.0).max() * np.finfo(np.float64).eps
    if np.linalg.eigvalsh(correlations)[0] < -(_TOLERANCE + 100 * len(sds) * digits):
        raise NoSumOfPatients("the second moments of the total are none that patients have")
