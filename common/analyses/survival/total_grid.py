"""The intervals of survival tables where single sites' counts are hidden: enough patients of all sites together.

Under secure aggregation the coordinator sees sums over all sites only, so the minimum count is asked of these. Then
small hospitals coarsen nothing, and the tables of many of them are those of all their patients pooled.

The grid is settled from coarse to fine. Asked first is one interval up to the last table time; an interval is split at
its middle table time where every kind of its patients (with an event, leaving without one; in each group of each table)
is nobody or at least `ENOUGH` times the minimum count. If a half then holds fewer than the minimum count of a kind, or
so few are followed beyond it, the split is taken back and the interval stays. So every count that is published is 0 or
at least the minimum count.

Attack: two grids of the same patients, subtracted. Rule: intervals are halves of halves, always at the same table times
(a site refuses others), and tables are given for one grid of a campaign's patients, or a coarser one (`table_grids`).
Another: tables by two columns that differ for few. Rule: a column is held against those by which sums left before, but
for the times of the follow-up.
Residual risk: the coordinator sees the two halves of a split that is taken back: a small count of all sites together,
which stands in no result. A coordinator that splits where too few are left is not noticed by the sites, which never see
a total.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np

from fedage.common.analyses._median import bracket
from fedage.common.analyses.base import Again, Done, GridAsked, Iterate, IterateRefused, NotComputable, Outcome, Result
from fedage.common.analyses.columns import MAX_PATIENTS
from fedage.common.analyses.survival._intervals import SiteTable, all_at_table_times, ends_of, flags
from fedage.common.analyses.survival.follow_up import FollowedPatients, after_start
from fedage.common.analyses.survival.table_grid import TableGrid
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

ENOUGH = 2
"""Minimum counts that an interval holds of each kind, or none, to be split: so many that its halves may hold enough."""
_BLOCKS = ("ends", "tried", "settled")


@dataclass(frozen=True)
class TotalGrid(TableGrid):
    """As `TableGrid`, with the minimum count asked of the sum over the sites; the result has the same parts."""

    of_total: ClassVar[bool] = True
    """A site lets its own small counts pass: they leave in hidden sums only."""

    @classmethod
    def of(cls, grid: TableGrid) -> TotalGrid:
        """The same as a grid of hidden sums."""
        return cls(**{field.name: getattr(grid, field.name) for field in fields(grid)})

    def grid_asked(self, iterate: Iterate) -> GridAsked | None:  # noqa: ARG002 - halves are the same for all
        return None

    def followed_by(self) -> tuple[str, ...]:
        """The columns of the follow-up that are held against earlier ones: where events come early, times are near
        the events at a small site, and no sums of the two would ever leave together.
        """
        return (self.event,)

    def site_table(self, patients: FollowedPatients, split: float) -> SiteTable:
        return TableGrid.site_table(replace(self, minimum_count=1), patients, split)

    def first(self) -> Iterate:
        if self._has_median:
            return {}
        return self._ask_cells({"split": np.asarray(0.0)} if self.gap else {}, (len(self.times) - 1,))

    def check(self, iterate: Iterate) -> None:
        if not iterate and self._has_median:
            return
        times = len(self.times)
        self.check_groups(iterate, blocks=dict.fromkeys(_BLOCKS, (times,)))
        if not all(np.isin(iterate[name], (0.0, 1.0)).all() for name in _BLOCKS):
            raise IterateRefused("iterate ends, tried and settled must be 0 or 1 for each table time")
        ends = set(ends_of(iterate["ends"]))
        if times - 1 not in ends or not _are_halves(ends, -1, times - 1):
            raise IterateRefused("iterate ends must be halves of halves of the table times, up to the last one")

    def layout(self, iterate: Iterate) -> Layout:
        if self._finds_median(iterate):
            return super().layout(iterate)
        size = (len(ends_of(iterate["ends"])), self._groups)
        return Layout(
            (
                Field("events", size, lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("censored", size, lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("n", (self._groups,), lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("between_table_times", lower=0.0, upper=1.0, whole=True),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        if self._finds_median(iterate):
            return super().local(cohort, iterate)
        patients, layout = self.followed(cohort, self._gap_columns), self.layout(iterate)
        table = self.site_table(patients, float(iterate.get("split", 0.0)))
        ends = ends_of(iterate["ends"])
        cells = [table.cells(after, end) for after, end in zip((-1, *ends), ends, strict=False)]
        values: dict[str, FloatArray | float] = {
            "events": np.array([cell[0] for cell in cells], dtype=np.float64),
            "censored": np.array([cell[1] for cell in cells], dtype=np.float64),
            "n": table.n.astype(np.float64),
            "between_table_times": float(not all_at_table_times(patients.time, self.times)),
        }
        return Statistic.of(layout, values, [Cell(patients.n, "patients followed")])

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        if self._finds_median(iterate):
            within = bracket(total)
            if within is None:
                return NotComputable(f"no patient with a follow-up time, an event of 0 or 1, and {self.gap}")
            low, high = within
            split = {"split": np.asarray((low + high) / 2), "low": np.asarray(low), "high": np.asarray(high)}
            return Again(self._ask_cells(split, (len(self.times) - 1,)))
        if total["n"].sum() < 1:
            return NotComputable("no patient with a follow-up time and an event of 0 or 1")
        ends, events, censored = list(ends_of(iterate["ends"])), total["events"], total["censored"]
        settled, rest = set(ends_of(iterate["settled"])), total["n"] - np.cumsum(events + censored, axis=0)
        for tried in ends_of(iterate["tried"]):
            j = ends.index(tried)
            halves = (events[j], events[j + 1], censored[j], censored[j + 1], rest[j])
            if any(map(self._small, halves)):
                events, censored = (_joined(counts, j) for counts in (events, censored))
                rest = np.delete(rest, j, axis=0)
                settled.add(ends[j + 1])
                del ends[j]
        middles = {
            (after + end) // 2
            for after, end, *kinds in zip((-1, *ends), ends, events, censored, strict=False)
            if end - after > 1 and end not in settled and not any(self._small(kind, times=ENOUGH) for kind in kinds)
        }
        groups = {name: iterate[name] for name in self._split_blocks()}
        if middles:
            return Again(self._ask_cells(groups, tuple(sorted({*ends, *middles})), tried=middles, settled=settled))
        first = [any(map(self._small, kinds)) for kinds in zip(events, censored, strict=True)]
        if len(ends) == 1 and first[0]:
            return NotComputable(f"fewer than {self.minimum_count} patients of all sites have an event, or leave")
        while ends and self._small(rest[len(ends) - 1]):
            ends.pop()
        shown = after_start([self.times[end] for end in ends])
        if not shown:
            return NotComputable(
                f"there is no table time beyond which nobody or at least {self.minimum_count} patients of all sites "
                "are followed; name earlier survival.table_times_years"
            )
        between = total.scalar("between_table_times") > 0
        return Done(
            {
                "ends": ends,
                "table_times": shown,
                "asked_times": after_start(self.times),
                "exact": len(ends) == len(self.times) and not between,
                "split_years": float(iterate["split"]) if self.gap else None,
                "median_within_years": [float(iterate["low"]), float(iterate["high"])] if "low" in iterate else None,
            }
        )

    def costs(self, by_site: Mapping[str, Statistic], iterate: Iterate) -> list[Result]:  # noqa: ARG002 - no site does
        return []

    @property
    def _groups(self) -> int:
        """Groups of all tables together, as `site_table` has them."""
        counts = [2 if self.gap else 1]
        counts += [int(np.prod([len(level) for level in levels], dtype=np.int64)) + 1 for _, levels in self.strata]
        return sum(counts) + (int(np.prod(counts)) if len(counts) > 1 else 0)

    def _small(self, counts: FloatArray, *, times: int = 1) -> bool:
        return bool(np.any((counts > 0) & (counts < times * self.minimum_count)))

    def _ask_cells(
        self,
        groups: Mapping[str, FloatArray],
        ends: tuple[int, ...],
        *,
        tried: Collection[int] = (),
        settled: Collection[int] = (),
    ) -> dict[str, FloatArray]:
        flagged = zip(_BLOCKS, (ends, sorted(tried), sorted(settled)), strict=True)
        return {**groups, **{name: flags(indices, len(self.times)) for name, indices in flagged}}


def _joined(counts: FloatArray, j: int) -> FloatArray:
    """Counts (J, G) with row j in the next one."""
    found = np.delete(counts, j, axis=0)
    found[j] = counts[j] + counts[j + 1]
    return found


def _are_halves(ends: set[int], after: int, end: int) -> bool:
    """Whether the ends inside an interval come of splitting it, and its halves, at the middle."""
    inside = {other for other in ends if after < other < end}
    if not inside:
        return True
    middle = (after + end) // 2
    return middle in inside and _are_halves(ends, after, middle) and _are_halves(ends, middle, end)
