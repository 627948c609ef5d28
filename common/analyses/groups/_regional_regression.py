"""Regressions of many residuals on the same few columns, from sums of products about each site's own means.

Notation: q columns, the G diagnoses first, M models, R regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray, Statistic

_ROUNDING = 8 * float(np.finfo(np.float64).eps)


def centred(columns: FloatArray) -> FloatArray:
    """Columns (n, k) about their means; 0 for one that is the same for all but for rounding."""
    flat = np.ptp(columns, axis=0) <= _ROUNDING * np.abs(columns).max(axis=0)
    z = np.where(flat, 0.0, columns - columns.mean(axis=0))
    z -= z.mean(axis=0)
    return z


@dataclass(frozen=True)
class Regressions:
    """Slopes and two-sided p of t (diagnoses that vary, M, R), and p of F of all diagnoses together (M, R)."""

    slopes: FloatArray
    p_each: FloatArray
    p_all: FloatArray


def regress_all(total: Statistic, *, varies: NDArray[np.bool_], diagnoses: int, df: float) -> Regressions:
    """Least squares of every residual on the columns that vary.

    Parameters
    ----------
    total
        With `products` (q, q), `with_residuals` (q, M, R) and `squares` (M, R).
    varies
        (q,).
    diagnoses
        G.
    df
        Degrees of freedom that are left.
    """
    from scipy.special import fdtrc, stdtr

    products, there = total["products"], int(np.count_nonzero(varies[:diagnoses]))
    inside = np.ix_(varies, varies)
    size = np.sqrt(np.diag(products)[varies])
    b = total["with_residuals"][varies]
    inverse = np.linalg.inv(products[inside] / np.outer(size, size)) / np.outer(size, size)
    slopes = np.einsum("kq,qmr->kmr", inverse, b)
    squares = total["squares"]
    rss = np.maximum(squares - (slopes * b).sum(axis=0), 0.0)
    fixed = varies.copy()
    fixed[:diagnoses] = False
    reduced = squares
    if fixed.any():
        of_fixed = total["with_residuals"][fixed]
        solved = np.linalg.solve(products[np.ix_(fixed, fixed)], of_fixed.reshape(len(of_fixed), -1))
        reduced = squares - (solved.reshape(of_fixed.shape) * of_fixed).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        F = np.maximum(reduced - rss, 0.0) / there / (rss / df)
        t = slopes[:there] / np.sqrt(rss / df * np.diag(inverse)[:there, None, None])
    # A region that is the same for everybody differs nowhere.
    p_all = np.where(rss > 0, fdtrc(there, df, np.nan_to_num(F)), 1.0)
    p_each = np.where(rss > 0, 2 * stdtr(df, -np.abs(np.nan_to_num(t))), 1.0)
    return Regressions(slopes[:there], p_each, p_all)
