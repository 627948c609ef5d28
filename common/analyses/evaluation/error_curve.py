"""The cumulative score curve: CS(t), the fraction of patients whose predicted age is off by at most t years.

Notation: Ω chronological age, ŷ predicted age, e = ŷ − Ω, all in years; t = 0, 1, …, 20. A grid cell holds the
patients with t − 1 < |e| ≤ t; before the first one comes |e| = 0, after the last one |e| > 20: T + 1 cells for T
thresholds.

A site joins neighbouring grid cells until nobody stands alone in one ([own]: microaggregation on a fixed grid), so the
curve it sends is exact at the thresholds where a joined cell ends and between two bounds inside it. The bounds of the
sites add up to bounds of the pooled curve: that is its error, and the result states it at every t.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses._summed import group_of
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, OneExchange, Outcome
from fedage.common.analyses.columns import MAX_PATIENTS
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.evaluation import _error_curves_compared
from fedage.common.analyses.evaluation._judged import judged
from fedage.common.analyses.evaluation.results import CORRECTED, CS_YEARS, TEST, CumulativeScores
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.analyses.of_file import has_predictions
from fedage.common.campaign.types import Campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

THRESHOLDS_YEARS = tuple(float(t) for t in range(21))
_CELLS = len(THRESHOLDS_YEARS) + 1
_CUT = THRESHOLDS_YEARS.index(CS_YEARS) + 1
"""Cells before this one are those of CS(≤5), which `Evaluation` tells anyway."""

Counts = NDArray[np.int64]
Spans = list[tuple[int, int]]
"""Joined cells as [first, end) of grid cells, in order and without a gap."""


def join_cells(counts: Counts, minimum: int) -> Spans:
    """Neighbouring cells together so that each span holds at least `minimum` patients; nobody is left out.

    Of all such ways the one that leaves least open: the smallest sum of patients × cells by which a span is too wide.
    No span crosses 5 years unless one side has too few patients for a span of its own: CS(≤5) is known from
    `Evaluation`, so it must cut no small group off a span. Of the two end cells (|e| = 0 and |e| > 20) an empty one may
    stay apart, so that the curve can begin at 0 and end at 1.

    Parameters
    ----------
    counts
        Patients by grid cell, shape (T + 1,).
    minimum
        Fewest patients of a span; with fewer patients in all, everybody is in one span (and the guard blocks it).
    """
    cells = counts.size
    if minimum <= 1:
        return [(cell, cell + 1) for cell in range(cells)]
    # Shortest path: best[end] is the least cost of spans up to `end`, and where the last of them begins.
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, cells + 1):
        ways = [
            (best[first][0] + float(counts[first:end].sum()) * (end - first - 1), first)
            for first in range(end)
            if np.isfinite(best[first][0]) and _may_leave(counts, first, end, minimum)
        ]
        best.append(min(ways, default=(np.inf, 0)))
    if not np.isfinite(best[cells][0]):
        return [(0, cells)]
    spans, end = [], cells
    while end:
        spans.append((best[end][1], end))
        end = best[end][1]
    return spans[::-1]


def _may_leave(counts: Counts, first: int, end: int, minimum: int) -> bool:
    """Whether the cells [first, end) may be one span."""
    patients = counts[first:end].sum()
    if end - first == 1 and first in (0, counts.size - 1) and patients == 0:
        return True
    if patients < minimum:
        return False
    if not first < _CUT < end:
        return True
    sides = counts[:_CUT].sum(), counts[_CUT:].sum()
    parts = counts[first:_CUT].sum(), counts[_CUT:end].sum()
    return bool(min(sides) < minimum) and all(
        part in (0, side) or part >= minimum for part, side in zip(parts, sides, strict=True)
    )


def _likely_share(first: int, end: int, spread_years: float) -> FloatArray:
    """Shares (end − first,) of a span's patients in its cells if errors were normal with this spread; they sum to 1."""
    from scipy.special import erfc

    upper = np.array([*THRESHOLDS_YEARS, np.inf])
    beyond = erfc(upper / (np.sqrt(2) * max(spread_years, 1e-3)))
    share: FloatArray = -np.diff(beyond, prepend=1.0)[first:end]
    total = share.sum()
    return share / total if total > 0 else np.full(end - first, 1 / (end - first))


