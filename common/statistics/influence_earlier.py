"""Whether a column nearly repeats one whose sums left a site before, in whatever campaign.

Attack: two campaigns, one with column a and one with b, where a and b are equal, or follow from each other, but for one
patient: the sums of the one less those of the other are that patient's record. Two columns of one table may be so, and
one column before and after a value in it was corrected.

Rule: as for columns of one file (`influence_beside`), over the patients of whom both are known. As a site compares
with all that it ever answered, unrelated columns must not count as nearly equal by chance: of few patients two columns
of two values often are, and heavy tails are made up by few whatever they are held against. So a pair counts only if no
random order of the values of one of them differs by as few patients as they do. A feature of a table has sums over
those who miss it too, a mean standing in: columns that are the same but for a few who miss the one alone count too.

Residual risk: at sites of hardly more than twice the minimum count, columns of two values that differ for somewhat
fewer than the minimum count, as far as chance does the same; combinations of more than two columns.

Legend: n patients, p columns, r earlier columns, c pairs.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics._recent import Recent
from fedage.common.statistics.influence_beside import few_unequal
from fedage.common.statistics.influence_few import most_frequent, on_a_line, patients_off_a_line
from fedage.common.statistics.statistic import FloatArray

BoolArray = NDArray[np.bool_]
Pairs = NDArray[np.intp]

_ORDERS = 40
"""Random orders of the values that a pair is held against."""
_FEW_PATIENTS = 5
"""Times the minimum count, below which the quick look takes columns as near that differ for many of the patients."""
_ROUNDING = 1e-9
_PATIENT_PAIRS = 2048
_PAIRS_AT_ONCE = 20_000
_KEPT_ANSWERS = 10_000


def nearly_repeats_earlier(columns: FloatArray, earlier: FloatArray, *, minimum_count: int) -> BoolArray:
    """Which columns (p,) of (n, p) differ for a few, but not for none, from one of the earlier ones (n, r).

    Of `columns` a value that is not finite is missing; of `earlier` inf is, while NaN was in no sum. Pairs of which
    fewer patients than the minimum count have both are not compared, as sums over patients who are nearly all others
    are not about the few.
    """
    repeats = np.zeros(columns.shape[1], dtype=np.bool_)
    for column, other in near_pairs(columns, earlier, minimum_count=minimum_count):
        repeats[column] = repeats[column] or differs_for_few(
            columns[:, column], earlier[:, other], minimum_count=minimum_count
        )
    return repeats


_answers: Recent[bool] = Recent(most=_KEPT_ANSWERS)


def differs_for_few(x: FloatArray, y: FloatArray, *, minimum_count: int) -> bool:
    """Whether x and y (n,) differ for a few patients, but not for none, and not by chance."""
    digest = hashlib.sha256(f"{minimum_count} {x.size} ".encode())
    for column in (x, y):
        digest.update(np.ascontiguousarray(column, dtype="<f8").tobytes())
    return _answers.of(digest.digest(), lambda: _differs_for_few(x, y, minimum_count=minimum_count))


def _differs_for_few(x: FloatArray, y: FloatArray, *, minimum_count: int) -> bool:
    known = np.isfinite(x) & np.isfinite(y)
    miss_one = int(np.count_nonzero(_misses_one(x, y)))
    x, y = x[known], y[known]
    if 0 < miss_one < minimum_count and x.size >= minimum_count and _follow(x, y):
        return True
    apart = _apart(x, y, minimum_count=minimum_count)
    if not apart.any():
        return False
    rng = np.random.default_rng(x.size)
    for _ in range(_ORDERS):
        by_chance = _apart(x, rng.permutation(y), minimum_count=minimum_count)
        apart[(by_chance > 0) & (by_chance <= apart)] = 0
        if not apart.any():
            return False
    return True


def _misses_one(x: FloatArray, y: FloatArray) -> BoolArray:
    """Who, of those in both sums, has a value in one of a column and an earlier one (of any equal shapes) only."""
    misses: BoolArray = ~np.isnan(y) & (np.isfinite(x) != np.isfinite(y))
    return misses


def _follow(x: FloatArray, y: FloatArray) -> bool:
    """Whether y (n,) follows from x for everybody, or is the same."""
    if np.array_equal(x, y):
        return True
    a, b = x - x.mean(), y - y.mean()
    return bool(abs(a @ b) >= (1 - _ROUNDING) * np.sqrt((a @ a) * (b @ b)) > 0)


def _apart(x: FloatArray, y: FloatArray, *, minimum_count: int) -> NDArray[np.intp]:
    """For how many patients, if they are few, two columns differ: in value, from a line, and from a line with noise."""
    if x.size < minimum_count or np.array_equal(x, y):
        return np.zeros(3, dtype=np.intp)
    making_up, off = patients_off_a_line(x, y, minimum_count=minimum_count)
    unequal = few_unequal(x, y, minimum_count=minimum_count)
    return np.array([unequal, off if off < minimum_count else 0, making_up], dtype=np.intp)


def near_pairs(columns: FloatArray, earlier: FloatArray, *, minimum_count: int) -> Pairs:
    """Pairs (c, 2) of a column of (n, p) and an earlier one (n, r) that may be near; a quick look that misses none.

    Columns with a most frequent value in common have others for nearly the same patients; the values of two patients,
    drawn at random, differ the same way in both (or the other way). Of those that remain, triples lie on lines.
    """
    n, few = columns.shape[0], minimum_count - 1
    if n < minimum_count or few < 1 or not columns.shape[1] or not earlier.shape[1]:
        return np.empty((0, 2), dtype=np.intp)
    known_a, known_b = (np.isfinite(each).astype(np.float32) for each in (columns, earlier))
    both = known_a.T @ known_b
    other_a, other_b = _unlike_the_most(columns), _unlike_the_most(earlier)
    unlike = other_a.T @ known_b + known_a.T @ other_b - 2 * (other_a.T @ other_b)
    share_a, share_b = (
        other.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        for other, known in ((other_a, known_a), (other_b, known_b))
    )
    mostly_one = (unlike < 2 * minimum_count) & (share_a <= 0.6)[:, None] & (share_b <= 0.6)[None]
    same_way = _same_way(columns, earlier)
    least = np.square(1 - np.minimum(few, both / 3) / np.maximum(both, 1)) - 0.25
    spread = same_way >= np.maximum(least, 0.15)
    small = (both < _FEW_PATIENTS * minimum_count) & ((unlike < 2 * minimum_count) | (same_way >= 0.15))
    pairs: Pairs = np.argwhere((both >= minimum_count) & (mostly_one | spread | small)).astype(np.intp)
    kept = [
        part[_may_be_near(columns[:, part[:, 0]], earlier[:, part[:, 1]])]
        for part in np.array_split(pairs, max(1, -(-len(pairs) * n // (_PAIRS_AT_ONCE * 300))))
    ]
    return np.concatenate(kept)


def _may_be_near(x: FloatArray, y: FloatArray) -> BoolArray:
    """Which pairs (c,) of columns (n, c) are not the same, and have equal values or points on lines enough."""
    known = np.isfinite(x) & np.isfinite(y)
    equal = np.count_nonzero(known & (x == y), axis=0)
    counted = np.count_nonzero(known, axis=0)
    # On a line with a gap in it: a triple with a patient who is not known must not count against the pair.
    lined = on_a_line(np.where(known, x, 0.0), np.where(known, y, 0.0)) | (counted < x.shape[0])
    unlike = (equal < counted) | _misses_one(x, y).any(axis=0)
    near: BoolArray = unlike & ((equal >= counted / 3) | lined)
    return near


def _unlike_the_most(columns: FloatArray) -> NDArray[np.float32]:
    """Who (n, p) has another value than the most frequent one."""
    unlike: NDArray[np.float32] = (np.isfinite(columns) & (columns != most_frequent(columns)[0])).astype(np.float32)
    return unlike


def _same_way(columns: FloatArray, earlier: FloatArray) -> NDArray[np.float32]:
    """How much more often than not (p, r), up to sign, two patients differ the same way in both.

    As Kendall's τ, of the pairs of patients who differ in the column in which fewer do: a column of few values may go
    with one of noise around them.
    """
    n = columns.shape[0]
    columns, earlier = (np.where(np.isfinite(each), each, np.nan) for each in (columns, earlier))
    if n * (n - 1) // 2 <= _PATIENT_PAIRS:
        first, second = np.triu_indices(n, 1)
    else:
        first, second = np.random.default_rng(n).integers(0, n, (2, _PATIENT_PAIRS))
    a, b = (np.sign(each[first] - each[second]).astype(np.float32) for each in (columns, earlier))
    known_a, known_b = (np.isfinite(each).astype(np.float32) for each in (a, b))
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    size = np.minimum(np.square(a).T @ known_b, known_a.T @ np.square(b))
    same: NDArray[np.float32] = np.abs(a.T @ b) / np.maximum(size, 1)
    return same
