"""Quartiles of every feature over all sites, from cumulative counts on a grid that zooms in.

Each exchange asks, for each feature and curve, for the counts below `STEPS` + 1 grid points of a window; the next one
is the step in which the count passes the quartile's rank. 2³² codes are 256⁴, so four exchanges are enough. The curves
are the quartiles if every patient of a site's group had its mean, and the least and the greatest median that the
groups allow: between those two the true median lies for certain, which is the stated error.

Legend: p features, c curves (5), g grid points; codes and groups as in `_guarded_groups`. Of n patients, a quartile is
where the count below passes n/4, n/2 or 3n/4; between two patients, the middle (for n/2 the usual median).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedage.common.analyses._guarded_groups import CODES, Codes, Groups, decode, guarded_groups_of
from fedage.common.analyses.base import Iterate, IterateRefused, check_iterate
from fedage.common.analyses.columns import MAX_PATIENTS
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

STEPS = 256
EXCHANGES = 4
_LOWER_QUARTILE, _MEDIAN, _UPPER_QUARTILE, _LEAST_MEDIAN, _GREATEST_MEDIAN = range(5)
_RANKS = np.array([0.25, 0.5, 0.75, 0.5, 0.5])
_IQR_OF_NORMAL = 1.3489795003921634


@dataclass(frozen=True)
class Quartiles:
    """What came out, arrays (p,); NaN where no site could tell anything.

    Parameters
    ----------
    median
        Estimate.
    least_median, greatest_median
        What the true median lies between, apart from patients whose value is missing.
    spread
        Interquartile range over that of a normal distribution of SD 1; where it is 0, |median|, and where that is 0, 1.
    """

    median: FloatArray
    least_median: FloatArray
    greatest_median: FloatArray
    spread: FloatArray


def first_windows(features: int) -> Iterate:
    """All numbers there are, for each curve of each feature."""
    shape = (features, _RANKS.size)
    return {"exchange": np.array(1.0), "low": np.zeros(shape), "high": np.full(shape, float(CODES))}


def check_windows(iterate: Iterate, features: int) -> None:
    """Refuse windows that are not pairs of whole codes, the lower one first, or are of no exchange that there is."""
    shape = (features, _RANKS.size)
    check_iterate(iterate, {"exchange": (), "low": shape, "high": shape}, bound=float(CODES))
    low, high = iterate["low"], iterate["high"]
    if np.any(low != np.rint(low)) or np.any(high != np.rint(high)) or np.any(low < 0) or np.any(high <= low):
        raise IterateRefused("windows must be whole codes, low below high")
    if iterate["exchange"] not in range(1, EXCHANGES + 1):
        raise IterateRefused(f"windows are of the exchanges 1 to {EXCHANGES}")
    if iterate["exchange"] == 1 and (np.any(low != 0) or np.any(high != CODES)):
        raise IterateRefused("the first windows are all numbers there are")


def layout(features: int) -> Layout:
    """Patients with a value, and those below each grid point of each curve."""
    grid = (features, _RANKS.size, STEPS + 1)
    return Layout(
        (
            Field("present", (features,), lower=0.0, upper=MAX_PATIENTS, whole=True),
            Field("below", grid, lower=0.0, upper=MAX_PATIENTS, whole=True),
        )
    )


def local(columns: Iterable[FloatArray], iterate: Iterate, *, patients: int, minimum_count: int) -> Statistic:
    """A site's counts, from its columns (n,) one after another.

    How many have no value of a feature follows from `present`; where they are few, the mean stands in for them.
    """
    points = _points(iterate)  # (p, c, g)
    filled = (_without_few_missing(values, minimum_count=minimum_count) for values in columns)
    groups = guarded_groups_of(filled, minimum_count=minimum_count)
    present = np.array([one.n for one in groups], dtype=np.float64)
    smallest = min([patients, *(int(one.count.min()) for one in groups if one.n)])
    who = [Cell(patients, "training patients"), Cell(smallest, "patients in one group of a feature's values")]
    return Statistic.of(layout(len(points)), {"present": present, "below": _below(points, groups)}, who)


def _below(points: Codes, groups: Sequence[Groups]) -> FloatArray:
    """How many patients are below each grid point (p, c, g), if all of a group lie where the curve has them."""
    features, curves, steps = points.shape
    column = np.repeat(np.arange(features), [one.count.size for one in groups])
    count, start, mean, end = (
        np.concatenate([getattr(one, name) for one in groups]) for name in ("count", "start", "mean", "end")
    )
    at = np.stack([mean] * curves, axis=1)
    at[:, _LEAST_MEDIAN], at[:, _GREATEST_MEDIAN] = start, end - 1
    # With the number of their row in front of them the points of all rows are in order.
    row = np.arange(features * curves, dtype=np.int64).reshape(features, curves)
    ordered = (row[..., None] * (2 * CODES) + points).ravel()
    first_above = np.searchsorted(ordered, row[column] * (2 * CODES) + at, side="right") - row[column] * steps
    counts = np.zeros((features, curves, steps + 1))
    np.add.at(counts, (column[:, None], np.arange(curves)[None], first_above), count[:, None])
    below: FloatArray = np.cumsum(counts, axis=-1)[..., :-1]
    return below


def _without_few_missing(values: FloatArray, *, minimum_count: int) -> FloatArray:
    """Values (n,) with their mean where fewer than the minimum count of them are missing."""
    missing = ~np.isfinite(values)
    if missing.all() or not 0 < np.count_nonzero(missing) < minimum_count:
        return values
    return np.where(missing, values[~missing].mean(), values)


def narrower(total: Statistic, iterate: Iterate) -> Iterate | None:
    """The next windows; None after the last exchange."""
    if iterate["exchange"] >= EXCHANGES:
        return None
    low, high = _passing(total, iterate)
    return {"exchange": iterate["exchange"] + 1.0, "low": low, "high": high}


def quartiles(total: Statistic, iterate: Iterate) -> Quartiles:
    """The result from the last exchange."""
    low, high = _passing(total, iterate)
    estimate = (decode(low) + decode(high - 1)) / 2
    known = total["present"] > 0
    median = estimate[:, _MEDIAN]
    spread = (estimate[:, _UPPER_QUARTILE] - estimate[:, _LOWER_QUARTILE]) / _IQR_OF_NORMAL
    spread = np.where(spread > 0, spread, np.abs(median))
    spread = np.where(spread > 0, spread, 1.0)
    return Quartiles(
        median=np.where(known, median, np.nan),
        least_median=np.where(known, decode(low[:, _LEAST_MEDIAN]), np.nan),
        greatest_median=np.where(known, decode(high[:, _GREATEST_MEDIAN] - 1), np.nan),
        spread=np.where(known, spread, np.nan),
    )


def _points(iterate: Iterate) -> Codes:
    """Grid points (p, c, g) of windows, whole codes; in a window narrower than the grid some are equal."""
    steps = np.arange(STEPS + 1) / STEPS
    low, high = iterate["low"][..., None], iterate["high"][..., None]
    return np.rint(low + (high - low) * steps).astype(np.int64)


def _passing(total: Statistic, iterate: Iterate) -> tuple[FloatArray, FloatArray]:
    """Last grid point (p, c) with a count under the rank and first with one over it, or the window's ends."""
    points, below = _points(iterate), total["below"]
    rank = (total["present"][:, None] * _RANKS)[..., None]
    under, until = (below < rank).sum(axis=-1), (below <= rank).sum(axis=-1)  # counts rise along the grid
    before = np.take_along_axis(points, np.maximum(under - 1, 0)[..., None], axis=-1)[..., 0]
    after = np.take_along_axis(points, np.minimum(until, STEPS)[..., None], axis=-1)[..., 0]
    low = np.where(under > 0, before, iterate["low"]).astype(np.float64)
    high = np.where(until <= STEPS, after, iterate["high"]).astype(np.float64)
    return low, np.maximum(high, low + 1)
