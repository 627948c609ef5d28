"""The learning curve: validation MAE of the averaged model after each round, and the training loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedage.common.presentation.participation import participants
from fedage.common.presentation.svg import DASHES, INK, MARKERS, MUTED, SERIES, draw
from fedage.server.record.results import Results, Round
from fedage.server.report.rounds import by_fold, mean_over_folds, rounds_text

_FEW = 6


def learning_curve(results: Results, references: Sequence[tuple[float, str]] = ()) -> str | None:
    """The figure, or None if no round was finished; `references` are errors in years and what they are."""
    rounds = results.rounds
    if not rounds:
        return None
    folds = by_fold(rounds)
    # With folds a line a site and fold would be a tangle: each fold has one line, of all sites.
    sites = sorted({site for item in rounds for site in item.validation_mae_years_by_site}) if len(folds) == 1 else []
    sites = sites if len(sites) > 1 else []  # the line over one site is that site's own
    last = max(item.number for item in rounds)

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
        whose = _whose(results)
        private = any(item.epsilon_by_site for item in rounds)
        right = _epsilon if private else _loss
        for axes, of, width, words in ((error, _error, 3.0, whose), (loss, right, 2.0, None)):
            for number, fold in enumerate(folds if len(folds) > 1 else ()):
                own = [(item.number, of(item)) for item in fold]
                label = "a fold" if words and not number else None
                _line(axes, own, color=SERIES[0], linewidth=0.8, markersize=3.0, label=label)
            _line(axes, mean_over_folds(rounds, of), color=INK, linewidth=width, label=words)
        close = len(references) == 2 and abs(references[0][0] - references[1][0]) < 0.12 * error.get_ylim()[1]
        highest = max((value for value, _ in references), default=0.0)
        for value, words in references:
            error.axhline(value, color=MUTED, linewidth=1.0, linestyle=(0, (1, 2)))
            # Beside the axes: over them it would be printed across a curve that runs close to the line.
            error.annotate(
                words,
                (1, value),
                xytext=(4, 0),
                textcoords="offset points",
                xycoords=("axes fraction", "data"),
                ha="left",
                va="center" if not close else "bottom" if value == highest else "top",
                color=MUTED,
                fontsize=8.5,
                annotation_clip=False,
            )
        error.set_ylim(0, error.get_ylim()[1] * 1.08)
        error.set_title("Validation error")
        error.set_ylabel("MAE, years")
        if error.get_legend_handles_labels()[0]:
            error.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=min(len(sites) + 1 if len(folds) == 1 else 2, 4)
            )
        loss.set_title("ε, of the site that spent most" if private else "Training loss")
        for axes in (error, loss):
            axes.set_xlabel("round")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
            axes.set_xlim(0.5, last + 0.5)

    return draw(paint, name="learning", label=_label(rounds), size_in=(9.2, 3.5))


def _whose(results: Results) -> str:
    """Whose validation error the bold line is."""
    rounds = results.rounds
    sites = sorted({site for item in rounds for site in item.validation_mae_years_by_site})
    everybody = len(participants(results))
    whose = "all sites" if not sites or len(sites) >= everybody else f"{len(sites)} of {everybody} sites"
    if len(sites) == 1:
        whose = f"{sites[0]} alone" if everybody > 1 else sites[0]
    return whose if len(by_fold(rounds)) == 1 else f"{whose}, mean over folds"


def _error(item: Round) -> float | None:
    return item.validation_mae_years


def _loss(item: Round) -> float | None:
    return item.train_loss


def _epsilon(item: Round) -> float | None:
    return max((value for value in item.epsilon_by_site.values() if value is not None), default=None)


def _line(axes: Axes, values: Sequence[tuple[int, float | None]], **style: Any) -> None:
    known = [(x, y) for x, y in values if y is not None]
    if len(known) == 1 and not style.get("marker"):
        style["marker"] = "o"  # a line of one point cannot be seen
    if known:
        axes.plot(*zip(*known, strict=True), **style)


def _label(rounds: Sequence[Round]) -> str:
    known = [error for _, error in mean_over_folds(rounds, _error)]
    text = rounds_text(rounds)
    if not known and any(item.epsilon_by_site for item in rounds):
        return f"ε over {text}; no validation error was released"
    if not known:
        return f"Training loss over {text}; no validation error was released"
    mean = "mean validation MAE" if len(by_fold(rounds)) > 1 else "validation MAE"
    return f"{mean[0].upper()}{mean[1:]} over {text}, from {known[0]:.2f} to {known[-1]:.2f} years"
