"""Which bins of age may be told: those between cuts that leave the minimum count on either side, whatever was told.

Attack: counts and errors by year of age beside the same in bins of five years. In each table small bins are withheld
and cannot be worked out, but a year of one patient is five years less the four that are told. Rule: of a table's edges
those are cuts between which nobody or at least the minimum count lies; a bin is told if both of its edges are cuts. And
no run of neighbouring cells differs from a run that was told before for fewer patients than that. Residual risk: sums
of several runs of tables of different patients.

Round ages are cut at first, so that tables with other bins find the same cuts. Notation: n patients, K bins.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray

_ROUND_YEARS = (10.0, 5.0, 2.0, 1.0)

Cells = NDArray[np.int64]


@dataclass(frozen=True)
class EarlierCells:
    """What a table told before.

    Parameters
    ----------
    cell
        By patient of today (n,), the cell that the patient was in, −1 for none.
    sizes
        Patients of each cell then, neighbours side by side, each the minimum count or more.
    """

    cell: Cells
    sizes: Cells


@runtime_checkable
class Binned(Protocol):
    """An analysis that tells sums by bins of age."""

    @property
    def edges_years(self) -> tuple[float, ...]:
        """Of the bins, rising; the outermost are open."""

    def binned(self, cohort: Cohort) -> NDArray[np.bool_]:
        """Whose sums it tells (n,)."""

    def telling(self, cuts: frozenset[int]) -> Self:
        """The same analysis with no other bins than those between these edges."""


def cuts_of(
    age_years: FloatArray, edges_years: Sequence[float], *, minimum_count: int, earlier: Sequence[EarlierCells] = ()
) -> frozenset[int]:
    """Indices of the edges that are cuts, the two outermost among them.

    Parameters
    ----------
    age_years
        (n,).
    edges_years
        (K + 1,), rising; the outermost bins are open.
    minimum_count
        Fewest patients of a cell; 1 makes every edge a cut.
    earlier
        What was told before.

    Examples
    --------
    >>> ages = np.array([40.5, 41.5, 42.5, 43.5, 43.7])
    >>> sorted(cuts_of(ages, (40, 41, 42, 43, 44), minimum_count=2))
    [0, 2, 4]
    """
    last = len(edges_years) - 1
    if minimum_count <= 1:
        return frozenset(range(last + 1))
    order = np.argsort(age_years, kind="stable")
    below = np.searchsorted(age_years[order], edges_years, side="left")
    below[0], below[last] = 0, age_years.size
    # How many patients are below an edge tells two cuts apart: edges with nobody in between are one.
    chosen = [0, age_years.size]
    tables = [_Before.of(each, order, places=np.unique(below)) for each in earlier if (each.cell >= 0).any()]
    for least_round in range(len(_ROUND_YEARS) + 1):
        round_enough = {int(below[k]) for k in range(1, last) if _roundness(edges_years[k]) <= least_round}
        for start, end in pairwise(tuple(chosen)):
            wanted = sorted(position for position in round_enough if start < position < end)
            for position in _joined((start, *wanted, end), minimum_count):
                place = bisect_left(chosen, position)
                runs = [(one, position) for one in chosen[:place]] + [(position, one) for one in chosen[place:]]
                if not any(table.has_near(runs, minimum_count) for table in tables):
                    chosen.insert(place, position)
    kept = set(chosen)
    return frozenset(edge for edge in range(last + 1) if int(below[edge]) in kept)


def cells_between(age_years: FloatArray, edges_years: Sequence[float], cuts: frozenset[int]) -> Cells:
    """The cell (n,) of each patient, between neighbouring cuts, numbered from 0 by age."""
    inside = [edges_years[cut] for cut in sorted(cuts) if 0 < cut < len(edges_years) - 1]
    return np.searchsorted(inside, age_years, side="right").astype(np.int64)


def bins_between(cuts: frozenset[int], bins: int) -> NDArray[np.bool_]:
    """Which bins (K,) have a cut at either edge."""
    return np.array([k in cuts and k + 1 in cuts for k in range(bins)], dtype=np.bool_)


def is_near_a_run(
    groups: NDArray[np.bool_], place: NDArray[np.intp], cuts: frozenset[int], *, minimum_count: int
) -> bool:
    """Whether a group (n, g) and the patients between two cuts are the same but for a few: their sums are subtracted.

    `place` (n,) is the bin of each patient.
    """
    by_bin = np.zeros((max(cuts) + 1, groups.shape[1]), dtype=np.int64)
    np.add.at(by_bin, place + 1, groups)
    below = np.cumsum(by_bin, axis=0)[sorted(cuts)]  # (cuts, 3)
    start, end = np.triu_indices(len(cuts), 1)
    inside = below[end] - below[start]
    differ = groups.sum(axis=0) + inside.sum(axis=1, keepdims=True) - 2 * inside
    return bool(np.any((differ > 0) & (differ < minimum_count)))


def _joined(positions: Sequence[int], minimum_count: int) -> list[int]:
    """Positions between the first and the last that leave so many patients on either side, so that few bins are lost.

    Of all ways the one in which the fewest patients, times the bins joined beyond the first, are in joined bins.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(positions)):
        ways = [
            (best[start][0] + (positions[end] - positions[start]) * (end - start - 1), start)
            for start in range(end)
            if positions[end] - positions[start] >= minimum_count
        ]
        best.append(min(ways, default=(np.inf, 0)))
    found, at = [], len(positions) - 1
    while at and np.isfinite(best[at][0]):
        at = best[at][1]
        found.append(positions[at])
    return found[-2::-1] if found else []


def _roundness(edge_years: float) -> int:
    """The place of the largest round number that divides an edge."""
    return next((k for k, width in enumerate(_ROUND_YEARS) if edge_years % width == 0), len(_ROUND_YEARS))


@dataclass(frozen=True)
class _Before:
    """An earlier table in today's order of ages: how many patients below some places (P,) were in each cell (P, c)."""

    places: Cells
    running: Cells
    sizes: Cells

    @classmethod
    def of(cls, earlier: EarlierCells, order: NDArray[np.intp], *, places: Cells) -> _Before:
        cell, cells = earlier.cell[order], earlier.sizes.size
        part = np.searchsorted(places, np.arange(order.size), side="right") - 1
        was = cell >= 0
        counts = np.bincount(part[was] * cells + cell[was], minlength=places.size * cells).reshape(-1, cells)
        running = np.concatenate([np.zeros((1, cells), dtype=np.int64), np.cumsum(counts, axis=0)[:-1]])
        return cls(places, running, earlier.sizes)

    def has_near(self, runs: Sequence[tuple[int, int]], minimum_count: int) -> bool:
        """Whether one of the runs differs from a run of these cells for a few patients, and not for none.

        |U Δ V| = |U| + |V| − 2 |U ∩ V|, so the nearest run V of cells is the one of the largest Σ (2 |U ∩ c| − |c|). If
        that is U itself, every other run differs by whole cells.
        """
        starts, ends = np.array(runs).T
        inside = self.running[np.searchsorted(self.places, ends)] - self.running[np.searchsorted(self.places, starts)]
        gain = np.cumsum(2 * inside - self.sizes, axis=1)
        gain = np.concatenate([np.zeros((len(runs), 1), dtype=np.int64), gain], axis=1)
        best = (gain[:, 1:] - np.minimum.accumulate(gain[:, :-1], axis=1)).max(axis=1)
        differ = ends - starts - best
        return bool(np.any((differ > 0) & (differ < minimum_count)))