@dataclass(frozen=True)
class ErrorCurve(OneExchange):
    """CS(t) on one part of the patients, without a small cell.

    Result: `n`, `left_out` (a value missing or out of range), `thresholds_years`, and per threshold `cs_low` and
    `cs_high`, which the true fraction lies between, and `cs`, the curve if inside a joined cell errors were distributed
    normally with the site's root mean squared error, which `Evaluation` tells ([own]); `largest_width`, the largest
    `cs_high − cs_low`: 0 if the curve is exact throughout.

    Parameters
    ----------
    name
        The registered step.
    subset
        Column that is 1 for the patients to take.
    prediction
        Column with the predicted age in years.
    minimum_count
        Fewest patients of a cell.
    """

    name: str
    subset: str = "is_test"
    prediction: str = "predicted_years"
    _: KW_ONLY
    minimum_count: int = 1
    healthy_only: bool = False
    per_site: bool = False

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        def counts(name: str, *shape: int) -> Field:
            return Field(name, shape, lower=0.0, upper=MAX_PATIENTS, whole=True)

        at = len(THRESHOLDS_YEARS)
        # An estimate of patients, between the two counts beside it.
        likely = Field("likely", (at,), lower=0.0, upper=MAX_PATIENTS)
        return Layout((counts("n"), *left_out_fields(), counts("low", at), likely, counts("high", at)))

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept, left_out = self._judged(cohort)
        error = np.abs(kept[self.prediction] - kept["age_years"])
        grid_cell = np.searchsorted(np.asarray(THRESHOLDS_YEARS), error, side="left")
        counts = np.bincount(grid_cell, minlength=_CELLS).astype(np.int64)
        spread = float(np.sqrt(np.mean(error**2))) if error.size else 0.0
        low, likely, high = np.zeros(_CELLS), np.zeros(_CELLS), np.zeros(_CELLS)
        cells = []
        for first, end in join_cells(counts, self.minimum_count):
            patients = int(counts[first:end].sum())
            cells.append(Cell(patients, "patients with errors of one range"))
            low[end - 1], high[first] = patients, patients
            likely[first:end] = patients * _likely_share(first, end, spread)
        values: dict[str, FloatArray | float] = {"n": error.size, **left_out_values(left_out)}
        values |= {name: np.cumsum(at)[:-1] for name, at in (("low", low), ("likely", likely), ("high", high))}
        return Statistic.of(self.layout(iterate), values, [Cell(error.size, "patients with an error"), *cells])

    def summed(self, cohort: Cohort, iterate: Iterate) -> list[Group]:  # noqa: ARG002 - one-shot
        """The spread of errors that the likely counts follow from is a sum of squares."""
        kept, _ = self._judged(cohort)
        return [group_of({"error": kept[self.prediction] - kept["age_years"]}, of="the patients with an error")]

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        return columns_read(self._judged(cohort)[0], needed=("age_years", self.prediction))

    def _judged(self, cohort: Cohort) -> tuple[Cohort, int]:
        return judged(cohort, subset=self.subset, healthy_only=self.healthy_only, prediction=self.prediction)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        n = total.scalar("n")
        if n < 1:
            return NotComputable(f"no patient with {self.subset} = 1, an age and {self.prediction}")
        low, high = total["low"] / n, total["high"] / n
        return Done(
            {
                "n": round(n),
                **left_out_result(total),
                "thresholds_years": list(THRESHOLDS_YEARS),
                "cs": np.clip(total["likely"] / n, low, high).tolist(),
                "cs_low": low.tolist(),
                "cs_high": high.tolist(),
                "largest_width": float(np.max(high - low)),
            }
        )


_WORDS = {TEST: "the score curve", CORRECTED: "the score curve after correction"}


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    minimum, healthy = campaign.cell_minimum, campaign.cohort.train_on == "healthy"
    columns = {TEST: "predicted_years", CORRECTED: "corrected_years"}
    for name, column in columns.items():
        if campaign.estimator is not None or (column == "predicted_years" and has_predictions(campaign)):
            curve = ErrorCurve(name, prediction=column, minimum_count=minimum, healthy_only=healthy)
            yield Step(curve, (column,))


ANALYSIS = Definition(
    name="error-curve",
    result=CumulativeScores,
    steps=_steps,
    words=lambda step: _WORDS.get(step, step),
    compared=_error_curves_compared.compared,
    figures=_error_curves_compared.figures,
    missing=_error_curves_compared.missing,
    place=32,
)
