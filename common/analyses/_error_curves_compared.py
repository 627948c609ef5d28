"""The cumulative score curves of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedage.common.analyses.by_subject import figures as figures_of
from fedage.common.presentation.blocks import Drawn, NamedRun, Section, Shown
from fedage.common.record.results import Results

_NOT_RECORDED = "the record has no such curve (written before there was one)"
_CAPTION = (
    "Cumulative score: how many test patients have an absolute error of at most t years, raw and after bias "
    "correction; the dotted line is at 5 years. A shaded band is what the sites' minimum count leaves open: they join "
    "cells with few patients before anything leaves, and the line is drawn as if errors inside a joined cell were "
    "normal."
)


def compared(runs: Sequence[NamedRun]) -> Shown:
    """The figure, or why there is none."""
    found = [(run.label, figures_of(run.results)) for run in runs]
    curves = [(label, each.error_curve_raw, each.error_curve_corrected) for label, each in found]

    def draw() -> str | None:
        # Imported here: drawing takes a moment, and a terminal draws nothing.
        from fedage.common.analyses._error_curves_figure import error_curves

        return error_curves(curves)

    drawn = tuple(label for label, *both in curves if any(both))
    figure = Drawn(draw, _CAPTION, "no run has a cumulative score curve", runs=drawn)
    return Shown(sections=(Section("errors", "How far off", (figure,), place=10),))


def figures(results: Results) -> dict[str, Any]:
    """Of one run, for the comparison as a document."""
    found = figures_of(results)
    return {"error_curve_raw": found.error_curve_raw, "error_curve_corrected": found.error_curve_corrected}


def missing(results: Results) -> dict[str, str]:
    """Why a run has no curve, if it has none."""
    found = figures_of(results)
    return {
        f"CS curve, {name}": found.not_computed.get(key, _NOT_RECORDED)
        for name, key in (("raw", "error_curve_raw"), ("corrected", "error_curve_corrected"))
        if getattr(found, key) is None
    }
