"""How the results of an analysis are shown where each is a few rows of one table: of a run and of several runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fedage.common.presentation.blocks import Block, Display, NamedRun, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import Cell, Table, words
from fedage.common.record.parts import AnalysisResult
from fedage.common.record.results import Results

Kind = TypeVar("Kind", bound=AnalysisResult)


@dataclass(frozen=True, kw_only=True)
class ShownInRows(Generic[Kind]):
    """What is shown of one analysis.

    Parameters
    ----------
    name, result, words, place
        As of the `Definition`.
    rows, headers
        A result's rows of the table, and the table's columns.
    title, caption, note
        The section's heading, the table's caption, and what a reader must know of it.
    sentence
        A result in a sentence.
    more
        Further tables of a run.
    """

    name: str
    result: type[Kind]
    words: Callable[[str], str]
    rows: Callable[[Kind], Iterable[tuple[Cell, ...]]]
    headers: tuple[str, ...]
    title: str
    caption: str
    note: str
    sentence: Callable[[Kind], str]
    place: int
    more: Callable[[Results], Iterable[TitledTable]] = lambda _: ()

    def shown(self, results: Results) -> Display:
        """Of a run that has a step of it: all models in one table, and which of them have no result."""
        steps, answers = results.steps_of(self.name), results.of_type(self.result).values()
        if not steps:
            return Display()
        missing = [
            f"{self.words(name)} is not computed: {step.not_computed}."
            for name, step in steps.items()
            if step.result is None
        ]
        rows = tuple(row for answer in answers for row in self.rows(answer))
        table = TitledTable(Table(self.name, self.headers, rows, why_empty=" ".join(missing)), self.caption)
        blocks: tuple[Block, ...] = (table, *self.more(results), Paragraph(self.note))
        return Display(
            sentences=tuple(map(self.sentence, answers)),
            terminal=(table, *(f"{text[0].upper()}{text[1:]}" for text in missing)),
            sections=(Section(self.name, self.title, blocks, place=self.place),),
        )

    def compared(self, runs: Sequence[NamedRun]) -> Display:
        """The run in front of each row; nothing where no run has any result."""
        rows = tuple(
            (words(run.label), *row)
            for run in runs
            for answer in run.results.of_type(self.result).values()
            for row in self.rows(answer)
        )
        if not rows:
            return Display()
        table = TitledTable(Table(self.name, ("run", *self.headers), rows), self.caption)
        return Display(terminal=(table,), sections=(Section(self.name, self.title, (table,), place=self.place),))
