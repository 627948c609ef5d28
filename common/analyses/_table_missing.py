"""Which of a table's missing values a site may leave to all sites' median, so that no sum tells who misses them.

A missing value counts as u = 0, that is, as the centre that the request brings. So the sums are of those *present*: at
two centres, or at one far away, they give Σ over the patients who miss feature j of every other feature and of age. Let
j and k be features. What follows from the sums are groups by (j missing or not) × (k missing or not), in each inner
fold, and in those held out of a fold where the campaign has several. Where one of these groups has fewer than the
minimum count, and not nobody, the site puts its own mean of the feature for the missing values ([own]): then the
feature has a value for everybody, whatever the centre. Of the features in such a group the one that is in most of them
goes first. That is not the median of all sites, so a model is exactly the pooled one only where no site does this.

A feature which few patients have at all, in an inner fold or in all of them, counts as missing at the site.

Legend: n patients, p features, q features with missing values, k inner folds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistic import FloatArray

BoolArray = NDArray[np.bool_]
Rows = NDArray[np.intp]
_BLOCK_VALUES = 2**21


def enough_present(columns: Sequence[FloatArray], groups: Sequence[Rows], *, minimum_count: int) -> BoolArray:
    """Which columns (p,) at least `minimum_count` patients, or nobody, have a value in, in each group of rows."""
    told = np.ones(len(columns), dtype=np.bool_)
    for j, column in enumerate(columns):
        counts = [int(np.count_nonzero(np.isfinite(column[rows]))) for rows in groups]
        told[j] = any(counts) and not any(_few(count, minimum_count) for count in counts)
    return told


def stood_in(
    columns: Sequence[FloatArray], groups: Sequence[Rows], *, told: BoolArray, minimum_count: int
) -> BoolArray:
    """In which of the columns that are `told` (p,) the site's mean has to stand in for missing values.

    Parameters
    ----------
    columns
        Features, (n,) each.
    groups
        Rows of each inner fold, and of those held out.
    told
        Columns that the site tells anything of.
    minimum_count
        Fewest patients of a group.
    """
    found = np.zeros(len(columns), dtype=np.bool_)
    with_gaps = [
        j
        for j in map(int, np.flatnonzero(told))
        if minimum_count > 1 and any(not np.isfinite(columns[j][rows]).all() for rows in groups)
    ]
    if not with_gaps:
        return found
    alone = np.zeros(len(with_gaps), dtype=np.bool_)
    pairs = np.zeros((len(with_gaps), len(with_gaps)), dtype=np.bool_)
    for rows in groups:
        missing = np.zeros(pairs.shape)
        size = max(1, _BLOCK_VALUES // len(with_gaps))
        for start in range(0, rows.size, size):
            part = rows[start : start + size]
            gaps = np.column_stack([~np.isfinite(columns[j][part]) for j in with_gaps]).astype(np.float32)
            missing += gaps.T @ gaps
        of_one = np.diagonal(missing)
        alone |= _few(of_one, minimum_count) | _few(rows.size - of_one, minimum_count)
        only_first = of_one[:, None] - missing
        neither = rows.size - of_one[:, None] - of_one + missing
        pairs |= _few(missing, minimum_count) | _few(only_first, minimum_count) | _few(neither, minimum_count)
    filled = _cover(pairs | pairs.T, first=alone)
    found[np.asarray(with_gaps)[filled]] = True
    return found


def _cover(pairs: BoolArray, *, first: BoolArray) -> BoolArray:
    """Features (q,) so that of every small group of two (q, q) one is among them; `first` (q,) are to begin with."""
    filled = first.copy()
    open_pairs = pairs & ~(filled[:, None] | filled)
    degree = open_pairs.sum(axis=0)
    while degree.any():
        most = int(np.argmax(degree))
        filled[most] = True
        degree -= open_pairs[most]
        open_pairs[most, :] = open_pairs[:, most] = False
        degree[most] = 0
    return filled


def _few(count: FloatArray | int, minimum_count: int) -> BoolArray:
    return np.asarray((np.asarray(count) > 0) & (np.asarray(count) < minimum_count))
