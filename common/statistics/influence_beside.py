"""Whether a column nearly repeats one that leaves in another analysis of the same campaign file.

Attack: two models, one of age and a, one of age and b, where a and b are equal, or follow from each other, but for one
patient. Each passes by itself, and Σ age · a less Σ age · b is that patient's age.

Rule: of a column and each column beside it, over the patients who have both, fewer than the minimum count do not hold
nearly all of the distance from a line (`influence_few`); and where at least a third have equal values (both high or
both low, in columns of two values), nobody or at least the minimum count have others. Equal columns are one column, and
so are those that follow from each other for everybody. Columns of one value are judged by themselves.

Columns of other campaigns are compared by `influence_earlier`.

Residual risk: combinations of more than two columns; columns that follow from each other, without being equal, for
fewer than two thirds of the patients; at a site with hardly more patients than the minimum count, columns that differ
for somewhat fewer.

Legend: n patients, p columns, r columns beside them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.influence_few import centred_at_mean, few_make_up_pairs
from fedage.common.statistics.statistic import FloatArray

BoolArray = NDArray[np.bool_]

_EQUAL_FOR = 1 / 3
"""Share of equal values from which two columns count as one that was changed: whole numbers meet by chance."""


def nearly_repeats(columns: FloatArray, beside: FloatArray, *, minimum_count: int) -> BoolArray:
    """Which columns (p,) of (n, p) differ for a few, but not for none, from a line on one of those beside (n, r)."""
    repeats = np.zeros(columns.shape[1], dtype=np.bool_)
    for other in beside.T:
        known = np.isfinite(other)
        if columns.shape[1] and known.any():
            repeats |= _nearly_repeats_one(columns[known], other[known], minimum_count=minimum_count)
    return repeats


def _nearly_repeats_one(columns: FloatArray, other: FloatArray, *, minimum_count: int) -> BoolArray:
    pairs = few_make_up_pairs(centred_at_mean(columns), centred_at_mean(other[:, None]), minimum_count=minimum_count)
    repeats: BoolArray = pairs[:, 0]
    for j, column in enumerate(columns.T):
        known = np.isfinite(column)
        repeats[j] |= few_unequal(column[known], other[known], minimum_count=minimum_count) > 0
    return repeats


def few_unequal(a: FloatArray, b: FloatArray, *, minimum_count: int) -> int:
    """How many patients have other values in b (n,) than in a (n,), if they are few; 0 if they are not, or none are."""
    values_a, values_b = np.unique(a), np.unique(b)
    if values_a.size < 2 or values_b.size < 2:
        return 0
    unequal = [int(np.count_nonzero(a != b))]
    if values_a.size == values_b.size == 2:
        same_way = int(np.count_nonzero((a == values_a[1]) == (b == values_b[1])))
        unequal = [same_way, a.size - same_way]
    few = [count for count in unequal if 0 < count < minimum_count and a.size - count >= _EQUAL_FOR * a.size]
    return min(few, default=0)
