"""Survival curves of high against low gap, and the log-rank test, from tables that add up over sites.

The intervals of the tables are those of a `TableGrid`, the same for all sites; the formulas are in `_curve`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from fedage.common.analyses.base import (
    Analysis,
    Done,
    GridAsked,
    Iterate,
    IterateRefused,
    NotComputable,
    Outcome,
    Result,
)
from fedage.common.analyses.columns import MAX_PATIENTS
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, LeftOut, Step
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.analyses.of_file import NO_TABLES, BoolArray, curves_by, followed_with
from fedage.common.analyses.survival import _curves_compared, _kaplan_meier_shown, table_grid
from fedage.common.analyses.survival._curve import IntervalCounts, curve, grouped_log_rank
from fedage.common.analyses.survival._groups import groups_of_gap
from fedage.common.analyses.survival._intervals import at_table_time, ends_of
from fedage.common.analyses.survival.follow_up import (
    FollowedPatients,
    after_start,
    check_table_times,
    table_index,
    with_start,
)
from fedage.common.analyses.survival.results import Curves
from fedage.common.analyses.survival.table_grid import TABLE_GRID, TableGrid
from fedage.common.campaign.types import Campaign
from fedage.common.presentation.wording import years
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic


@dataclass(frozen=True)
class KaplanMeier:
    """Survival of patients with a high and a low gap, or of all patients where no gap column is named.

    Result: `n`, `events` (up to the end of the curves), `left_out`, `table_times` (ends of the intervals: where the
    curves have points; 0 only where somebody leaves at 0), `asked_times` (of the file, and 0 likewise),
    `merged_table_times` (how many of those are not ends),
    `split_years` and `median_within_years` (None where they do not apply), `groups`: a list of `name`, `n`, `events`,
    and one value an interval: `at_risk` (at its start), `events_at`, `remaining` (followed to its end without an
    event), `survival`, `standard_error`, `ci95_low`, `ci95_high` (None where nobody is at risk or the point is
    refused), `bound_low`, `bound_high` (what grouping leaves open), `refused` (why a point is not given; else empty);
    `median_survival` (None if not reached or not known exactly) and `median_between` (the table times it lies
    between, where not exact); and `log_rank`: `chi2`, `p`, `expected`, `expected_bounds`, `p_bounds` (None without two
    groups and events), or why it is refused in `log_rank_refused`.

    Parameters
    ----------
    name
        The registered step.
    times
        Table times in years, rising. Events after the last one are censored at it.
    gap
        Column that makes the groups, a gap or (split at zero) one of 0 and 1; None for one group.
    split_gap_at
        Median of all sites, or zero.
    time, event, subset
        As for the Cox models.
    minimum_count
        Fewest patients of any group that a table tells (`table_grid`).
    grid
        The intervals shared with other tables; None for intervals of its own.
    """

    same_sites: ClassVar[bool] = False

    name: str
    times: tuple[float, ...]
    _: KW_ONLY
    gap: str | None = "gap_years"
    split_gap_at: Literal["median", "zero"] = "median"
    time: str = "time_years"
    event: str = "event"
    subset: str | None = "is_test"
    minimum_count: int = 1
    grid: TableGrid | None = None
    per_site: bool = False

    def __post_init__(self) -> None:
        check_table_times(self.times, self.name)

    @cached_property
    def preceding(self) -> TableGrid:
        """The intervals' own analysis."""
        return self.grid or TableGrid(
            f"{self.name}:grid",
            self.times,
            gap=self.gap,
            split_gap_at=self.split_gap_at,
            time=self.time,
            event=self.event,
            subset=self.subset,
            minimum_count=self.minimum_count,
        )

    @property
    def _group_names(self) -> tuple[str, ...]:
        if not self.gap:
            return ("all patients",)
        if self.gap.endswith("gap_years"):
            return ("low gap", "high gap")
        return ("female", "male") if self.gap == "is_male" else (f"{self.gap} 0", f"{self.gap} 1")

    def first(self) -> Iterate:
        raise TypeError(f"{self.name} begins with the result of {self.preceding.name}")

    def begin(self, result: Result) -> Iterate:
        exact = {"exact": np.asarray(float(result["exact"]))} if self.of_total else {}
        return {**self.preceding.groups_begun(result), **exact}

    def check(self, iterate: Iterate) -> None:
        exact: dict[str, tuple[int, ...]] = {"exact": ()} if self.of_total else {}
        self.preceding.check_groups(iterate, blocks={"ends": (len(self.times),), **exact})
        if not after_start([self.times[end] for end in ends_of(iterate["ends"])]):
            raise IterateRefused("iterate ends must name at least one table time above 0")

    def thresholds(self, iterate: Iterate) -> dict[str, float]:
        return self.preceding.thresholds(iterate)

    def compared(self, cohort: Cohort) -> Cohort:
        return self._followed(cohort).cohort

    def grid_asked(self, iterate: Iterate) -> GridAsked | None:
        return GridAsked(ends_of(iterate["ends"]), None, of_total=self.of_total)

    @property
    def of_total(self) -> bool:
        return self.preceding.of_total

    def within(self, ends: tuple[int, ...]) -> KaplanMeier:
        return replace(self, grid=self.preceding.within(ends))

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - the same for all
        needed = (*self.preceding.followed_by(), *((self.gap,) if self.gap else ()))
        return columns_read(self._followed(cohort).cohort, needed=needed)

    def layout(self, iterate: Iterate) -> Layout:
        groups, intervals = len(self._group_names), len(ends_of(iterate["ends"]))
        names = ("events", "events_inside", "censored", "censored_at_end")
        return Layout(
            (
                Field("n", (groups,), lower=0.0, upper=MAX_PATIENTS, whole=True),
                *left_out_fields(),
                *(Field(name, (groups, intervals), lower=0.0, upper=MAX_PATIENTS, whole=True) for name in names),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        patients, ends, split = self._followed(cohort), ends_of(iterate["ends"]), float(iterate.get("split", 0.0))
        table = self.preceding.site_table(patients, split)
        if not table.can_tell_all(ends):
            raise IterateRefused("iterate ends has intervals that this site has not said it can tell")
        group, groups = groups_of_gap(patients.cohort, self.gap, split)
        leaves = table_index(patients.time, self.times)
        interval = np.searchsorted(np.array(ends), leaves)
        inside = interval < len(ends)
        at_end = inside & (np.append(np.array(ends), -1)[interval] == leaves)
        at_end &= at_table_time(patients.time, leaves, self.times)

        def count(chosen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> FloatArray:
            cell = interval[chosen & inside] * groups + group[chosen & inside]
            counted = np.bincount(cell, minlength=len(ends) * groups)
            return counted.reshape(len(ends), groups).T.astype(np.float64)

        tell_events, tell_censored = table.told_exactly(ends)
        if self.of_total and not iterate["exact"]:  # who leaves at an end could be few of all sites
            tell_events = tell_censored = np.zeros(len(ends), dtype=bool)
        d, c = count(patients.event), count(~patients.event)
        d_at, c_at = count(patients.event & at_end) * tell_events, count(~patients.event & at_end) * tell_censored
        c_told = c_at.copy()
        c_told[:, -1] = 0.0  # told with those still followed
        n = np.bincount(group, minlength=groups).astype(np.float64)
        values: dict[str, FloatArray | float] = {
            "n": n,
            **left_out_values(patients.left_out),
            "events": d,
            "events_inside": d - d_at,
            "censored": c - c_at,
            "censored_at_end": c_told,
        }
        remaining = _remaining(n, d, c - c_at, c_told)[:, -1]
        return Statistic.of(self.layout(iterate), values, self._cells(ends, values, remaining))

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        n, events, censored = total["n"], total["events"], total["censored"]
        if n.sum() < 1:
            return NotComputable("no patient with a follow-up time and an event of 0 or 1")
        remaining = _remaining(n, events, censored, total["censored_at_end"])
        before = np.concatenate([n[:, None], (remaining - total["censored_at_end"])[:, :-1]], axis=1)
        counts = IntervalCounts(before, events, total["events_inside"], censored, remaining)
        times = tuple(self.times[end] for end in ends_of(iterate["ends"]))
        asked = list(self.times)
        if times[0] == 0 and not (counts.at_risk[:, 0] - counts.remaining[:, 0] + total["censored_at_end"][:, 0]).any():
            times, counts = times[1:], counts.after_first()  # nobody leaves at 0: the curve has no point there
        if 0 not in times:
            asked = after_start(asked)
        groups = [
            {"name": name, "n": round(n[g]), "events": round(events[g].sum()), **curve(times, counts[g])}
            for g, name in enumerate(self._group_names)
        ]
        test, why_no_test = grouped_log_rank(counts) if self.gap else (None, "")
        if test and not all(any(value is not None for value in group["survival"]) for group in groups):
            test, why_no_test = None, "no point of a group's curve is given"
        return Done(
            {
                "n": round(n.sum()),
                "events": round(events.sum()),
                **left_out_result(total),
                "table_times": list(times),
                "asked_times": asked,
                "merged_table_times": len(asked) - len(times),
                "split_years": float(iterate["split"]) if self.gap else None,
                "median_within_years": [float(iterate["low"]), float(iterate["high"])] if "low" in iterate else None,
                "groups": groups,
                "log_rank": test,
                "log_rank_refused": why_no_test,
            }
        )

    def _followed(self, cohort: Cohort) -> FollowedPatients:
        return self.preceding.followed(cohort, (self.gap,) if self.gap else ())

    def _cells(self, ends: Sequence[int], values: dict[str, FloatArray | float], remaining: FloatArray) -> list[Cell]:
        """The groups of patients that the table describes; all others are sums of these."""
        cells = [
            Cell(int(count), f"patients still followed after {years(self.times[ends[-1]])} ({name})")
            for name, count in zip(self._group_names, remaining, strict=True)
        ]
        inside = np.asarray(values["events_inside"])
        parts = {
            "with an event": inside,
            "with an event at the end of the interval": np.asarray(values["events"]) - inside,
            "leaving without an event": np.asarray(values["censored"]),
            "leaving without an event at the end of the interval": np.asarray(values["censored_at_end"]),
        }
        for of, counts in parts.items():
            for name, row in zip(self._group_names, counts, strict=True):
                for end, number in zip(ends, row, strict=True):
                    cells.append(Cell(int(number), f"patients {of} by {years(self.times[end])} ({name})"))
        return cells


def _remaining(n: FloatArray, events: FloatArray, censored: FloatArray, at_end: FloatArray) -> FloatArray:
    """Followed up to each end without an event, (groups, J), those censored at it included."""
    gone = np.cumsum(events + censored + at_end, axis=1)
    remaining: FloatArray = n[:, None] - gone + at_end
    return remaining


KAPLAN_MEIER = "kaplan-meier"


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:
    survival, grid = campaign.survival, steps.get(TABLE_GRID)
    if survival is None or not isinstance(grid, TableGrid):
        return
    curves = KaplanMeier(
        KAPLAN_MEIER,
        with_start(survival.table_times_years),
        gap=curves_by(campaign),
        split_gap_at="zero" if survival.curves_by else survival.split_gap_at,
        time=survival.time,
        event=survival.event,
        minimum_count=1 if campaign.privacy.secure_aggregation else campaign.cell_minimum,
        grid=grid,
    )
    yield Step(curves, (TABLE_GRID,), {"column": curves_by(campaign)})


def _left_out(campaign: Campaign) -> dict[str, LeftOut]:
    if campaign.survival is None or campaign.survival.table_times_years:
        return {}
    return {KAPLAN_MEIER: LeftOut(NO_TABLES, {"column": curves_by(campaign)})}


def _columns(campaign: Campaign) -> Iterator[str]:
    if campaign.survival is not None and campaign.survival.table_times_years and (split := curves_by(campaign)):
        yield split


def _sets(campaign: Campaign, cohort: Cohort) -> Iterator[BoolArray]:
    """Those of the curves' and all other tables by time."""
    for step in table_grid.ANALYSIS.steps(campaign, {}):
        if isinstance(step.analysis, TableGrid):
            yield followed_with(cohort, campaign, step.analysis.needed)


ANALYSIS = Definition(
    name=KAPLAN_MEIER,
    subject="a survival analysis",
    result=Curves,
    steps=_steps,
    words=lambda step: "the Kaplan-Meier estimate",  # noqa: ARG005 - there is one
    builds_on=(TABLE_GRID,),
    columns=_columns,
    sets=_sets,
    left_out=_left_out,
    shown=_kaplan_meier_shown.shown,
    compared=_curves_compared.compared,
    place=42,
)
