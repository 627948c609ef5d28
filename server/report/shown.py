"""What the analyses of a record show of themselves, whichever they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table as RichTable
from rich.text import Text

from fedage.common.analyses.definition import Definition
from fedage.common.analyses.registry import AnalysisUnusable, definition_of, in_order, own
from fedage.common.presentation.blocks import Display, NamedRun, TitledTable
from fedage.common.presentation.cells import POOLED
from fedage.common.record.results import Results


def shown_of(results: Results) -> list[Display]:
    """What each analysis shows of a run, in the analyses' order; of one that is not installed here that it is not."""
    known, unknown = _definitions([results])
    return [*(definition.shown(results) for definition in known), *([Display(sentences=unknown)] if unknown else [])]


def compared(runs: Sequence[NamedRun]) -> list[Display]:
    """What each analysis shows of several runs side by side."""
    known, unknown = _definitions([run.results for run in runs])
    return [*(definition.compared(runs) for definition in known), *([Display(sentences=unknown)] if unknown else [])]


def figures_of(results: Results) -> dict[str, Any]:
    """The figures of each analysis of one run, by key, for a comparison as a document."""
    known, _ = _definitions([results])
    return {key: figure for definition in known for key, figure in definition.figures(results).items()}


def missing_of(results: Results) -> dict[str, str]:
    """What a run lacks of each analysis, and why."""
    known, _ = _definitions([results])
    return {part: reason for definition in known for part, reason in definition.missing(results).items()}


def subjects_not_asked_for(results: Results) -> list[str]:
    """What the record has no step of, by the subjects of analyses."""
    known, _ = _definitions([results])
    there = {step.analysis for step in results.analyses.values()}
    asked = {definition.subject for definition in known if definition.name in there}
    return list(dict.fromkeys(each.subject for each in known if each.subject and each.subject not in asked))


def step_text(results: Results, step: str) -> str:
    """A step of a record in its analysis' words; empty where no analysis that is installed here has it."""
    step_result = results.analyses.get(step)
    try:
        definition = None if step_result is None else definition_of(step_result.analysis)
    except AnalysisUnusable:
        return ""
    return "" if definition is None else definition.words(step)


def notes_text(results: Results) -> list[str]:
    """The record's notes, each step at their beginning in its analysis' words."""
    notes = []
    for note in results.notes:
        begins = [step for step in results.analyses if note.startswith(f"{step}: ")]
        step = max(begins, key=len, default="")
        words = step_text(results, step) if step else ""
        notes.append(f"{words[:1].upper()}{words[1:]}{note.removeprefix(step)}" if words and words != step else note)
    return notes


def in_rich(titled: TitledTable) -> RichTable | Text:
    """A table for the terminal, or why it is empty."""
    table = titled.table
    if not table.rows:
        return Text(f"{titled.caption}: {table.why_empty}" if table.why_empty else titled.caption)
    rich = RichTable(title=Text(titled.caption), caption=table.note or None, caption_justify="left")
    for header, numeric in zip(table.headers, table.numeric, strict=True):
        rich.add_column(Text(header), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in table.rows:
        if row[0].mark == POOLED:
            rich.add_section()
        rich.add_row(*(Text(cell.text, style="red" if cell.mark == "bad" else "") for cell in row))
    return rich


def _definitions(records: Sequence[Results]) -> tuple[list[Definition], tuple[str, ...]]:
    """The analyses in records, and a sentence on each that cannot be shown here."""
    named = {step.analysis for results in records for step in results.analyses.values()}
    definitions, unknown = list(own().values()), []
    for name in sorted(named - own().keys()):
        try:
            definition, why = definition_of(name), "no package with it is installed here"
        except AnalysisUnusable as error:
            definition, why = None, str(error)
        if definition is not None:
            definitions.append(definition)
        else:
            unknown.append(f"What the analysis {name} found is in the record and not shown: {why}.")
    return in_order(definitions), tuple(unknown)
