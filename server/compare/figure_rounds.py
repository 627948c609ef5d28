"""Validation MAE after each round, run over run."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedage.common.presentation.looks import PlotStyle, legend_below, short
from fedage.common.presentation.svg import draw
from fedage.server.compare.comparison import Comparison

_MARKED_ROUNDS = 40
_ROUNDS_FOR_A_CLOSER_LOOK = 6


def validation_by_round(comparison: Comparison) -> str | None:
    """The figure, or None if no run has an error by round; its right half looks closer at the later rounds."""
    known = [run for run in comparison.runs if run.validation_mae_years]
    if not known:
        return None
    last = max(number for run in known for number, _ in run.validation_mae_years)
    closer = last // 2 + 1 if last >= _ROUNDS_FOR_A_CLOSER_LOOK else None

    def paint(figure: Figure) -> None:
        panels = list(figure.subplots(1, 2 if closer else 1, squeeze=False)[0])
        _lines(panels[0], comparison, first=1)
        panels[0].set_title("All rounds")
        panels[0].set_ylabel("MAE, years")
        panels[0].set_ylim(0, panels[0].get_ylim()[1])
        if closer:
            _lines(panels[1], comparison, first=closer)
            panels[1].set_title(f"From round {closer} on, closer")
        for axes in panels:
            axes.set_xlabel("round")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        legend_below(figure, panels[0])

    description = "; ".join(f"{run.label} ends at {run.validation_mae_years[-1][1]:.2f} years" for run in known)
    return draw(paint, name="rounds", label=f"Validation MAE after each round: {description}", size_in=(8.6, 3.8))


def _lines(axes: Axes, comparison: Comparison, *, first: int) -> None:
    for number, run in enumerate(comparison.runs):
        points = [(done, error) for done, error in run.validation_mae_years if done >= first]
        if not points:
            continue
        look = PlotStyle.of(number)
        axes.plot(
            *zip(*points, strict=True),
            color=look.colour,
            linestyle=look.dash,
            marker=look.marker if len(points) <= _MARKED_ROUNDS else "",
            markersize=3.8,
            label=short(run.label),
        )
