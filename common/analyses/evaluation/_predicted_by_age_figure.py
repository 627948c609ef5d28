"""Predicted against chronological age: means of age bins, over counts in cells where most cells are told.

No patient is a point. Cells of two ages are small much sooner than bins of one, so that a site with few patients
withholds many of them; counts are drawn only where the withheld ones are a small share.
"""

from __future__ import annotations

from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedage.common.analyses.bias.results import GapsByAge
from fedage.common.analyses.evaluation.results import CountsByAge, cells_are_drawn
from fedage.common.presentation.svg import HEAT, INK, PAPER, SERIES, draw

_INK_FROM = 0.55


def predicted_by_age(grid: CountsByAge | None, gaps: GapsByAge | None = None) -> str | None:
    """The figure, or None if there is neither a mean of an age bin nor a table of counts that is complete enough."""
    means = _means(gaps)
    with_cells = grid is not None and cells_are_drawn(grid)
    if grid is None or not (means or with_cells):
        return None
    first, last = _occupied(grid)
    if not with_cells:  # nothing of the withheld table is drawn; the axes hold the means and their bars
        first, last = _around(grid.edges_years, means)
    edges, counts = grid.edges_years[first : last + 1], [row[first:last] for row in grid.counts[first:last]]
    largest = max((count for row in counts for count in row if count), default=0)
    few = len(edges) <= 16

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False)
        for row, (left, right) in enumerate(pairwise(edges)):
            for column, (low, high) in enumerate(pairwise(edges)):
                count = counts[row][column]
                cell = {"xy": (left, low), "width": right - left, "height": high - low, "linewidth": 0.8}
                # Above the diagonal of the cell, where the line of equality does not run through it.
                place = (left + 0.3 * (right - left), low + 0.68 * (high - low))
                if count and with_cells:
                    share = 0.12 + 0.83 * count / largest
                    axes.add_patch(Rectangle(**cell, facecolor=HEAT, alpha=share, edgecolor=PAPER))  # type: ignore[arg-type]
                    if few:
                        colour = PAPER if share > _INK_FROM else INK
                        axes.text(*place, str(count), ha="center", va="center", fontsize=8, color=colour)
        ends = (edges[0], edges[-1])
        axes.plot(ends, ends, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="predicted = chronological")
        if means:
            x, y, spread = zip(*means, strict=True)
            axes.errorbar(
                x,
                y,
                yerr=[sd or 0.0 for sd in spread],
                color=SERIES[1],
                marker="o",
                markersize=5,
                capsize=3,
                elinewidth=1.4,
                linestyle="",
                label="mean of an age bin, ±1 SD",
            )
        axes.set_xlim(ends)
        axes.set_ylim(ends)
        axes.set_aspect("equal")
        if few:
            axes.set_xticks(edges)
            axes.set_yticks(edges)
        axes.set_xlabel("chronological age, years")
        axes.set_ylabel("predicted age, years")
        axes.legend(loc="upper left")

    total = sum(count for row in grid.counts for count in row)
    counted = f"Counts of {total} patients by chronological and predicted age" if with_cells else "Predicted age by age"
    points = f"; mean predicted age of {len(means)} age bins" if means else ""
    label = f"{counted}{points}; with the line of equality"
    return draw(paint, name="ages", label=label, size_in=(5.6, 5.2))


def _means(gaps: GapsByAge | None) -> list[tuple[float, float, float | None]]:
    """Middle of each age bin, mean predicted age there, and the SD of predicted minus chronological age; years."""
    if gaps is None:
        return []
    edges = gaps.edges_years
    middles = [(left + right) / 2 for left, right in pairwise(edges)]
    return [
        (middle, middle + mean, sd)
        for middle, mean, sd in zip(middles, gaps.mean_years, gaps.sd_years, strict=True)
        if mean is not None
    ]


def _around(edges: tuple[float, ...], means: list[tuple[float, float, float | None]]) -> tuple[int, int]:
    """The bins, as first and one past the last, that hold the means and their bars."""
    low = min(min(x, y - (sd or 0.0)) for x, y, sd in means)
    high = max(max(x, y + (sd or 0.0)) for x, y, sd in means)
    first = max((k for k, edge in enumerate(edges) if edge <= low), default=0)
    last = min((k for k, edge in enumerate(edges) if edge >= high), default=len(edges) - 1)
    return first, last


def _occupied(grid: CountsByAge) -> tuple[int, int]:
    """The bins from the first to one past the last with a count in either age; all of them without any."""
    held = [{row, column} for row, line in enumerate(grid.counts) for column, count in enumerate(line) if count]
    bins = set().union(*held) or set(range(len(grid.counts)))
    return min(bins), max(bins) + 1
