"""The cumulative score curve: CS(t), the fraction of patients whose predicted age is off by at most t years.

Notation: Ω chronological age, ŷ predicted age, e = ŷ − Ω, all in years; t = 0, 1, …, 20. A grid cell holds the
patients with t − 1 < |e| ≤ t; before the first one comes |e| = 0, after the last one |e| > 20: T + 1 cells for T
thresholds.

A site joins neighbouring grid cells until nobody stands alone in one ([own]: microaggregation on a fixed grid), so the
curve it sends is exact at the thresholds where a joined cell ends and between two bounds inside it. The bounds of the
sites add up to bounds of the pooled curve: that is its error, and the result states it at every t.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses._columns import MAX_GAP_YEARS, MAX_PATIENTS, in_subset, usable
from fedage.common.analyses.base import Done, Iterate, NotComputable, Outcome, check_iterate
from fedage.common.analyses.evaluation import CS_YEARS
from fedage.common.cohort import Cohort
from fedage.common.statistic import Cell, Field, FloatArray, Layout, Statistic

THRESHOLDS_YEARS = tuple(float(t) for t in range(21))
_CELLS = len(THRESHOLDS_YEARS) + 1
_CUT = THRESHOLDS_YEARS.index(CS_YEARS) + 1
"""Cells before this one are those of CS(≤5), which `Evaluation` tells anyway."""

Counts = NDArray[np.int64]
Spans = list[tuple[int, int]]
"""Joined cells as [first, end) of grid cells, in order and without a gap."""


def join_cells(counts: Counts, minimum: int) -> Spans:
    """Neighbouring cells together until each span holds at least `minimum` patients; nobody is left out.

    No span crosses 5 years unless one side has too few patients for a span of its own: CS(≤5) is known from
    `Evaluation`, and a span across it would tell by subtraction how many of its patients lie on either side. Of the two
    end cells (|e| = 0 and |e| > 20) an empty one stays apart, so that the curve may begin at 0 and end at 1.

    Parameters
    ----------
    counts
        Patients by grid cell, shape (T + 1,).
    minimum
        Fewest patients of a span; with fewer patients in all, everybody is in one span (and the guard blocks it).
    """
    if minimum <= 1:
        return [(cell, cell + 1) for cell in range(counts.size)]
    first, last = int(counts[0] == 0), counts.size - int(counts[-1] == 0)
    below, above = _side(counts, first, _CUT, minimum), _side(counts, _CUT, last, minimum)
    if counts[first:_CUT].sum() < minimum or counts[_CUT:last].sum() < minimum:
        # The short side joins its neighbour, which is a whole span of the other side.
        below, above = [*below[:-1], (below[-1][0], above[0][1])], above[1:]
    ends = [(0, 1)] * first, [(last, counts.size)] * (counts.size - last)
    return [*ends[0], *below, *above, *ends[1]]


def _side(counts: Counts, first: int, end: int, minimum: int) -> Spans:
    """Spans of the cells [first, end): each ends as soon as it is large enough, the rest joins the last."""
    spans: Spans = []
    start = first
    for cell in range(first, end):
        if counts[start : cell + 1].sum() >= minimum:
            spans.append((start, cell + 1))
            start = cell + 1
    if start < end:
        spans[-1:] = [(spans[-1][0] if spans else first, end)]
    return spans


@dataclass(frozen=True)
class ErrorCurve:
    """CS(t) on one part of the patients, without a small cell.

    Result: `n`, `left_out` (a value missing or out of range), `thresholds_years`, and per threshold `cs_low` and
    `cs_high`, which the true fraction lies between, and `cs`, the curve if the patients of a joined cell were spread
    evenly over its grid cells (`cs_low` ≤ `cs` ≤ `cs_high`); `largest_width`, the largest `cs_high − cs_low`: 0 if the
    curve is exact throughout.

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
    per_site: bool = False

    def first(self) -> Iterate:
        return {}

    def check(self, iterate: Iterate) -> None:
        check_iterate(iterate, {}, bound=0.0)

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        def counts(name: str, *shape: int) -> Field:
            return Field(name, shape, lower=0.0, upper=MAX_PATIENTS)

        at = len(THRESHOLDS_YEARS)
        return Layout((counts("n"), counts("left_out"), counts("low", at), counts("evenly", at), counts("high", at)))

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept, left_out = usable(in_subset(cohort, self.subset), ("age_years", self.prediction))
        error = np.abs(kept[self.prediction] - kept["age_years"])
        plausible = error <= MAX_GAP_YEARS
        error, left_out = error[plausible], left_out + int(np.count_nonzero(~plausible))
        grid_cell = np.searchsorted(np.asarray(THRESHOLDS_YEARS), error, side="left")
        counts = np.bincount(grid_cell, minlength=_CELLS).astype(np.int64)
        low, evenly, high = np.zeros(_CELLS), np.zeros(_CELLS), np.zeros(_CELLS)
        cells = []
        for first, end in join_cells(counts, self.minimum_count):
            patients = int(counts[first:end].sum())
            cells.append(Cell(patients, "patients with errors of one range"))
            low[end - 1], high[first] = patients, patients
            evenly[first:end] = patients / (end - first)
        values: dict[str, FloatArray | float] = {"n": error.size, "left_out": left_out}
        values |= {name: np.cumsum(at)[:-1] for name, at in (("low", low), ("evenly", evenly), ("high", high))}
        return Statistic.of(self.layout(iterate), values, [Cell(error.size, "patients with an error"), *cells])

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        n = total.scalar("n")
        if n < 1:
            return NotComputable(f"no patient with {self.subset} = 1, an age and {self.prediction}")
        low, high = total["low"] / n, total["high"] / n
        return Done(
            {
                "n": round(n),
                "left_out": round(total.scalar("left_out")),
                "thresholds_years": list(THRESHOLDS_YEARS),
                "cs": np.clip(total["evenly"] / n, low, high).tolist(),
                "cs_low": low.tolist(),
                "cs_high": high.tolist(),
                "largest_width": float(np.max(high - low)),
            }
        )
