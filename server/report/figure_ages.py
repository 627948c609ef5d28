"""Predicted against chronological age, as counts in cells: no patient is a point."""

from __future__ import annotations

from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedage.server.report._svg import HEAT, INK, PAPER, draw
from fedage.server.results import PredictedByAge


def predicted_by_age(grid: PredictedByAge | None) -> str | None:
    """The figure, or None if there are no counts."""
    if grid is None:
        return None
    first, last = _occupied(grid)
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
                if count:
                    share = 0.12 + 0.83 * count / largest
                    axes.add_patch(Rectangle(**cell, facecolor=HEAT, alpha=share, edgecolor=PAPER))  # type: ignore[arg-type]
                    if few:
                        colour = PAPER if share > 0.55 else INK
                        axes.text(*place, str(count), ha="center", va="center", fontsize=8, color=colour)
        ends = (edges[0], edges[-1])
        axes.plot(ends, ends, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="predicted = chronological")
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
    label = f"Counts of {total} test patients by chronological and predicted age, with the line of equality"
    return draw(paint, name="ages", label=label, size_in=(5.6, 5.2))


def _occupied(grid: PredictedByAge) -> tuple[int, int]:
    """The bins from the first to one past the last with a count in either age; all of them without any."""
    held = [{row, column} for row, line in enumerate(grid.counts) for column, count in enumerate(line) if count]
    bins = set().union(*held) or set(range(len(grid.counts)))
    return min(bins), max(bins) + 1
