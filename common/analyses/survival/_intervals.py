"""How a site's patients leave the intervals between table times, and which intervals hold enough of them.

Notation: T table times, an interval (a, b] from after table time a up to table time b, by index (a = −1: from the
start). G groups: those of every table that the campaign file asks for, one after the other. In an interval and group,
d patients have an event, c leave without one (are censored), and the rest is still followed after b.

An interval can be told if d, c and the rest of every group are 0 or at least the minimum count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.base import Result
from fedage.common.analyses.survival.follow_up import table_index
from fedage.common.statistics.statistic import Cell, FloatArray

_AT_TABLE_TIME = 1e-6
"""Years between a time and a table time that are one: a file writes 1/365.25 with so many digits."""

Counts = NDArray[np.intp]


@dataclass(frozen=True)
class SiteTable:
    """Counts of one site by table time.

    Parameters
    ----------
    n
        Patients of each group, (G,).
    deaths, censored
        With an event, or censored, up to each table time, (T + 1, G); the first row is 0.
    deaths_at, censored_at
        Those of them who leave exactly at the table time, (T, G).
    minimum_count
        Fewest patients of a cell.
    allowed
        Indices of the table times at which an interval may end; None for all.
    """

    n: Counts
    deaths: Counts
    censored: Counts
    deaths_at: Counts
    censored_at: Counts
    minimum_count: int
    allowed: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        time: FloatArray,
        event: NDArray[np.bool_],
        partitions: Sequence[tuple[NDArray[np.intp], int]],
        *,
        times: tuple[float, ...],
        minimum_count: int,
        allowed: tuple[int, ...] | None = None,
    ) -> SiteTable:
        """Count patients (n,) by groups; each partition is the group of each patient and how many groups it has."""
        slots, leaves = len(times) + 1, table_index(time, times)
        exact = at_table_time(time, leaves, times)
        tables: list[list[Counts]] = [[], [], [], [], []]
        for group, groups in partitions:
            tables[0].append(np.bincount(group, minlength=groups)[None])
            for place, chosen in enumerate((event, ~event, event & exact, ~event & exact), start=1):
                cell = leaves[chosen] * groups + group[chosen]
                tables[place].append(np.bincount(cell, minlength=slots * groups).reshape(slots, groups)[:-1])
        n, deaths, censored, deaths_at, censored_at = (np.concatenate(columns, axis=1) for columns in tables)
        start = np.zeros((1, deaths.shape[1]), dtype=np.intp)
        return cls(
            n=n[0],
            deaths=np.concatenate([start, np.cumsum(deaths, axis=0)]),
            censored=np.concatenate([start, np.cumsum(censored, axis=0)]),
            deaths_at=deaths_at,
            censored_at=censored_at,
            minimum_count=minimum_count,
            allowed=allowed,
        )

    def cells(self, after: int, end: int) -> Counts:
        """Events, censored and rest of the interval (after, end], (3, G)."""
        d, c = self.deaths[end + 1] - self.deaths[after + 1], self.censored[end + 1] - self.censored[after + 1]
        return np.stack([d, c, self.n - self.deaths[end + 1] - self.censored[end + 1]])

    def can_tell(self, after: int, end: int) -> bool:
        """Whether the interval holds nobody or enough patients in every cell, and may end there."""
        return (self.allowed is None or end in self.allowed) and not self._small(self.cells(after, end))

    def can_tell_all(self, ends: Sequence[int]) -> bool:
        """Whether every interval between these ends can be told."""
        return all(self.can_tell(after, end) for after, end in zip((-1, *ends), ends, strict=False))

    def next_end(self, after: int, earliest: int) -> int | None:
        """The first table time from `earliest` on that can end the interval; None if none can."""
        return next((end for end in range(earliest, len(self.deaths_at)) if self.can_tell(after, end)), None)

    def single_intervals(self, end: int) -> int:
        """How many intervals of one table time each can be told after `end`, one after the other."""
        for following in range(end + 1, len(self.deaths_at)):
            if not self.can_tell(following - 1, following):
                return following - 1 - end
        return len(self.deaths_at) - 1 - end

    def nearest_cell(self) -> Cell:
        """A cell that keeps the site from telling any interval, for the guard."""
        by_end = [self.cells(-1, end) for end in range(len(self.deaths_at))]
        small = [int(cells[(cells > 0) & (cells < self.minimum_count)].min()) for cells in by_end if self._small(cells)]
        return Cell(min(small, default=0), "patients with an event, without one, or still followed at any table time")

    def told_exactly(self, ends: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """For each interval whether its events, and its censored, are told apart by being at its end or before, (J,).

        Only if both parts hold nobody or enough patients in every group of every table, so that no two tables can be
        subtracted. In the last interval the censored at its end are told with the rest.
        """
        events, censored = [], []
        for after, end in zip((-1, *ends), ends, strict=False):
            d, c, rest = self.cells(after, end)
            d_at, c_at = self.deaths_at[end], self.censored_at[end]
            parts_c = (c - c_at, rest + c_at) if end == ends[-1] else (c - c_at, c_at)
            events.append(not self._small(np.stack([d - d_at, d_at])))
            censored.append(not self._small(np.stack(parts_c)))
        return np.array(events, dtype=bool), np.array(censored, dtype=bool)

    def _small(self, cells: Counts) -> bool:
        return bool(np.any((cells > 0) & (cells < self.minimum_count)))


def at_table_time(time: FloatArray, leaves: NDArray[np.intp], times: tuple[float, ...]) -> NDArray[np.bool_]:
    """Whether each time (n,) is the table time at which it is counted; true beyond the last one."""
    ends = np.append(np.asarray(times), np.inf)[leaves]
    beyond = leaves == len(times)
    at_end: NDArray[np.bool_] = beyond | (ends - time <= _AT_TABLE_TIME)
    return at_end


def all_at_table_times(time: FloatArray, times: tuple[float, ...]) -> bool:
    """Whether each time (n,) is a table time, or beyond the last one."""
    return bool(at_table_time(time, table_index(time, times), times).all())


def flags(ends: Sequence[int], times: int) -> FloatArray:
    """Ends of intervals as 0 and 1 for each table time, (T,): how an iterate says them."""
    flagged = np.zeros(times)
    flagged[list(ends)] = 1.0
    return flagged


def ends_of(block: FloatArray) -> tuple[int, ...]:
    """The indices of the table times that are flagged."""
    return tuple(int(end) for end in np.flatnonzero(block))


def latest_sites(
    next_ends: Mapping[str, int], times: tuple[float, ...], *, settled: tuple[int, ...], earliest: int
) -> list[Result]:
    """The sites whose next interval ends latest, where that is after the earliest end asked about, and what it costs.

    Parameters
    ----------
    next_ends
        By site, the index of the table time at which the next interval can end; `len(times)` for none.
    """
    latest = max(next_ends.values(), default=earliest)
    if latest <= earliest:
        return []
    others = [end for end in next_ends.values() if end < latest]
    return [
        {
            "sites": sorted(site for site, end in next_ends.items() if end == latest),
            "from_years": times[settled[-1]] if settled else 0.0,
            "to_years": times[latest] if latest < len(times) else None,
            "others_to_years": times[max(others)] if others else None,
        }
    ]
