"""Numbers with a point between thousands, which read as a thousandth of what they say: 1.234 beside 980."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray

_FEWEST = 5
"""Different values on either side: codes for missing (999, 998) beside measures of three decimals are fewer."""


def grouped_by_points(values: FloatArray) -> NDArray[np.bool_]:
    """Which values (n,), NaN ignored, are read as a thousandth of what was written; none unless it is plain.

    A column that crosses a thousand then holds whole numbers from 100 to 999 and none above, and numbers of up to three
    decimals from 1 to below 1000, most of which need the third: measures have one number of decimals, or of digits.

    Examples
    --------
    >>> grouped_by_points(np.array([980.0, 1.234, 871, 1.027, 905, 1.311, 640, 1.102, 733, 1.089])).sum()
    np.int64(5)
    >>> grouped_by_points(np.array([980.0, 1.2, 871, 1.0, 905, 1.3, 640, 1.1, 733, 1.5])).any()
    np.False_
    """
    none = np.zeros(values.shape, dtype=np.bool_)
    known = np.isfinite(values)
    size = np.abs(np.where(known, values, 0.0))
    is_whole = size == np.rint(size)
    large, fractions = size[is_whole & (size >= 100)], size[~is_whole]
    # Cheap looks first: most columns end here.
    if large.size < _FEWEST or large.max() >= 1000 or fractions.size < _FEWEST:
        return none
    if fractions.min() < 1 or fractions.max() >= 1000 or min(map(_distinct, (large, fractions))) < _FEWEST:
        return none
    thousandths = np.rint(fractions * 1000)
    if np.abs(fractions * 1000 - thousandths).max() > 1e-6 or np.mean(thousandths % 10 != 0) <= 0.5:
        return none
    is_grouped: NDArray[np.bool_] = known & (~is_whole | (size < 10))  # 2.000 is read as a whole number
    return is_grouped


def _distinct(values: FloatArray) -> int:
    return int(np.unique(values).size)
