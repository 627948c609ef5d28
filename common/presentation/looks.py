"""How a run looks in every figure: the same colour, dash and marker wherever it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedage.common.presentation.svg import DASHES, MARKERS, SERIES

_LONGEST_LABEL = 26
_LEGEND_CHARACTERS = 110
"""What fits in a row, a handle counted as 8."""


@dataclass(frozen=True)
class PlotStyle:
    """A run's look; the seventh run has the first one's colour and another dash and marker."""

    colour: str
    dash: Any
    marker: str

    @classmethod
    def of(cls, number: int) -> PlotStyle:
        """The look of run `number`, counted from 0."""
        turn = number // len(SERIES)
        return cls(
            colour=SERIES[number % len(SERIES)],
            dash=DASHES[(number + turn) % len(DASHES)],
            marker=MARKERS[(number + turn) % len(MARKERS)],
        )


def short(label: str) -> str:
    """A label that fits a legend: its middle left out if it is long."""
    if len(label) <= _LONGEST_LABEL:
        return label
    half = (_LONGEST_LABEL - 1) // 2
    return f"{label[:half]}…{label[-half:]}"


def legend_below(figure: Figure, axes: Axes) -> None:
    """One legend for all axes, under them."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        taken = [len(label) + 8 for label in labels]
        columns = len(labels) if sum(taken) <= _LEGEND_CHARACTERS else max(1, _LEGEND_CHARACTERS // max(taken))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
