"""Ridge regression from sums, and its penalty by cross-validation from sums.

Minimise Σ(t − a − z·β)² + λ‖β‖², z the features standardised with mean and SD of the same sums (SD with n): with
R = ZᵀZ and r = Zᵀ(t − t̄), β = (R + λI)⁻¹ r (Hoerl & Kennard 1970). Nothing but n, Σu, Σuuᵀ, Σt, Σt² and Σu·t enters, so
it does not matter where a patient lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.preparation.table_sums import Moments
from fedage.common.statistics.statistic import FloatArray

PENALTIES = tuple(float(f"{10 ** (step / 8):.4g}") for step in range(41))
"""The grid of "auto": 1 to 10⁵ in eighths of a decade."""
_STANDARD_ERRORS = 0.25
"""How far above the least RMSE, in its standard errors, a stronger penalty is preferred: the curve is flat."""
_CONSTANT = 1e-12
"""Variance over mean square up to which a feature counts as constant."""


@dataclass(frozen=True)
class Standard:
    """Mean and SD (p,) of u, the mean of t, and which features vary at all; SD 0 where they do not."""

    mean: FloatArray
    sd: FloatArray
    varies: NDArray[np.bool_]
    t_mean: float
    t_sd: float


@dataclass(frozen=True)
class Fit:
    """β (p,) on standardised features, 0 for constant ones."""

    standard: Standard
    coefficients: FloatArray
    penalty: float


def standard_of(sums: Moments) -> Standard:
    """Mean and SD from sums, of products or of their diagonal."""
    mean = sums.u / sums.n
    square = (np.diagonal(sums.uu) if sums.uu.ndim == 2 else sums.uu) / sums.n
    variance = square - mean**2
    varies: NDArray[np.bool_] = variance > _CONSTANT * square
    t_mean = sums.t / sums.n
    return Standard(
        mean=mean,
        sd=np.sqrt(np.where(varies, variance, 0.0)),
        varies=varies,
        t_mean=t_mean,
        t_sd=float(np.sqrt(max(sums.tt / sums.n - t_mean**2, 0.0))),
    )


def correlations(sums: Moments) -> tuple[list[list[float]], list[float]]:
    """Correlations (p, p) of the features, and (p,) with t; 0 for constant ones."""
    standard = standard_of(sums)
    unit = np.divide(1.0, standard.sd, out=np.zeros_like(standard.sd), where=standard.varies)
    inner = (sums.uu / sums.n - np.outer(standard.mean, standard.mean)) * np.outer(unit, unit)
    with_t = (sums.ut / sums.n - standard.mean * standard.t_mean) * unit
    unit_t = 1.0 / standard.t_sd if standard.t_sd > 0 else 0.0
    return inner.tolist(), (with_t * unit_t).tolist()


def fit(sums: Moments, penalties: Sequence[float]) -> list[Fit]:
    """One fit a penalty, from one eigendecomposition of R."""
    standard = standard_of(sums)
    unit = np.divide(1.0, standard.sd, out=np.zeros_like(standard.sd), where=standard.varies)
    centred = sums.uu - sums.n * np.outer(standard.mean, standard.mean)
    R = centred * np.outer(unit, unit)
    r = (sums.ut - sums.n * standard.mean * standard.t_mean) * unit
    if len(penalties) == 1:
        coefficients = np.linalg.solve(R + penalties[0] * np.eye(len(r)), r)
        return [Fit(standard, np.where(standard.varies, coefficients, 0.0), penalties[0])]
    values, vectors = np.linalg.eigh(R)
    rotated = vectors.T @ r
    return [Fit(standard, vectors @ (rotated / (np.maximum(values, 0.0) + penalty)), penalty) for penalty in penalties]


def squared_error(fitted: Fit, held_out: Moments) -> float:
    """Σ(t − t̂)² of a fit over other patients, from their sums."""
    standard = fitted.standard
    unit = np.divide(1.0, standard.sd, out=np.zeros_like(standard.sd), where=standard.varies)
    w = fitted.coefficients * unit  # on u
    a = standard.t_mean - w @ standard.mean
    return float(
        held_out.tt
        - 2 * (w @ held_out.ut + a * held_out.t)
        + w @ held_out.uu @ w
        + 2 * a * (w @ held_out.u)
        + held_out.n * a**2
    )


def cross_validated(folds: Sequence[Moments], penalties: Sequence[float]) -> FloatArray | None:
    """Mean squared error (penalties,) over held-out folds; None with fewer than two folds that have patients."""
    occupied = [sums for sums in folds if sums.n > 0]
    if len(occupied) < 2:
        return None
    errors = np.zeros(len(penalties))
    for k, held_out in enumerate(occupied):
        fits = fit(reduce(add, occupied[:k] + occupied[k + 1 :]), penalties)
        errors += [squared_error(fitted, held_out) for fitted in fits]
    return errors / sum(sums.n for sums in occupied)


def strongest_of_the_best(mean_squared_errors: FloatArray, *, patients: float) -> float:
    """The strongest of `PENALTIES` whose RMSE is hardly above the least one. [own]

    The standard error of the RMSE of n normal errors is RMSE / √(2n), so of 281 patients 1 % above counts as hardly.
    """
    nearly_rmse = 1 + _STANDARD_ERRORS / np.sqrt(2 * patients)
    nearly = np.flatnonzero(mean_squared_errors <= nearly_rmse**2 * mean_squared_errors.min())
    return PENALTIES[int(nearly[-1])]
