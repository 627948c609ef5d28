"""Who is followed for how long, and how times become a grid.

Two conventions, both "as though": a Cox model by site sees every time *rounded up* to a multiple of the grid; a table
sees every time rounded up to the first table time that is not before it, and whoever is followed for longer than the
last table time as censored there. Events and censorings are rounded alike, so somebody censored between two table
times counts as at risk at the later one. With every distinct time of all patients as table times nothing is rounded,
and the results are those of exact times.

A table would show how many had an event, or left without one, between two table times; where those are few, a site
merges neighbouring table times (`Intervals`) until they are not. It is the same rounding up, only coarser at that site:
its patients then leave at the end of a longer interval, and results are those of such times (a patient lost early in
it counts as at risk until its end, so a curve lies a little higher than that of exact times). Merging is the site's own
and starts from all patients followed, whatever an analysis compares, so that every table of a site has its ends among
the same ones and no two of them differ by a smaller cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses._columns import in_subset, require_binary, usable
from fedage.common.cohort import Cohort
from fedage.common.statistic import Cell, FloatArray

_ROUNDING = 1e-9  # of a step: 1.1 / 0.1 is 11.000000000000002


@dataclass(frozen=True)
class Followed:
    """The patients a survival analysis takes.

    Parameters
    ----------
    cohort
        Complete in every needed column.
    time
        Follow-up (n,), in the unit of the outcome column (years).
    event
        (n,), true for an event, false for a censored patient.
    left_out
        Patients of the subset with a missing or impossible value.
    """

    cohort: Cohort
    time: FloatArray
    event: NDArray[np.bool_]
    left_out: int

    @property
    def n(self) -> int:
        """Number of patients followed."""
        return self.cohort.n


def followed(cohort: Cohort, *, subset: str | None, time: str, event: str, needed: tuple[str, ...]) -> Followed:
    """The patients of `subset` with a time ≥ 0, an event and every `needed` column; the others are left out, counted.

    Raises
    ------
    UnusableColumn
        If the event is coded otherwise than 1 and 0.
    """
    # Of the whole cohort, so that whether a column is refused does not depend on whom an analysis takes.
    require_binary(cohort, event, meaning="1 (event) and 0 (censored)")
    chosen = in_subset(cohort, subset)
    kept, left_out = usable(chosen, (time, event, *needed))
    valid = kept[time] >= 0
    left_out += int(np.count_nonzero(~valid))
    kept = kept.where(valid)
    return Followed(cohort=kept, time=kept[time], event=kept[event] == 1, left_out=left_out)


def round_up(time: FloatArray, grid: float) -> FloatArray:
    """Times (n,) rounded up to multiples of `grid`; as they are if `grid` is 0."""
    if grid == 0:
        return time
    rounded: FloatArray = np.ceil(time / grid - _ROUNDING) * grid
    return rounded


def table_index(time: FloatArray, table_times: tuple[float, ...]) -> NDArray[np.intp]:
    """For each time (n,) the index k of the first table time ≥ it, or T if it is beyond the last: at risk at 0 … k."""
    return np.searchsorted(np.asarray(table_times) * (1 + 1e-12), time, side="left")


@dataclass(frozen=True)
class Intervals:
    """Which table times a site keeps: interval k is what lies after table time k − 1 and up to table time k.

    Parameters
    ----------
    ends
        (T,), for each interval the index of the table time at which its patients are counted; k where nothing is
        merged. The last table time always stays.
    """

    ends: NDArray[np.intp]

    @classmethod
    def of_times(cls, table_times: tuple[float, ...]) -> Intervals:
        """Every table time is kept."""
        return cls(np.arange(len(table_times)))

    @property
    def merged(self) -> int:
        """How many table times were merged away."""
        return int(self.ends.size - np.unique(self.ends).size)

    def rounded(self, leaves: NDArray[np.intp]) -> NDArray[np.intp]:
        """Indices from `table_index` (n,), rounded up further; beyond the last table time stays beyond it."""
        return np.append(self.ends, self.ends.size)[leaves]

    def merge(self, cells: NDArray[np.intp], *, minimum_count: int) -> Intervals:
        """The coarser intervals in which every cell (T, c) is empty or holds `minimum_count` patients.

        From the first table time on; what is left over at the end joins the intervals before it. If all together is
        still too small, one interval remains, and the guard withholds it.
        """
        kept: list[tuple[int, NDArray[np.intp]]] = []
        pending = np.zeros(cells.shape[1], dtype=np.intp)
        for end in np.unique(self.ends):
            pending = pending + cells[self.ends == end].sum(axis=0)
            if not _small(pending, minimum_count):
                kept.append((int(end), pending))
                pending = np.zeros_like(pending)
        if pending.any():
            while kept and _small(pending, minimum_count):
                pending = pending + kept.pop()[1]
            kept.append((self.ends.size - 1, pending))
        ends = np.array([end for end, _ in kept])
        return Intervals(ends[np.searchsorted(ends, np.arange(self.ends.size))])


def _small(cells: NDArray[np.intp], minimum_count: int) -> bool:
    return bool(np.any((cells > 0) & (cells < minimum_count)))


def leaving(
    leaves: NDArray[np.intp],
    event: NDArray[np.bool_],
    group: NDArray[np.intp],
    *,
    groups: int,
    times: int,
) -> NDArray[np.intp]:
    """Patients who leave in each interval, (T, groups, 2): with an event, and without one.

    Whoever is followed for longer than the last table time leaves in the last interval without an event, because no
    table tells the two apart.
    """
    without = ~(event & (leaves < times))
    cell = (np.minimum(leaves, times - 1) * groups + group) * 2 + without
    return np.bincount(cell, minlength=times * groups * 2).reshape(times, groups, 2)


def intervals_of_site(
    cohort: Cohort, *, subset: str | None, time: str, event: str, table_times: tuple[float, ...], minimum_count: int
) -> Intervals:
    """The intervals that every table of the site starts from: by all patients followed, in one group."""
    patients = followed(cohort, subset=subset, time=time, event=event, needed=())
    leaves, count = table_index(patients.time, table_times), len(table_times)
    cells = leaving(leaves, patients.event, np.zeros_like(leaves), groups=1, times=count)
    return Intervals.of_times(table_times).merge(cells.reshape(count, -1), minimum_count=minimum_count)


def cells_of_tables(
    counts: NDArray[np.intp], intervals: Intervals, table_times: tuple[float, ...], groups: tuple[str, ...]
) -> list[Cell]:
    """The groups of patients that a table of these intervals describes.

    All others, those at risk and the totals among them, are sums of these, so none is smaller.
    """
    cells = []
    for end in np.unique(intervals.ends):
        inside = counts[intervals.ends == end].sum(axis=0)
        for group, (with_event, without) in zip(groups, inside, strict=True):
            when = f"by {table_times[end]:g} years{f' ({group})' if group else ''}"
            cells += [
                Cell(int(with_event), f"patients with an event {when}"),
                Cell(int(without), f"patients leaving without an event {when}"),
            ]
    return cells


def check_table_times(table_times: tuple[float, ...], analysis: str) -> None:
    """Table times must be positive or zero, and rise."""
    if not table_times or min(table_times) < 0 or np.any(np.diff(table_times) <= 0):
        raise ValueError(f"{analysis}: table times must be at least one and rise, not {table_times}")
