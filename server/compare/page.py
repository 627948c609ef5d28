"""A comparison to one self-contained HTML page, in the report's dress."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fedage.common.presentation.blocks import FigureBlock, Section, merged
from fedage.common.presentation.wording import listed
from fedage.server.compare import tables
from fedage.server.compare.comparison import Comparison
from fedage.server.compare.figure_rounds import validation_by_round
from fedage.server.report.summary import sentence

_ROUNDS = (
    "Mean absolute error of the averaged model after each round, on validation patients of all sites; of a run with "
    "folds, the mean over the folds."
)
_PLACE = 12
"""The place of the learning curves among the sections, after those on errors."""


@dataclass(frozen=True)
class Said:
    """What is to be said under a figure of some of the runs.

    Parameters
    ----------
    without
        The runs that are not in it.
    phantoms
        Whether it shows phantoms.
    unguarded
        Whether it shows a run without disclosure control.
    """

    without: str
    phantoms: bool
    unguarded: bool


def render_comparison(comparison: Comparison) -> str:
    """One HTML document that loads nothing; the same bytes for the same comparison."""
    environment = Environment(
        loader=PackageLoader("fedage.server.compare", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence"] = sentence
    css = files("fedage.server.report").joinpath("report.css").read_text(encoding="utf-8")
    return environment.get_template("compare.html.j2").render(
        comparison=comparison,
        css=Markup(css),
        banners=tables.banners(comparison),
        summary=[sentence for each in comparison.shown for sentence in each.sentences],
        first=[block for each in comparison.shown for block in each.first],
        sections=merged([_learning(comparison), *(part for each in comparison.shown for part in each.sections)]),
        said_under=lambda figure: _said_under(comparison, figure),
        tables={
            "runs": tables.headline(comparison, with_columns=False),
            "settings": tables.settings(comparison),
            "missing": tables.missing(comparison),
        },
    )


def _learning(comparison: Comparison) -> Section:
    known = tuple(run.label for run in comparison.runs if run.validation_mae_years)
    figure = FigureBlock(lambda: validation_by_round(comparison), _ROUNDS, "no run has an error by round", runs=known)
    return Section("rounds", "Learning", (figure,), place=_PLACE)


def _said_under(comparison: Comparison, figure: FigureBlock) -> Said:
    runs = [run for run in comparison.runs if run.label in figure.runs]
    left_out = [run.label for run in comparison.runs if run.label not in figure.runs]
    return Said(
        without=f"Not drawn, because the record does not have it: {listed(left_out)}." if left_out and runs else "",
        phantoms=any(run.phantoms for run in runs),
        unguarded=any(not run.guard for run in runs),
    )
