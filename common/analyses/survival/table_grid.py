"""The sites agree on the intervals of their survival tables, before any table leaves.

Every site has to tell its table on the same intervals. If each merged table times for itself, a site would show no
event until its own interval ends while its patients stay at risk in the sum of all, and the curve of all would lie
too high.

The common grid is settled from its start on. Asked for the earliest end of the next interval, each site answers with
the first table time above 0 at which the interval can be told (`_intervals`: everybody who leaves in it, with an event
and without one, and the rest, in every group of every table, are 0 or at least the minimum count). The latest of these
is asked next, until all sites name the same; single intervals that all can tell after it are settled with it. No
interval of the result could end earlier, so the grid is the finest from left to right. It ends where one site can
tell no further interval: beyond it that site's patients are in no table, and a curve would be one of other patients.
Those who leave at 0 are an interval of their own where every site can tell it and the first one after it.

Attack: two grids of the same patients, subtracted, give the patients between their ends. Rule: a site follows one path
of questions a run, whose ends each hold the minimum count at this site, and the first grid of which it gives tables is
the only one, or a coarser one, for all runs and campaigns of the coordinator on these patients
(`fedage.client.consent.accounts.table_grids`). Another attack: tables of patients with and without a covariate that few
lack. Rule: with a minimum count all tables of a campaign are of the same patients, complete in the columns of all of
them. Residual: an end tells that one table time earlier some cell was smaller than the minimum; and campaigns on other
patients, or whose tables need other columns, are not compared with each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from importlib import import_module
from typing import ClassVar, Literal

import numpy as np

from fedage.common.analyses._median import HISTOGRAM, bracket, histograms
from fedage.common.analyses.base import (
    MAX_EXCHANGES,
    Again,
    Analysis,
    Done,
    GridAsked,
    Iterate,
    IterateRefused,
    LeftOutByFile,
    NotComputable,
    Outcome,
    Result,
    check_iterate,
)
from fedage.common.analyses.columns import MAX_GAP_YEARS, MAX_PATIENTS
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.of_file import computed, curves_by, levels_of
from fedage.common.analyses.survival._groups import groups_of_gap, stratum_of
from fedage.common.analyses.survival._intervals import SiteTable, all_at_table_times, ends_of, flags, latest_sites
from fedage.common.analyses.survival.follow_up import (
    FollowedPatients,
    after_start,
    check_table_times,
    followed,
    with_start,
)
from fedage.common.analyses.survival.results import GridResult
from fedage.common.campaign.types import Campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

MOST_QUESTIONS = MAX_EXCHANGES - 10
"""Exchanges in which a grid is settled; the others of the analysis are for where the gap is split. With many table
times the next end asked for lies more than one further on."""

Strata = tuple[tuple[str, ...], tuple[tuple[float, ...], ...]]  # columns to stratify on, and the levels of each


@dataclass(frozen=True)
class TableGrid:
    """The common intervals of the Kaplan-Meier curves, the log-rank test and the Cox models with one baseline hazard.

    With `split_gap_at="median"` a first exchange brackets the median of all sites (`_median`); a patient is high above
    the split and low at or below it.

    Result: `ends` (indices of table times), `table_times` and `asked_times` (those above 0), `exact` (every table time
    is an end, and every time of a patient is a table time or beyond the last), `split_years` and `median_within_years`
    (None where they do not apply).

    Parameters
    ----------
    name
        The registered step.
    times
        Table times in years, rising: where intervals may end.
    gap, split_gap_at
        The groups of the curves, as for `KaplanMeier`.
    strata
        Those of each Cox model with one baseline hazard.
    needed
        Columns of all tables.
    time, event, subset
        As for the Cox models.
    minimum_count
        Fewest patients of a cell that is not empty.
    smallest_site
        A site with fewer patients takes no part in any table.
    allowed
        Indices of the only table times at which an interval may end at this site; None for all.
    """

    same_sites: ClassVar[bool] = False
    of_total: ClassVar[bool] = False

    name: str
    times: tuple[float, ...]
    _: KW_ONLY
    gap: str | None = None
    split_gap_at: Literal["median", "zero"] = "median"
    strata: tuple[Strata, ...] = ()
    needed: tuple[str, ...] = ()
    time: str = "time_years"
    event: str = "event"
    subset: str | None = "is_test"
    minimum_count: int = 1
    smallest_site: int = 0
    allowed: tuple[int, ...] | None = None
    per_site: bool = False

    def __post_init__(self) -> None:
        check_table_times(self.times, self.name)

    def followed(self, cohort: Cohort, needed: tuple[str, ...]) -> FollowedPatients:
        """The patients of a table that needs these columns.

        Raises
        ------
        LeftOutByFile
            If the campaign file leaves sites with so few patients out.
        """
        columns = tuple(dict.fromkeys((*self.needed, *needed))) if self.minimum_count > 1 else needed
        patients = followed(cohort, subset=self.subset, time=self.time, event=self.event, needed=columns)
        if patients.n < self.smallest_site:
            raise LeftOutByFile(
                f"fewer than {self.smallest_site} patients with a follow-up: the campaign file leaves such a site out "
                "of curves and of models with one baseline hazard (survival.curves_from_patients)"
            )
        return patients

    def site_table(self, patients: FollowedPatients, split: float) -> SiteTable:
        """The site's counts by table time, in the groups of all tables and those who are in the same ones of each."""
        cohort = patients.cohort
        partitions = [groups_of_gap(cohort, self.gap, split)]
        for columns, levels in self.strata:
            stratum = stratum_of(cohort, columns, levels)
            count = int(np.prod([len(level) for level in levels], dtype=np.int64))
            partitions.append((np.where(stratum < 0, count, stratum), count + 1))
        if len(partitions) > 1:
            # Two tables by nearly the same groups are subtracted to those in whom they differ.
            both, groups = partitions[0]
            for group, count in partitions[1:]:
                both, groups = both * count + group, groups * count
            partitions.append((both, groups))
        return SiteTable.of(
            patients.time,
            patients.event,
            partitions,
            times=self.times,
            minimum_count=self.minimum_count,
            allowed=self.allowed,
        )

    def check_groups(self, iterate: Iterate, *, blocks: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse an iterate that has not these blocks and the groups' split.

        Raises
        ------
        IterateRefused
            With the block and the rule it breaks.
        """
        shapes = {**blocks, **self._split_blocks()}
        check_iterate(iterate, shapes, bound=max(MAX_GAP_YEARS, 1.0 + len(self.times), MOST_QUESTIONS))
        if "split" in shapes and np.abs(iterate["split"]) > MAX_GAP_YEARS:
            raise IterateRefused(f"iterate split must be within ±{MAX_GAP_YEARS:g} years")
        if "split" in shapes and "low" not in shapes and iterate["split"] != 0:
            raise IterateRefused("iterate split must be 0: the campaign file splits the gap at zero")
        if "low" in shapes and not iterate["low"] <= iterate["split"] <= iterate["high"]:
            raise IterateRefused("iterate split must lie between low and high, which enclose the median")
        if not np.all(np.isin(iterate["ends"], (0.0, 1.0))):
            raise IterateRefused("iterate ends must be 0 or 1 for each table time")

    def groups_begun(self, result: Result) -> dict[str, FloatArray]:
        """The blocks of an iterate that say the groups and the intervals of this grid's result."""
        blocks = {"ends": flags(result["ends"], len(self.times))}
        if self.gap:
            blocks["split"] = np.asarray(result["split_years"])
        if result["median_within_years"] is not None:
            low, high = result["median_within_years"]
            blocks |= {"low": np.asarray(low), "high": np.asarray(high)}
        return blocks

    def _split_blocks(self) -> dict[str, tuple[int, ...]]:
        if not self.gap:
            return {}
        return {"split": ()} if self.split_gap_at == "zero" else {"split": (), "low": (), "high": ()}

    def first(self) -> Iterate:
        if self._has_median:
            return {}
        return self._ask({"split": np.asarray(0.0)} if self.gap else {}, (), self._first_after_start, 1)

    def check(self, iterate: Iterate) -> None:
        if not iterate and self._has_median:
            return
        self.check_groups(iterate, blocks={"ends": (len(self.times),), "following": (), "question": ()})
        ends, following = ends_of(iterate["ends"]), float(iterate["following"])
        if following not in range(ends[-1] + 1 if ends else self._first_after_start, len(self.times)):
            raise IterateRefused("iterate following must be a table time after the settled ends")
        if iterate["question"] not in range(1, MOST_QUESTIONS + 1):
            raise IterateRefused(f"iterate question must be 1 to {MOST_QUESTIONS}")

    def thresholds(self, iterate: Iterate) -> dict[str, float]:
        return {str(self.gap): float(iterate["split"])} if self._has_median and iterate else {}

    def compared(self, cohort: Cohort) -> Cohort:
        return self.followed(cohort, self._gap_columns).cohort

    def grid_asked(self, iterate: Iterate) -> GridAsked | None:
        return GridAsked(ends_of(iterate["ends"]), int(iterate["following"])) if iterate else None

    def followed_by(self) -> tuple[str, ...]:
        return self.time, self.event

    def within(self, ends: tuple[int, ...]) -> TableGrid:
        return replace(self, allowed=ends)

    def layout(self, iterate: Iterate) -> Layout:
        if self._finds_median(iterate):
            return HISTOGRAM
        size = (len(self.times) + 1,)
        return Layout(
            (
                *(Field(name, size, lower=0.0, upper=1.0, whole=True) for name in ("next_end", "single_intervals")),
                *(Field(name, lower=0.0, upper=1.0, whole=True) for name in ("start_together", "between_table_times")),
                Field("n", lower=0.0, upper=MAX_PATIENTS, whole=True),
            )
        )

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - the same for all
        strata = [column for columns, _ in self.strata for column in columns]
        needed = (*self.followed_by(), *self._gap_columns, *strata)
        return columns_read(self.followed(cohort, self._gap_columns).cohort, needed=needed)

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        patients = self.followed(cohort, self._gap_columns)
        if self._finds_median(iterate):
            return histograms(patients.cohort[str(self.gap)], minimum_count=self.minimum_count)
        layout, table = self.layout(iterate), self.site_table(patients, float(iterate.get("split", 0.0)))
        ends, earliest = ends_of(iterate["ends"]), int(iterate["following"])
        if not table.can_tell_all(ends):
            raise IterateRefused("iterate ends has intervals that this site has not said it can tell")
        next_index, first = table.next_end(ends[-1] if ends else -1, earliest), self._first_after_start
        if next_index is None and not ends and table.next_end(-1, first) is None:
            nothing = {field.name: np.zeros(field.shape) for field in layout.fields}
            return Statistic.of(layout, nothing, [Cell(patients.n, "patients followed"), table.nearest_cell()])
        next_end, single = np.zeros(len(self.times) + 1), np.zeros(len(self.times) + 1)
        next_end[len(self.times) if next_index is None else next_index] = 1
        single[table.single_intervals(next_index) if next_index == earliest else 0] = 1
        values: dict[str, FloatArray | float] = {
            "next_end": next_end,
            "single_intervals": single,
            "start_together": float(bool(ends) or next_index != earliest or not self._tells_start(table, earliest)),
            "between_table_times": float(not all_at_table_times(patients.time, self.times)),
            "n": patients.n,
        }
        return Statistic.of(layout, values, [Cell(patients.n, "patients followed")])

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        if self._finds_median(iterate):
            within = bracket(total)
            if within is None:
                return NotComputable(f"no patient with a follow-up time, an event of 0 or 1, and {self.gap}")
            low, high = within
            split = {"split": np.asarray((low + high) / 2), "low": np.asarray(low), "high": np.asarray(high)}
            return Again(self._ask(split, (), self._first_after_start, 1))
        if total.scalar("n") < 1:
            return NotComputable("no patient with a follow-up time and an event of 0 or 1")
        groups = {name: iterate[name] for name in self._split_blocks()}
        ends, earliest, question = ends_of(iterate["ends"]), int(iterate["following"]), int(iterate["question"])
        times, latest = len(self.times), int(np.max(np.flatnonzero(total["next_end"]), initial=-1))
        if latest < times and latest > earliest and question < MOST_QUESTIONS:
            return Again(self._ask(groups, ends, latest, question + 1))
        if latest == earliest:
            single = int(np.min(np.flatnonzero(total["single_intervals"]), initial=times - 1 - earliest))
            start = () if ends or total.scalar("start_together") else range(self._first_after_start)
            ends = (*ends, *start, *range(earliest, earliest + single + 1))
            if ends[-1] < times - 1 and question < MOST_QUESTIONS:
                stride = -(-(times - 1 - ends[-1]) // (MOST_QUESTIONS - question))
                return Again(self._ask(groups, ends, ends[-1] + stride, question + 1))
        shown = after_start([self.times[end] for end in ends])
        if not shown:
            return NotComputable(
                "there is no table time up to which every site's patients with an event, those without one, and those "
                f"still followed are none or at least the minimum count ({self.minimum_count} or more); leave out the "
                "sites with few patients (survival.curves_from_patients), or ask for later survival.table_times_years"
            )
        return Done(
            {
                "ends": list(ends),
                "table_times": shown,
                "asked_times": after_start(self.times),
                "exact": len(ends) == times and total.scalar("between_table_times") == 0,
                "split_years": float(iterate["split"]) if self.gap else None,
                "median_within_years": [float(iterate["low"]), float(iterate["high"])] if "low" in iterate else None,
            }
        )

    def costs(self, by_site: Mapping[str, Statistic], iterate: Iterate) -> list[Result]:
        """Which sites make the interval asked about longer than the others need it, or end the grid."""
        if self._finds_median(iterate) or not by_site:
            return []
        answers = {site: np.flatnonzero(statistic["next_end"]) for site, statistic in by_site.items()}
        next_ends = {site: int(answer[0]) for site, answer in answers.items() if answer.size}
        return latest_sites(next_ends, self.times, settled=ends_of(iterate["ends"]), earliest=int(iterate["following"]))

    @property
    def _has_median(self) -> bool:
        return self.gap is not None and self.split_gap_at == "median"

    @property
    def _gap_columns(self) -> tuple[str, ...]:
        return (self.gap,) if self.gap else ()

    def _finds_median(self, iterate: Iterate) -> bool:
        return self._has_median and not iterate

    @property
    def _first_after_start(self) -> int:
        return int(np.searchsorted(np.asarray(self.times), 0.0, side="right"))

    def _tells_start(self, table: SiteTable, end: int) -> bool:
        """Whether those who leave at time 0 can be told apart from those who leave after it, up to this end."""
        return self._first_after_start == 1 and table.can_tell(-1, 0) and table.can_tell(0, end)

    def _ask(
        self, groups: Mapping[str, FloatArray], ends: tuple[int, ...], following: int, question: int
    ) -> dict[str, FloatArray]:
        return {
            **groups,
            "ends": flags(ends, len(self.times)),
            "following": np.asarray(float(following)),
            "question": np.asarray(float(question)),
        }


TABLE_GRID = "table-grid"


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    survival = campaign.survival
    if survival is None or not survival.table_times_years:
        return
    gap, pooled = curves_by(campaign), [model for model in computed(survival) if not model.by_site]
    strata = ((survival.strata, levels_of(survival)),) if pooled else ()
    columns = [gap] if gap else []
    columns += [column for model in pooled for column in (*model.covariates, *survival.strata)]
    grid = TableGrid(
        TABLE_GRID,
        with_start(survival.table_times_years),
        gap=gap,
        split_gap_at="zero" if survival.curves_by else survival.split_gap_at,
        strata=strata,
        needed=tuple(dict.fromkeys(columns)),
        time=survival.time,
        event=survival.event,
        minimum_count=campaign.cell_minimum,
        smallest_site=survival.curves_from_patients,
    )
    if campaign.privacy.secure_aggregation:
        grid = import_module("fedage.common.analyses.survival.total_grid").TotalGrid.of(grid)  # one of these
    yield Step(grid, ("gap_years",))


def _notes(result: Result) -> Iterator[str]:
    agreed, asked = len(result["table_times"]), len(result["asked_times"])
    if agreed < asked:
        yield (
            f"the sites agreed on {agreed} of {asked} table times for curves and models with one baseline hazard, so "
            "that no cell of a table is small at any of them."
        )


ANALYSIS = Definition(
    name=TABLE_GRID,
    result=GridResult,
    steps=_steps,
    words=lambda step: "the agreement on times of tables",  # noqa: ARG005 - there is one
    notes=_notes,
    place=40,
)
