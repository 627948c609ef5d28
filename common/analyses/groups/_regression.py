"""The regression of the gap on group, site and covariates, from its sums of products."""

from __future__ import annotations

import numpy as np

from fedage.common.analyses.base import Result
from fedage.common.statistics.statistic import FloatArray

_ROUNDING = 8 * float(np.finfo(np.float64).eps)
"""Spread of a column over its largest value below which it counts as the same for all patients of a site."""


_COLLINEAR = 1e-9
"""Smallest eigenvalue of the regressors' correlation matrix that still lets them be told apart."""


_FOUND = ("difference_years", "se_years", "ci95", "t", "df", "p", "cohens_d", "residual_sd_years")


def _regress(products: FloatArray, free: float) -> Result:
    """Least squares of the last column on the others from centred cross products; what the first one's slope is.

    `free` is n − S. Without degrees of freedom left, or without any spread, there is a difference and no error of it.
    """
    from scipy.special import stdtr, stdtrit

    scale = np.sqrt(np.diag(products)[:-1])
    inverse = np.linalg.inv(products[:-1, :-1] / np.outer(scale, scale)) / np.outer(scale, scale)
    slopes = inverse @ products[:-1, -1]
    df = free - scale.size
    rss = max(float(products[-1, -1] - slopes @ products[:-1, -1]), 0.0)
    sd = float(np.sqrt(rss / df)) if df >= 1 and rss > 0 else None
    result: Result = dict.fromkeys(_FOUND)
    result |= {"difference_years": float(slopes[0]), "df": round(df), "residual_sd_years": sd}
    if sd is not None:
        se = sd * float(np.sqrt(inverse[0, 0]))
        half, t = float(stdtrit(df, 0.975)) * se, float(slopes[0]) / se
        result |= {
            "se_years": se,
            "ci95": [float(slopes[0]) - half, float(slopes[0]) + half],
            "t": t,
            "p": 2 * float(stdtr(df, -abs(t))),
            "cohens_d": float(slopes[0]) / sd,
        }
    return result
