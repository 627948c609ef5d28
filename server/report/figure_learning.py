"""The learning curve: validation MAE of the averaged model after each round, and the training loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedage.server.report._svg import DASHES, INK, MARKERS, MUTED, SERIES, draw
from fedage.server.results import Results, Round

_FEW = 6


def learning_curve(results: Results) -> str | None:
    """The figure, or None if no round was finished."""
    rounds = results.rounds
    if not rounds:
        return None
    sites = sorted({site for item in rounds for site in item.validation_mae_years_by_site})

    def paint(figure: Figure) -> None:
        error, loss = figure.subplots(1, 2, width_ratios=(2, 1))
        for number, site in enumerate(sites):
            values = [(item.number, item.validation_mae_years_by_site.get(site)) for item in rounds]
            _line(
                error,
                values,
                color=SERIES[number % len(SERIES)],
                linestyle=DASHES[number % len(DASHES)],
                marker=MARKERS[number % len(MARKERS)] if len(rounds) <= 40 else "",
                markersize=3.5,
                linewidth=1.3,
                label=site if len(sites) <= _FEW else None,
            )
        overall = [(item.number, item.validation_mae_years) for item in rounds]
        dot = "o" if len(rounds) == 1 else ""  # a line of one point cannot be seen
        _line(error, overall, color=INK, linewidth=3.0, marker=dot, label="all sites")
        for value, words in _references(results):
            error.axhline(value, color=MUTED, linewidth=1.0, linestyle=(0, (1, 2)))
            error.annotate(
                words,
                (1, value),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                color=MUTED,
                fontsize=8.5,
            )
        error.set_ylim(0, error.get_ylim()[1] * 1.08)
        error.set_title("Validation error")
        error.set_ylabel("MAE, years")
        if error.get_legend_handles_labels()[0]:
            error.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=min(len(sites) + 1, 4))
        _line(loss, [(item.number, item.train_loss) for item in rounds], color=INK, linewidth=2.0, marker=dot)
        loss.set_title("Training loss")
        for axes in (error, loss):
            axes.set_xlabel("round")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
            axes.set_xlim(0.5, rounds[-1].number + 0.5)

    return draw(paint, name="learning", label=_label(rounds), size_in=(8.6, 3.5))


def _line(axes: Axes, values: Sequence[tuple[int, float | None]], **style: Any) -> None:
    known = [(x, y) for x, y in values if y is not None]
    if known:
        axes.plot(*zip(*known, strict=True), **style)


def _references(results: Results) -> Sequence[tuple[float, str]]:
    found = []
    validation = results.evaluation.validation.raw.overall
    if validation is not None and validation.mae_of_mean_years is not None:
        found.append((validation.mae_of_mean_years, "predicting the mean age"))
    if results.planted is not None and results.planted.irreducible_mae_years is not None:
        found.append((results.planted.irreducible_mae_years, "irreducible"))
    return found


def _label(rounds: Sequence[Round]) -> str:
    known = [item.validation_mae_years for item in rounds if item.validation_mae_years is not None]
    if not known:
        return f"Training loss over {len(rounds)} rounds; no validation error was released"
    return f"Validation MAE over {len(rounds)} rounds, from {known[0]:.2f} to {known[-1]:.2f} years"
