"""Which of a table's missing values a site may leave to all sites' median, so that no sum tells who misses them.

A missing value counts as u = 0, that is, as the centre that the request brings. So the sums are of those *present*: at
two centres, or at one far away, they give Σ over the patients who miss feature j of every other feature and of age.
Those of several features combine: where feature 1 is missing in some, feature 2 in others, and feature 3 in all of
these and in one patient more, Σ₃ − Σ₁ − Σ₂ is that patient, though every pair of features has large groups only.
Whatever is combined adds up patients who miss the same features, in each inner fold, and in those held out of a fold
where the campaign has several. So where fewer than the minimum count miss the same, and not nobody, the site puts its
own mean of a feature for the missing values ([own]): then the feature has a value for everybody, whatever the centre,
and no longer tells its patients from the others. The feature that most of those in small groups miss goes first. That
is not the median of all sites, so a model is exactly the pooled one only where no site does this.

Holes scattered over a table leave small groups of nearly every feature. A rule that let pairs of features pass if only
few miss *both* would keep more of them, since a pair's sums tell no more of those than how many they are; with a third
feature they do tell more, as above.

A feature which few patients have at all, in an inner fold or in all of them, counts as missing at the site.

Legend: n patients, p features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray

BoolArray = NDArray[np.bool_]
Rows = NDArray[np.intp]
_AT_ONCE = 1 / 32
"""Of wide tables so many features are filled before the groups are counted again; of others one."""


def enough_present(columns: Sequence[FloatArray], groups: Sequence[Rows], *, minimum_count: int) -> BoolArray:
    """Which columns (p,) at least `minimum_count` patients, or nobody, have a value in, in each group of rows."""
    enough = np.ones(len(columns), dtype=np.bool_)
    for j, column in enumerate(columns):
        counts = [int(np.count_nonzero(np.isfinite(column[rows]))) for rows in groups]
        enough[j] = any(counts) and not any(0 < count < minimum_count for count in counts)
    return enough


def stood_in(
    columns: Sequence[FloatArray], groups: Sequence[Rows], *, enough: BoolArray, minimum_count: int
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
        Fewest patients who miss the same features in a group.
    """
    replaced = np.zeros(len(columns), dtype=np.bool_)
    if minimum_count <= 1:
        return replaced
    rows = np.concatenate(groups)
    left = [int(j) for j in np.flatnonzero(enough) if not np.isfinite(columns[int(j)][rows]).all()]
    # A number for each feature and group: patients with the same sum of those (modulo 2⁶⁴) miss the same in one group.
    draw = np.random.default_rng(0)
    of_feature = {j: draw.integers(2**64, dtype=np.uint64) for j in left}
    pattern = np.repeat(draw.integers(2**64, size=len(groups), dtype=np.uint64), [group.size for group in groups])
    for j, number in of_feature.items():
        pattern[_missing(columns[j], rows)] += number
    while left:
        small = _in_small(pattern, minimum_count)
        if not small.any():
            break
        by_most = _by_most(columns, left, rows[small]) or _by_most(columns, left, rows)
        for j in by_most[: max(1, int(len(left) * _AT_ONCE))]:
            pattern[_missing(columns[j], rows)] -= of_feature[j]
            replaced[j] = True
            left.remove(j)
    return replaced


def _in_small(pattern: NDArray[np.uint64], minimum_count: int) -> BoolArray:
    """Who has a pattern that fewer than the minimum count have, (n,)."""
    _, which, counts = np.unique(pattern, return_inverse=True, return_counts=True)
    few: BoolArray = (counts < minimum_count)[which]
    return few


def _by_most(columns: Sequence[FloatArray], features: Sequence[int], rows: Rows) -> list[int]:
    """The features that somebody of `rows` misses, those that most do first."""
    counts = {j: int(np.count_nonzero(_missing(columns[j], rows))) for j in features}
    return sorted((j for j in features if counts[j]), key=lambda j: -counts[j])


def _missing(column: FloatArray, rows: Rows) -> BoolArray:
    missing: BoolArray = ~np.isfinite(column[rows])
    return missing
