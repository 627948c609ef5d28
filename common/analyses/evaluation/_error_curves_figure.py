"""The cumulative score curves, run over run."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from fedage.common.analyses.evaluation.results import CS_YEARS, CumulativeScores
from fedage.common.presentation.looks import PlotStyle, legend_below, short
from fedage.common.presentation.svg import MUTED, draw

Curves = Sequence[tuple[str, CumulativeScores | None, CumulativeScores | None]]
"""Each run's label, its curve as predicted and its curve after correction."""


def error_curves(curves: Curves) -> str | None:
    """The figure, raw at the left and corrected at the right, or None if no run has a curve."""
    raw = [(number, label, curve) for number, (label, curve, _) in enumerate(curves)]
    corrected = [(number, label, curve) for number, (label, _, curve) in enumerate(curves)]
    if not any(curve for _, _, curve in (*raw, *corrected)):
        return None

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, lines, title in ((left, raw, "Raw"), (right, corrected, "Corrected")):
            axes.axvline(CS_YEARS, color=MUTED, linewidth=1.0, linestyle=(0, (1, 2)))
            for number, label, curve in lines:
                _curve(axes, number, label, curve)
            axes.set_title(title)
            axes.set_xlabel("error of at most t years")
            axes.margins(x=0)
            axes.xaxis.set_major_locator(MultipleLocator(5))
        left.set_ylim(0, 1.02)
        left.yaxis.set_major_formatter(PercentFormatter(1.0))
        left.set_ylabel("test patients")
        legend_below(figure, left if any(curve for _, _, curve in raw) else right)

    description = "; ".join(
        f"{label} {curve.cs[at]:.0%} within {CS_YEARS:g} years"
        for _, label, curve in raw
        if curve and (at := _at_five(curve)) is not None and curve.cs[at] is not None
    )
    return draw(paint, name="errors", label=f"Cumulative score curves: {description}", size_in=(8.6, 4.0))


def _curve(axes: Axes, number: int, label: str, curve: CumulativeScores | None) -> None:
    if curve is None:
        return
    look = PlotStyle.of(number)
    points = [
        (t, cs, low, high)
        for t, cs, low, high in zip(curve.thresholds_years, curve.cs, curve.cs_low, curve.cs_high, strict=True)
        if cs is not None and low is not None and high is not None
    ]
    if not points:
        return
    t, cs, low, high = zip(*points, strict=True)
    axes.fill_between(t, low, high, color=look.colour, alpha=0.1, linewidth=0)
    axes.plot(t, cs, color=look.colour, linestyle=look.dash, label=short(label))


def _at_five(curve: CumulativeScores) -> int | None:
    return curve.thresholds_years.index(CS_YEARS) if CS_YEARS in curve.thresholds_years else None
