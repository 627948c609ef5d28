"""A comparison to one self-contained HTML page, in the report's dress."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fedage.common.presentation.blocks import merged
from fedage.common.presentation.wording import listed
from fedage.server.compare import tables
from fedage.server.compare.comparison import ComparedRun, Comparison
from fedage.server.compare.figure_errors import error_curves
from fedage.server.compare.figure_rounds import validation_by_round
from fedage.server.compare.figure_sites import errors_by_site
from fedage.server.report.summary import sentence


@dataclass(frozen=True)
class Drawn:
    """A figure with what is to be said under it, or the reason there is none."""

    svg: Markup | None
    why_empty: str
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
        summary=[
            *_summary(comparison),
            *tables.losses(comparison),
            *(sentence for each in comparison.shown for sentence in each.sentences),
        ],
        sections=merged([section for each in comparison.shown for section in each.sections]),
        figures=_figures(comparison),
        tables={
            "runs": tables.headline(comparison, with_columns=False),
            "by_site": tables.by_site(comparison),
            "site_means": tables.means_by_site(comparison),
            "repeats": tables.repeats(comparison),
            "settings": tables.settings(comparison),
            "missing": tables.missing(comparison),
        },
    )


def _figures(comparison: Comparison) -> dict[str, Drawn]:
    with_rounds = [run for run in comparison.runs if run.validation_mae_years]
    with_curve = [run for run in comparison.runs if run.error_curve_raw or run.error_curve_corrected]
    with_sites = [run for run in comparison.runs if run.by_site]
    return {
        "rounds": _drawn(comparison, validation_by_round(comparison), with_rounds, "no run has an error by round"),
        "errors": _drawn(comparison, error_curves(comparison), with_curve, "no run has a cumulative score curve"),
        "sites": _drawn(comparison, errors_by_site(comparison), with_sites, "no run has an error by site"),
    }


def _drawn(comparison: Comparison, svg: str | None, runs: list[ComparedRun], why_empty: str) -> Drawn:
    left_out = [run.label for run in comparison.runs if run not in runs]
    return Drawn(
        svg=Markup(svg) if svg is not None else None,
        why_empty=why_empty,
        without=f"Not drawn, because the record does not have it: {listed(left_out)}." if left_out and runs else "",
        phantoms=any(run.phantoms for run in runs),
        unguarded=any(not run.guard for run in runs),
    )


def _summary(comparison: Comparison) -> list[str]:
    """What came out, in a sentence or two; only where runs are of the same patients is one called smaller."""
    known = sorted((run.mae_years_raw, run.label) for run in comparison.runs if run.mae_years_raw is not None)
    if not known:
        return ["No run has an error on test patients."]
    if len(known) == 1:
        return [f"Only {known[0][1]} has an error on test patients: {known[0][0]:.2f} years (MAE, raw)."]
    (least, best), (most, worst) = known[0], known[-1]
    return [
        f"The raw error (MAE) on test patients runs from {least:.2f} years ({best}) to {most:.2f} years ({worst}).",
        *(
            f"Over {len(item.seeds)} seeds, {listed(item.labels)} differ by a standard deviation of "
            f"{item.mae_years_raw_sd:.2f} years: a smaller difference between runs says nothing."
            for item in comparison.repeats
        ),
        *(
            []
            if comparison.repeats
            else ["No two runs differ in the seed alone, so chance cannot be told from effect."]
        ),
    ]
