"""The gap against age before and after correction: mean and standard deviation by bin of chronological age."""

from __future__ import annotations

import math
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedage.common.analyses.bias.results import GapsByAge
from fedage.common.presentation.svg import INK, MUTED, SERIES, draw


def gap_by_age(raw: GapsByAge | None, corrected: GapsByAge | None) -> str | None:
    """The figure, or None if neither is there."""
    panels = [
        (gaps, title, colour, marker)
        for gaps, title, colour, marker in (
            (raw, "Before correction (raw)", SERIES[1], "s"),
            (corrected, "After correction", SERIES[0], "o"),
        )
        if gaps is not None and any(mean is not None for mean in gaps.mean_years)
    ]
    if not panels:
        return None
    held = [k for gaps, *_ in panels for k, n in enumerate(gaps.counts) if n]
    bins = slice(min(held, default=0), max(held, default=len(panels[0][0].counts) - 1) + 1)

    def paint(figure: Figure) -> None:
        row = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (gaps, title, colour, marker) in zip(row, panels, strict=True):
            _panel(axes, gaps, bins, colour=colour, marker=marker)
            axes.set_title(title)
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.set(wspace=0.06)  # type: ignore[call-arg]
        row[0].set_ylabel("predicted − chronological age, years")

    label = "Mean gap with its standard deviation by chronological age: " + " and ".join(
        title for _, title, _, _ in panels
    )
    return draw(paint, name="gaps", label=label.lower().capitalize(), size_in=(4.3 * max(len(panels), 1.4), 3.4))


def _panel(axes: Axes, gaps: GapsByAge, bins: slice, *, colour: str, marker: str) -> None:
    edges = gaps.edges_years[bins.start : bins.stop + 1]
    counts, means, sds = gaps.counts[bins], gaps.mean_years[bins], gaps.sd_years[bins]
    axes.axhline(0, color=INK, linewidth=1.0)
    for left, right, n, mean, sd in zip(edges[:-1], edges[1:], counts, means, sds, strict=True):
        middle = (left + right) / 2
        if mean is not None:
            axes.errorbar(
                middle,
                mean,
                yerr=sd,
                color=colour,
                marker=marker,
                markersize=5,
                capsize=3,
                elinewidth=1.4,
                linestyle="",
            )
        axes.annotate(
            f"n = {n}" if left == edges[0] else str(n) if n or not gaps.withheld else "–",
            (middle, 0.015),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=8,
            color=MUTED,
        )
    middles = [(left + right) / 2 for left, right in pairwise(edges)]
    # NaN breaks the line at a bin that is not told.
    axes.plot(middles, [math.nan if mean is None else mean for mean in means], color=colour, linewidth=1.2, alpha=0.7)
    axes.set_xlim(edges[0], edges[-1])
    axes.margins(y=0.15)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.set_xlabel("chronological age, years")
