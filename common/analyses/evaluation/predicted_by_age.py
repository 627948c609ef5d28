"""Counts of predicted against chronological age, what a picture of the predictions needs.

Cells with few patients are withheld at the site, before anything leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses._age_bins import age_edges, bin_of
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, OneExchange, Outcome
from fedage.common.analyses.bias.gap_by_age import RAW
from fedage.common.analyses.bias.results import GapsByAge
from fedage.common.analyses.columns import MAX_PATIENTS, in_subset, is_usable, usable
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.evaluation.results import CountsByAge, cells_are_drawn, withheld_share
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.analyses.of_file import has_predictions
from fedage.common.campaign.types import Campaign
from fedage.common.presentation.blocks import Display, FigureBlock, Section
from fedage.common.presentation.participation import drawn, has_predicted_ages
from fedage.common.record.results import Results
from fedage.common.statistics.age_cuts import bins_between, cuts_of
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.disclosure import suppress_by_row
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic


@dataclass(frozen=True)
class PredictedByAge(OneExchange):
    """Counts of patients by bin of chronological age (rows) and of predicted age (columns).

    Result: `n`, `left_out`, `withheld` (patients in small cells), `edges_years`, `counts` (rows of lists).
    """

    name: str
    edges_years: tuple[float, ...]
    _: KW_ONLY
    subset: str = "is_test"
    prediction: str = "predicted_years"
    minimum_count: int = 1
    cuts: frozenset[int] | None = None
    per_site: bool = False

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        bins = len(self.edges_years) - 1
        return Layout(
            (
                Field("n", lower=0.0, upper=MAX_PATIENTS, whole=True),
                *left_out_fields(),
                Field("withheld", lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("counts", (bins, bins), lower=0.0, upper=MAX_PATIENTS, whole=True),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept, left_out = usable(in_subset(cohort, self.subset), ("age_years", self.prediction))
        bins = len(self.edges_years) - 1
        cell = bin_of(kept["age_years"], self.edges_years) * bins + bin_of(kept[self.prediction], self.edges_years)
        table = np.bincount(cell, minlength=bins * bins).reshape(bins, bins).astype(np.float64)
        # The rows' totals are what `GapByAge` gives, so what is withheld in a row must not follow from them either.
        safe = suppress_by_row(table, self.minimum_count, rows=self._told(kept))
        values: dict[str, FloatArray | float] = {
            "n": kept.n,
            **left_out_values(left_out),
            "withheld": safe.withheld,
            "counts": safe.counts,
        }
        cells = [
            Cell(kept.n, "patients with a prediction"),
            Cell(safe.withheld, "patients in withheld cells"),
            *(Cell(int(count), "patients of one chronological and predicted age") for count in safe.counts.ravel()),
        ]
        return Statistic.of(self.layout(iterate), values, cells)

    def binned(self, cohort: Cohort) -> NDArray[np.bool_]:
        """Whoever has a prediction."""
        return is_usable(cohort, ("age_years", self.prediction), subset=self.subset)

    def telling(self, cuts: frozenset[int]) -> PredictedByAge:
        """With rows between these cuts only."""
        return replace(self, cuts=cuts)

    def counted(self, iterate: Iterate) -> tuple[str, int]:  # noqa: ARG002 - the same for all
        """One grid: the cells of a coarser one less those of a finer one are of few patients."""
        return "grid", 1

    @property
    def edges_counted(self) -> FloatArray:
        """What is counted."""
        return np.array(self.edges_years)

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        return columns_read(in_subset(cohort, self.subset), needed=("age_years", self.prediction))

    def _told(self, kept: Cohort) -> NDArray[np.bool_]:
        """The rows that may be told."""
        cuts = self.cuts
        if cuts is None:
            cuts = cuts_of(kept["age_years"], self.edges_years, minimum_count=self.minimum_count)
        return bins_between(cuts, len(self.edges_years) - 1)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        if total.scalar("n") < 1:
            return NotComputable(f"no patient with {self.subset} = 1, an age and {self.prediction}")
        return Done(
            {
                "n": round(total.scalar("n")),
                **left_out_result(total),
                "withheld": round(total.scalar("withheld")),
                "edges_years": list(self.edges_years),
                "counts": np.rint(total["counts"]).astype(int).tolist(),
            }
        )


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    if has_predictions(campaign):
        edges = age_edges(campaign.cohort.age_min_years, campaign.cohort.age_max_years)
        yield Step(PredictedByAge(NAME, edges, minimum_count=campaign.cell_minimum), ("predicted_years",))


NAME = "predicted-by-age"


def _shown(results: Results) -> Display:
    if not has_predicted_ages(results):
        return Display()
    counts, why = results.outcome(NAME, CountsByAge)
    gaps, _ = results.outcome(RAW, GapsByAge)

    def figure() -> str | None:
        from fedage.common.analyses.evaluation._predicted_by_age_figure import predicted_by_age

        return predicted_by_age(counts, gaps)

    caption = (
        f"{drawn(results)} by chronological age and raw predicted age. On the dashed line the prediction is right."
        f"{_means_by_age(results)}{_cells(results)}"
    )
    drawing = FigureBlock(figure, caption, "no site released it" if why is None else why)
    section = Section("ages", "Predicted age", (drawing,), place=10, reasons_once=True)
    return Display(sections=(section,))


def _means_by_age(results: Results) -> str:
    gaps, _ = results.outcome(RAW, GapsByAge)
    if gaps is None or all(mean is None for mean in gaps.mean_years):
        return ""
    return (
        " A point is the mean predicted age of an age bin, drawn at the middle of the bin, and its bar one standard "
        "deviation of the predicted age difference."
    )


def _cells(results: Results) -> str:
    counts, _ = results.outcome(NAME, CountsByAge)
    if counts is None:
        return ""
    share = withheld_share(counts)
    if cells_are_drawn(counts):
        withheld = (
            f" {counts.withheld} patients ({_percent(share)}) are not in the counts: their sites withhold small cells."
            if counts.withheld
            else ""
        )
        return f" The number in a cell is how many patients it holds.{withheld}"
    return (
        f" Counts by cell are not drawn: {_percent(share)} of the patients are in small cells, which sites withhold. "
        "The rest would show another distribution than all patients have."
    )


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


ANALYSIS = Definition(
    name=NAME,
    result=CountsByAge,
    steps=_steps,
    words=lambda step: "the figure of predicted ages",  # noqa: ARG005 - there is one
    shown=_shown,
    place=30,
)
