"""Mean maps of where a model looks: a row a group; a panel an image, or of a volume its three middle slices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedage.common.analyses.evaluation.saliency_result import MapOfGroup, Saliency
from fedage.common.presentation.svg import GRID, HEAT, MUTED, draw
from fedage.common.statistics.statistic import FloatArray

_MOST_GROUPS = 9
_SLICES = (("sagittal", 0), ("coronal", 1), ("axial", 2))
"""Of a volume with axes to the patient's right, front and up: the axis that a slice is across."""


def saliency_maps(found: Saliency | None) -> str | None:
    """The figure; None without a map."""
    if found is None or not found.groups:
        return None
    groups = found.groups[:_MOST_GROUPS]
    even = 1 / sum(int(np.prod(image.cells)) for image in found.images)
    panels = [list(_panels(found, group, even=even)) for group in groups]
    largest = max(
        (float(np.nanmax(values)) for row in panels for _, values in row if np.isfinite(values).any()), default=1.0
    )
    sides = [values.shape[0] / values.shape[1] for _, values in panels[0]]
    height = 1.9 * max(*sides, 0.6) + 0.35

    def paint(figure: Figure) -> None:
        rows = figure.subplots(len(groups), len(panels[0]), squeeze=False)
        for axes_row, row, group in zip(rows, panels, groups, strict=True):
            for place, (axes, (title, values)) in enumerate(zip(axes_row, row, strict=True)):
                _paint(axes, values, largest=largest)
                axes.set_title(title)
                if not place:
                    label = group.group if group.group == "all" or " = " in group.group else f"{group.group} years"
                    axes.set_ylabel(f"{label}\nn = {group.n}")
        figure.supxlabel(f"from no share (empty) to {largest:.1f} times an even share (full)", fontsize=9, color=MUTED)

    names = ", ".join(group.group for group in groups)
    label = f"Where the model looks in {', '.join(image.name for image in found.images)}: {names}"
    return draw(paint, name="saliency", label=label, size_in=(2.1 * max(len(panels[0]), 2), height * len(groups) + 0.4))


def _panels(found: Saliency, group: MapOfGroup, *, even: float) -> Iterator[tuple[str, FloatArray]]:
    """Titles, and shares over an even one (rows, columns), NaN where not told; the first row is drawn on top."""
    for image in found.images:
        shares = np.array([np.nan if share is None else share for share in group.shares[image.name]])
        cells = shares.reshape(image.cells) / even
        if cells.ndim == 2:
            yield image.name, cells
            continue
        for title, across in _SLICES:
            middle = np.take(cells, cells.shape[across] // 2, axis=across)
            yield title, middle.T[::-1]  # front or up on top


def _paint(axes: Axes, values: FloatArray, *, largest: float) -> None:
    rows, columns = values.shape
    axes.grid(visible=False)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            box = Rectangle(
                (column, row), 1, 1, facecolor=HEAT, alpha=float(np.clip(value / largest, 0, 1)), linewidth=0
            )
            axes.add_patch(box)
        else:
            axes.plot(column + 0.5, row + 0.5, marker="x", markersize=3, color=MUTED)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(GRID)
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
