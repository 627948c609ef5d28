"""A record to one self-contained HTML page: no script, no request to anywhere, the same bytes for the same record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fedage.common.presentation.cells import Table
from fedage.server.record.results import Results
from fedage.server.report import (
    _captions,
    _happened,
    _pooled,
    _preparation,
    _tables,
    external,
    pooled_text,
    preparation_text,
)
from fedage.server.report import summary as _summary
from fedage.server.report.figure_learning import learning_curve
from fedage.server.report.shown import notes_text, shown_of
from fedage.server.report.withheld_text import sections_of


@dataclass(frozen=True)
class FigureBlock:
    """A figure, or the reason there is none."""

    svg: Markup | None
    why_empty: str = ""


def render_report(results: Results, *, events: Sequence[Mapping[str, Any]] | None = None) -> str:
    """The report of a run.

    Parameters
    ----------
    results
        The record, of a finished, stopped or failed run.
    events
        The lines of `events.jsonl`, if they are at hand.

    Returns
    -------
    str
        One HTML document. It loads nothing, so it can be mailed, archived and opened offline.
    """
    environment = Environment(
        loader=PackageLoader("fedage.server.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence"] = _summary.sentence
    template = environment.get_template("report.html.j2")
    tables, shown = _all_tables(results, events), shown_of(results)
    figures = _figures(results, [each for one in shown for each in one.references])
    css, _, _ = environment.loader.get_source(environment, "report.css") if environment.loader else ("", None, None)
    return template.render(
        results=results,
        notes=notes_text(results),
        css=Markup(css),
        banners=_summary.banners(results),
        summary=_summary.sentences(results, shown),
        made=preparation_text.sentences(results),
        captions=_captions.captions(results),
        not_asked=_summary.not_asked(results),
        pooled=pooled_text.sentences(results),
        duration=_summary.duration(results),
        moment=_summary.moment,
        figures=figures,
        tables=tables,
        nothing=_nothing(figures, tables),
        sections=[*sections_of(results, shown), *external.sections(results)],
        first=[block for each in shown for block in each.first],
        sites_told=_summary.sites_told(results),
    )


def _nothing(figures: Mapping[str, FigureBlock], tables: Mapping[str, Table]) -> list[str]:
    """Of learning without any content why: the reasons once, in place of a box for each figure and table."""
    of_learning = ("rounds", "preparation", "cross_validation")
    if figures["learning"].svg is not None or any(tables[table].rows for table in of_learning):
        return []
    reasons = [figures["learning"].why_empty, tables["rounds"].why_empty]
    return list(dict.fromkeys(_summary.sentence(reason) for reason in reasons if reason))


def _all_tables(results: Results, events: Sequence[Mapping[str, Any]] | None) -> dict[str, Table]:
    return {
        "pooled": _pooled.pooled(results),
        "sites": _tables.sites(results),
        "set_aside": _tables.set_aside(results),
        "withheld": _tables.withheld(results),
        "troubles": _tables.troubles(results),
        "preparation": _preparation.preparation(results),
        "cross_validation": _preparation.cross_validation(results),
        "rounds": _tables.rounds(results),
        "privacy": _tables.privacy(results),
        "events": _happened.timeline(events),
    }


def _figures(results: Results, references: Sequence[tuple[float, str]]) -> dict[str, FigureBlock]:
    return {
        "learning": _drawn(learning_curve(results, references), _tables.no_rounds(results)),
    }


def _drawn(svg: str | None, why_empty: str) -> FigureBlock:
    return FigureBlock(Markup(svg)) if svg is not None else FigureBlock(None, why_empty)
