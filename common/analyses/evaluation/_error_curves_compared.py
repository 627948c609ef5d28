"""The cumulative score curves of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedage.common.analyses.evaluation.results import CORRECTED, TEST, CumulativeScores
from fedage.common.presentation.blocks import Display, FigureBlock, NamedRun, Section
from fedage.common.record.results import Results

_NOT_RECORDED = "the record has no such curve (written before there was one)"
_CAPTION = (
    "Cumulative score: how many test patients have an absolute error of at most t years, raw and after bias "
    "correction; the dotted line is at 5 years. A shaded band is what the sites' minimum count leaves open: they join "
    "cells with few patients before anything leaves, and the line is drawn as if errors inside a joined cell were "
    "normal."
)


def compared(runs: Sequence[NamedRun]) -> Display:
    """The figure, or why there is none."""
    curves = [
        (run.label, run.results.outcome(TEST, CumulativeScores)[0], run.results.outcome(CORRECTED, CumulativeScores)[0])
        for run in runs
    ]

    def draw() -> str | None:
        # Imported here: drawing takes a moment, and a terminal draws nothing.
        from fedage.common.analyses.evaluation._error_curves_figure import error_curves

        return error_curves(curves)

    drawn = tuple(label for label, *both in curves if any(both))
    figure = FigureBlock(draw, _CAPTION, "no run has a cumulative score curve", runs=drawn)
    return Display(sections=(Section("errors", "How far off", (figure,), place=10),))


def figures(results: Results) -> dict[str, Any]:
    """Of one run, for the comparison as a document."""
    return {
        "error_curve_raw": results.outcome(TEST, CumulativeScores)[0],
        "error_curve_corrected": results.outcome(CORRECTED, CumulativeScores)[0],
    }


def missing(results: Results) -> dict[str, str]:
    """Why a run has no curve, if it has none."""
    reasons = {}
    for name, step in (("raw", TEST), ("corrected", CORRECTED)):
        curve, why = results.outcome(step, CumulativeScores)
        if curve is None:
            reasons[f"CS curve, {name}"] = _NOT_RECORDED if why is None else why
    return reasons
