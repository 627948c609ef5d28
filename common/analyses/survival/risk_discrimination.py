"""How well predicted risks order patients of one site: C-index over five years, AUC by year, weighted for censoring.

Estimand: pairs of two patients of one site, each site's pairs added up; a site counts by its pairs. Pairs across sites
nobody can count.

* Harrell's C of the five-year risk (`concordance.pairs_of`): pairs in which one is seen to have the event first.
* Uno's C (2011): those pairs with the event within five years, each weighed by 1 / G(T−)², T the event's time.
* AUC by year t (cumulative cases, dynamic controls; Hung and Chiang 2010): cases had the event by t, weigh 1 / G(T−),
  controls were followed to t without it. The score is the risk by year t.

G is the Kaplan-Meier curve of being *censored*, at each site its own: those with an event at a time leave before those
who are censored at it. Mammo-AGE's public code has the curve of the event there, so that its figures differ.

Years of the AUC are table times of the file that the sites have agreed on (`table_grid`), with all cells of tables 0 or
at least the minimum count: nothing else is told of who had the event by when. For pairs and weights, times are rounded
up to `survival.time_grid_years`, as in Cox models.

Attack: a model ranks one patient apart from all others, or few cases make every pair theirs, or a weight is so large
that one case is the sum. Rule: predictions that differ from the most frequent one are a cell, and no patient is in more
than the largest share of the pairs, weighed or not. Residual risk: one sum of pairs for each model; only differential
privacy bounds that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Described

from fedage.common.analyses._shown_in_rows import ShownInRows
from fedage.common.analyses.agreement import rule_of
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
from fedage.common.analyses.columns import MAX_PATIENTS, cells_of_predictions
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.analyses.survival._intervals import ends_of
from fedage.common.analyses.survival.concordance import comparable_of_each, pairs_of
from fedage.common.analyses.survival.follow_up import FollowedPatients, round_up
from fedage.common.analyses.survival.kaplan_meier import KAPLAN_MEIER, KaplanMeier
from fedage.common.campaign.fields import RISK_YEARS, risk_column
from fedage.common.campaign.types import Campaign, Table
from fedage.common.presentation import cells
from fedage.common.record.parts import AnalysisResult, Number, Part
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import InfluenceRefused, InfluenceRule
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

NAME = "risk-discrimination"
_COUNTS = ("concordant", "tied", "comparable")
_WEIGHED = ("weighed_won", "weighed_pairs")
BoolArray = NDArray[np.bool_]


class Options(Table):
    """C-index and AUC by year of predicted risks, pairs of one site, weighted for censoring."""


class YearlyAuc(Part):
    """AUC of the risk by one year."""

    year: int = Described(description="whole years after the exam")
    auc: Number = Described(description="weighed share of pairs of one site in which the case has the larger risk")
    cases: int = Described(description="patients with the event by then")
    controls: int = Described(description="patients followed to then without it")


class RiskDiscrimination(AnalysisResult):
    """Predicted risks, over all sites or at one."""

    n: int = Described(description="patients followed")
    c_index: Number = Described(description="Uno's C over five years, pairs of one site")
    c_index_harrell: Number = Described(description="Harrell's C of the five-year risk, pairs of one site")
    comparable: int = Described(description="pairs of one site of which one is seen to have the event first")
    years: tuple[YearlyAuc, ...] = Described(description="AUC by year, at table times that the sites agreed on")


@dataclass(frozen=True)
class RiskOrder:
    """See the head of this file. It begins as the curves do, with the intervals that the sites agreed on.

    Parameters
    ----------
    tables
        The campaign's Kaplan-Meier curves: whom they are of, and which intervals can be told.
    time_grid_years
        Times are rounded up to multiples of this for pairs and weights.
    rule
        The influence rule; None where single patients may be shown.
    """

    same_sites: ClassVar[bool] = False

    tables: KaplanMeier
    time_grid_years: float = 0.0
    rule: InfluenceRule | None = None
    name: str = NAME
    per_site: bool = True

    @property
    def time(self) -> str:
        return self.tables.time

    @property
    def event(self) -> str:
        return self.tables.event

    @property
    def times(self) -> tuple[float, ...]:
        return self.tables.times

    @property
    def subset(self) -> str | None:
        return self.tables.subset

    @property
    def preceding(self) -> Analysis:
        return self.tables.preceding

    @property
    def rounding(self) -> tuple[str, float]:
        return self.time, self.time_grid_years

    def begin(self, result: Result) -> Iterate:
        return self.tables.begin(result)

    def first(self) -> Iterate:
        raise TypeError(f"{self.name} begins with the result of {self.preceding.name}")

    def check(self, iterate: Iterate) -> None:
        self.tables.check(iterate)

    def thresholds(self, iterate: Iterate) -> dict[str, float]:
        return self.tables.thresholds(iterate)

    def compared(self, cohort: Cohort) -> Cohort:
        return self._followed(cohort).cohort

    def grid_asked(self, iterate: Iterate) -> GridAsked | None:
        return self.tables.grid_asked(iterate)

    def within(self, ends: tuple[int, ...]) -> RiskOrder:
        return replace(self, tables=self.tables.within(ends))

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:
        risks = tuple(risk_column(year) for year in {*self._years(iterate), RISK_YEARS})
        needed = (*self.tables.preceding.followed_by(), *((self.tables.gap,) if self.tables.gap else ()), *risks)
        return columns_read(self._followed(cohort).cohort, needed=needed)

    def _years(self, iterate: Iterate) -> list[int]:
        """The whole years among the intervals' ends."""
        ends = [self.times[end] for end in ends_of(iterate["ends"])]
        return [year for year in range(1, RISK_YEARS + 1) if year in ends]

    def layout(self, iterate: Iterate) -> Layout:
        size = (len(self._years(iterate)),)
        return Layout(
            (
                Field("n", lower=0.0, upper=MAX_PATIENTS, whole=True),
                *left_out_fields(),
                *(Field(name, lower=0.0, upper=MAX_PATIENTS**2, whole=True) for name in _COUNTS),
                *(Field(f"{name}_c", lower=0.0, upper=MAX_PATIENTS**4) for name in _WEIGHED),
                *(Field(name, size, lower=0.0, upper=MAX_PATIENTS, whole=True) for name in ("cases", "controls")),
                *(Field(name, size, lower=0.0, upper=MAX_PATIENTS**3) for name in _WEIGHED),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        patients = self._followed(cohort)
        grid = self.tables.preceding.site_table(patients, float(iterate.get("split", 0.0)))
        if not grid.can_tell_all(ends_of(iterate["ends"])):
            raise IterateRefused("iterate ends has intervals that this site has not said it can tell")
        event, exact = patients.event, patients.time
        time = round_up(exact, self.time_grid_years)
        weight = 1 / still_followed(time, event)
        risk = patients.cohort[risk_column(RISK_YEARS)]
        compared = comparable_of_each(time, event)
        self._require_few_share(compared, compared.sum() / 2)
        first = np.flatnonzero(event & (exact <= RISK_YEARS))
        later = [(time > time[k]) | ((time == time[k]) & ~event) for k in first]
        values: dict[str, FloatArray | float] = {
            "n": patients.n,
            **left_out_values(patients.left_out),
            **dict(zip(_COUNTS, pairs_of(time, event, risk), strict=True)),
            **self._weighed(risk, first, weight**2, later, "_c"),
        }
        rows: dict[str, list[float]] = {name: [] for name in ("cases", "controls", *_WEIGHED)}
        said = [Cell(patients.n, "patients followed"), *cells_of_predictions(risk)]
        for year in self._years(iterate):
            case, control = event & (exact <= year), (exact > year) | ((exact == year) & ~event)
            said += [
                Cell(int(case.sum()), f"patients with the event by year {year}"),
                Cell(int(control.sum()), f"patients followed to year {year} without it"),
            ]
            of_year = patients.cohort[risk_column(year)]
            said += cells_of_predictions(of_year)
            told = self._weighed(of_year, np.flatnonzero(case), weight, [control] * int(case.sum()))
            for name, value in (("cases", case.sum()), ("controls", control.sum()), *told.items()):
                rows[name].append(float(value))
        values |= {name: np.array(row) for name, row in rows.items()}
        return Statistic.of(self.layout(iterate), values, said)

    def _weighed(
        self,
        risk: FloatArray,
        first: NDArray[np.intp],
        weight: FloatArray,
        others: Sequence[BoolArray],
        suffix: str = "",
    ) -> dict[str, float]:
        """Weighed pairs, and those won (ties by half), of patients `first` with an event and each one's others (n,)."""
        of_each, won = np.zeros(risk.size), 0.0
        for k, other in zip(first, others, strict=True):
            of_each[k] += weight[k] * np.count_nonzero(other)
            of_each[other] += weight[k]
            theirs = risk[other]
            won += weight[k] * (np.count_nonzero(theirs < risk[k]) + np.count_nonzero(theirs == risk[k]) / 2)
        pairs = float(of_each.sum() / 2)
        self._require_few_share(of_each, pairs)
        return {f"{_WEIGHED[0]}{suffix}": float(won), f"{_WEIGHED[1]}{suffix}": pairs}

    def _require_few_share(self, of_each: FloatArray, total: float) -> None:
        if self.rule is not None and of_each.size and of_each.max() > self.rule.largest_share * total:
            raise InfluenceRefused("one patient would be in too many of the pairs that can be compared")

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        concordant, tied, comparable = (total.scalar(name) for name in _COUNTS)
        if not comparable:
            return NotComputable("no two patients of one site can be compared")
        years = [
            {"year": year, "auc": won / pairs if pairs else None, "cases": round(cases), "controls": round(controls)}
            for year, won, pairs, cases, controls in zip(
                self._years(iterate), *(total[name] for name in (*_WEIGHED, "cases", "controls")), strict=True
            )
        ]
        weighed = total.scalar("weighed_pairs_c")
        return Done(
            {
                "n": round(total.scalar("n")),
                **left_out_result(total),
                "c_index": total.scalar("weighed_won_c") / weighed if weighed else None,
                "c_index_harrell": (concordant + tied / 2) / comparable,
                "comparable": round(comparable),
                "years": years,
            }
        )

    def _followed(self, cohort: Cohort) -> FollowedPatients:
        """Those of the curves: whoever has a gap has risks too."""
        gap = self.tables.gap
        return self.tables.preceding.followed(cohort, (gap,) if gap else ())


def still_followed(time: FloatArray, event: BoolArray) -> FloatArray:
    """G(T−) of each patient (n,): the share not censored before the patient's time, by Kaplan-Meier.

    Of equal times an event comes before a censoring.

    >>> still_followed(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])).tolist()
    [1.0, 0.75, 0.75, 0.375]
    """
    distinct, place = np.unique(time, return_inverse=True)
    censored = np.bincount(place, weights=~event, minlength=distinct.size)
    at_risk = time.size - np.searchsorted(np.sort(time), distinct, side="left")
    at_risk = at_risk - np.bincount(place, weights=event, minlength=distinct.size)
    left = np.divide(censored, at_risk, out=np.zeros(distinct.size), where=at_risk > 0)
    before: FloatArray = np.concatenate([[1.0], np.cumprod(1 - left)])[:-1][place]
    return before


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:
    curves = steps.get(KAPLAN_MEIER)
    asked = NAME in campaign.analyses.asked_for() and risk_column(RISK_YEARS) in campaign.predicted_columns
    # Hidden from the coordinator, at a small site one case would weigh too much, and a refusal would cost all sites.
    if campaign.survival is None or not isinstance(curves, KaplanMeier) or not asked:
        return
    if campaign.privacy.secure_aggregation:
        return
    order = RiskOrder(curves, time_grid_years=campaign.survival.time_grid_years, rule=rule_of(campaign))
    yield Step(order, ("gap_years", curves.preceding.name))


def _asked(campaign: Campaign) -> Iterator[str]:  # noqa: ARG001 - the same for all
    yield (
        "It asks how well predicted risks foretell who has an event: your site counts its pairs of patients in which "
        "one had it first, and how many the risk orders right, weighed for who was censored before, and at agreed "
        "years who had it by then; your site's own share is told too."
    )


_HEADERS = ("risk", "C-index or AUC", "patients or cases", "controls")


def _rows(result: RiskDiscrimination) -> Iterator[tuple[cells.Cell, ...]]:
    n = cells.count(result.n)
    yield cells.words("C-index over five years (Uno)"), cells.number(result.c_index, 3), n, cells.NONE
    yield cells.words("C-index (Harrell)"), cells.number(result.c_index_harrell, 3), n, cells.NONE
    for one in result.years:
        counts = cells.count(one.cases), cells.count(one.controls)
        yield (cells.words(f"AUC by year {one.year}"), cells.number(one.auc, 3), *counts)


def _sentence(result: RiskDiscrimination) -> str:
    figure = "unknown" if result.c_index is None else f"{result.c_index:.3f}"
    aucs = ", ".join(f"{one.auc:.3f} by year {one.year}" for one in result.years if one.auc is not None)
    return (
        f"Predicted risks order pairs of patients of one site with a C-index of {figure} over five years (weighted "
        f"for censoring; 0.5 is chance){f', with an AUC of {aucs}' if aucs else ''}."
    )


_SHOWN = ShownInRows(
    name=NAME,
    result=RiskDiscrimination,
    words=lambda step: "how well risks order patients",  # noqa: ARG005 - there is one
    rows=_rows,
    headers=_HEADERS,
    title="Predicted risk",
    caption="Order of predicted risks, pairs of one site",
    note="Only pairs of patients of one site are counted. Weights are of the censoring's own Kaplan-Meier curve at "
    "each site. Whether risks are as high as they should be is not told by their order.",
    sentence=_sentence,
    place=62,
)
ANALYSIS = Definition(
    name=NAME,
    result=RiskDiscrimination,
    steps=_steps,
    words=_SHOWN.words,
    builds_on=(KAPLAN_MEIER,),
    options=Options,
    needs_in_words='it is of an estimator with outcome = "risk", at survival.table_times_years, without '
    "privacy.secure_aggregation",
    asked=_asked,
    shown=_SHOWN.shown,
    compared=_SHOWN.compared,
    place=62,
)
