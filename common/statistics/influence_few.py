"""Whether few patients make up a column, or the difference of two, though no value of it is the most frequent one.

Attack: a volume of lesions that is noise in all but four patients makes Σut the sum over those four, and so does the
difference of two columns that are equal but for four, or follow one from the other. No two values of it need be equal,
so that counting those who differ from the most frequent one finds nothing.

Rule: fewer than the minimum count of patients do not hold `NEARLY_ALL` of Σ (u − median u)², for u each column, and for
each pair of columns the distance from the line on which the other patients lie. The noise of the others blurs a sum by
√(1 − 0.99), a tenth of what the few contribute.

Residual risk: combinations of three columns or more, and less exact ones.

Legend: n patients, p and q columns, k the most patients who are few.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray

BoolArray = NDArray[np.bool_]

NEARLY_ALL = 0.99
_TRIPLES, _FEWEST_ON_LINES = 64, 12
"""Random triples of patients, and how many of them have to be collinear for a pair of columns to be looked at: where
two thirds of the patients lie on a line 19 are, of independent columns one or two."""
_COLLINEAR = 0.02
_ROUNDING = 1e-9
"""Distance from a line, in SDs, that is rounding: columns that follow from each other entirely are one column."""


def centred_at_mean(columns: FloatArray) -> FloatArray:
    """Columns (n, p) less their means; 0 where missing and where a column is constant up to rounding."""
    known = np.isfinite(columns)
    counts = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, columns, 0.0)
    mean = filled.sum(axis=0) / counts
    centred = np.where(known, columns - mean, 0.0)
    rounding = 4 * np.finfo(np.float64).eps * np.abs(filled).max(axis=0, initial=0.0)
    constant = np.abs(centred).max(axis=0, initial=0.0) <= rounding
    centred[:, constant] = 0.0
    result: FloatArray = centred
    return result


def most_frequent(columns: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """The most frequent finite value of each column (p,) of (n, p), the least of several, and how many have it.

    NaN and 0 for a column without any.
    """
    n, p = columns.shape
    if not n:
        return np.full(p, np.nan), np.zeros(p, dtype=np.intp)
    ordered = np.sort(np.where(np.isfinite(columns), columns, np.nan), axis=0)  # NaN last
    place = np.arange(n)[:, None]
    begins = np.ones((n, p), dtype=np.bool_)
    begins[1:] = ordered[1:] != ordered[:-1]
    so_far = np.where(np.isnan(ordered), 0, place + 1 - np.maximum.accumulate(np.where(begins, place, 0), axis=0))
    most = np.argmax(so_far, axis=0)
    return ordered[most, np.arange(p)], so_far[most, np.arange(p)]


def few_make_up(columns: FloatArray, *, minimum_count: int) -> BoolArray:
    """Which centred columns (p,) of (n, p) fewer than the minimum count of patients make up, but for a hundredth."""
    n, p = columns.shape
    few = min(minimum_count - 1, n // 3)
    if few < 1:
        return np.zeros(p, dtype=np.bool_)
    return _held_by(columns - np.median(columns, axis=0), few)


def few_make_up_pairs(a: FloatArray, b: FloatArray, *, minimum_count: int) -> BoolArray:
    """For which pairs (p, q) of centred columns (n, p) and (n, q) a combination is made up by few patients."""
    n = a.shape[0]
    dominated = np.zeros((a.shape[1], b.shape[1]), dtype=np.bool_)
    few = min(minimum_count - 1, n // 3)
    if few < 1 or not dominated.size:
        return dominated
    same = a is b
    a, b = _standardised(a), _standardised(b)
    triples = triples_of(n)
    on_lines = np.zeros(dominated.shape, dtype=np.intp)
    low_a, low_b = a.astype(np.float32), b.astype(np.float32)
    for first, second, third in triples:
        one = np.outer(low_a[second] - low_a[first], low_b[third] - low_b[first])
        other = np.outer(low_a[third] - low_a[first], low_b[second] - low_b[first])
        apart = np.abs(one - other)
        on_lines += apart <= _COLLINEAR * np.maximum(np.abs(one, out=one), np.abs(other, out=other))
    varies = np.outer(np.any(a != 0, axis=0), np.any(b != 0, axis=0))
    near = (on_lines >= _FEWEST_ON_LINES) & varies
    for i, j in np.argwhere(np.triu(near, 1) if same else near):
        dominated[i, j] = _few_off_a_line(a[:, i], b[:, j], triples, few)[0] > 0
    if same:  # a column is one with itself, and a pair is the same either way round
        dominated |= dominated.T
    return dominated


def patients_off_a_line(x: FloatArray, y: FloatArray, *, minimum_count: int) -> tuple[int, int]:
    """By how many patients, fewer than the minimum count, x and y (n,) differ from a line, as in `few_make_up_pairs`.

    How many make up nearly all of the distance, and how many are off the line at all; 0 and 0 where the columns do not
    nearly follow from each other, and where they do for everybody.
    """
    few = min(minimum_count - 1, x.size // 3)
    if few < 1:
        return 0, 0
    a, b = (_standardised(centred_at_mean(column[:, None]))[:, 0] for column in (x, y))
    if not a.any() or not b.any():
        return 0, 0
    return _few_off_a_line(a, b, triples_of(x.size), few)


@lru_cache(maxsize=256)
def triples_of(n: int) -> NDArray[np.intp]:
    """The random triples (64, 3) of n patients."""
    return np.array([np.random.default_rng(k).choice(n, 3, replace=False) for k in range(_TRIPLES)])


def on_a_line(x: FloatArray, y: FloatArray) -> BoolArray:
    """Which columns (c,) have triples of patients enough on a line; x and y (n, c), pair by pair."""
    if x.shape[0] < 3:
        return np.ones(x.shape[1], dtype=np.bool_)  # as any two points are
    counts = np.zeros(x.shape[1], dtype=np.intp)
    for first, second, third in triples_of(x.shape[0]):
        one = (x[second] - x[first]) * (y[third] - y[first])
        other = (x[third] - x[first]) * (y[second] - y[first])
        counts += np.abs(one - other) <= _COLLINEAR * np.maximum(np.abs(one), np.abs(other))
    enough: BoolArray = counts >= _FEWEST_ON_LINES
    return enough


def _few_off_a_line(x: FloatArray, y: FloatArray, triples: NDArray[np.intp], few: int) -> tuple[int, int]:
    """How many (few) patients make up the distance of the points (x, y) from a line that is not along an axis, or 0.

    And how many are off it by more than rounding.
    """
    points = np.column_stack([x, y])
    along = (points[triples] - points[np.roll(triples, 1, axis=1)]).reshape(-1, 2)
    normals = np.column_stack([along[:, 1], -along[:, 0]])
    # A line along an axis is one column alone, which is judged by itself.
    normals = normals[np.abs(normals).min(axis=1) > _ROUNDING]
    if not normals.size:
        return 0, 0
    normals = normals / np.hypot(normals[:, 0], normals[:, 1])[:, None]
    normal = normals[int(np.argmin(_rest(_off(points, normals), few)))]
    for _ in range(3):
        on_line = np.argsort(np.abs(_off(points, normal[None])[:, 0]))[: x.size - few]
        centred = points[on_line] - points[on_line].mean(axis=0)
        normal = np.linalg.eigh(centred.T @ centred)[1][:, 0]
    off = _off(points, normal[None])
    alone = np.abs(normal).min() <= _ROUNDING
    if alone or np.abs(off).max() <= _ROUNDING or not _held_by(off, few)[0]:
        return 0, 0
    squares = np.sort((off * off)[:, 0])[::-1]
    making_up = 1 + int(np.searchsorted(np.cumsum(squares), NEARLY_ALL * squares.sum(), side="right"))
    return making_up, int(np.count_nonzero(np.abs(off) > _ROUNDING))


def _off(points: FloatArray, normals: FloatArray) -> FloatArray:
    """Distances (n, lines) of points from lines through the median patient."""
    distance = points @ normals.T
    off: FloatArray = distance - np.median(distance, axis=0)
    return off


def _rest(off: FloatArray, few: int) -> FloatArray:
    """Σ of squares (p,) of (n, p) without the `few` largest."""
    squares = np.sort(off * off, axis=0)
    rest: FloatArray = squares[: len(squares) - few].sum(axis=0)
    return rest


def _held_by(off: FloatArray, few: int) -> BoolArray:
    """Of which columns (p,) of (n, p) the `few` largest are nearly all of the sum of squares."""
    whole = (off * off).sum(axis=0)
    held: BoolArray = (whole > 0) & (_rest(off, few) < (1 - NEARLY_ALL) * whole)
    return held


def _standardised(columns: FloatArray) -> FloatArray:
    size = np.sqrt((columns * columns).mean(axis=0))
    standardised: FloatArray = np.divide(columns, size, out=np.zeros_like(columns), where=size > 0)
    return standardised
