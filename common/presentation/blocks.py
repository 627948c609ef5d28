"""What an analysis shows of itself: sentences, tables and figures, and where in the report they stand.

Terminal, report and comparison draw these and know nothing of the analysis they come from.

Display
├── sentences   the report's first screen and the end of a run
├── terminal    tables and sentences at the end of a run
├── tells_sites whether the terminal's tables tell each site's patients and status, so that no other table has to
├── first       tables of the first screen
├── sections    of the page, each a heading over blocks: FigureBlock, TitledTable, Paragraph or Folded
├── references  errors in years that a learning curve is held against, each with its words
└── of a comparison
    ├── columns    of its first table in the terminal: a header, and by a run's label its cell
    ├── headline   the same in terminal and page, before those
    ├── notes      what of it cannot be compared, in sentences
    └── document   its further keys as a document
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

from fedage.common.presentation.cells import Cell, Table
from fedage.common.record.results import Results


@dataclass(frozen=True)
class FigureBlock:
    """A figure, or the reason there is none.

    Parameters
    ----------
    draw
        Gives an `<svg>` element as `presentation.svg.draw` does, or None; called where a page is made only, so this is
        the place to import what draws.
    runs
        Of a comparison, the labels of the runs that are in it.
    """

    kind: ClassVar[str] = "drawn"
    draw: Callable[[], str | None]
    caption: str
    why_empty: str = ""
    runs: tuple[str, ...] = ()

    @cached_property
    def svg(self) -> str | None:
        """The figure; None if there is none."""
        return self.draw()


@dataclass(frozen=True)
class TitledTable:
    """A table under its caption."""

    kind: ClassVar[str] = "titled"
    table: Table
    caption: str


@dataclass(frozen=True)
class Paragraph:
    """Text; a `note` is set small, a reason why something is `missing` in a box."""

    kind: ClassVar[str] = "paragraph"
    text: str
    note: bool = True
    missing: bool = False


@dataclass(frozen=True)
class Folded:
    """Blocks that a reader opens."""

    kind: ClassVar[str] = "folded"
    summary: str
    blocks: tuple[FigureBlock | TitledTable | Paragraph, ...]


Column = tuple[str, Mapping[str, Cell]]
"""A header, and by a run's label its cell."""
Block = FigureBlock | TitledTable | Paragraph | Folded


@dataclass(frozen=True)
class Section:
    """A part of the report. Sections of one name are one: the heading is that of the first, the blocks follow.

    Parameters
    ----------
    name
        Of the element in the page, e.g. `survival`.
    heading
        Above it.
    blocks
        In it.
    place
        Sections stand in the order of these.
    reasons_once
        Whether a section in which nothing is drawn and no table has a row gives the reasons once, in place of its
        blocks.
    withheld
        Steps of which the report says at the section's end which sites' sums are not in them, and why.
    """

    name: str
    heading: str
    blocks: tuple[Block, ...]
    place: int = 100
    withheld: tuple[str, ...] = ()
    reasons_once: bool = False


@dataclass(frozen=True)
class Display:
    """What an analysis shows; see the head of this file."""

    sentences: tuple[str, ...] = ()
    terminal: tuple[TitledTable | str, ...] = ()
    first: tuple[TitledTable | Paragraph, ...] = ()
    tells_sites: bool = False
    columns: tuple[Column, ...] = ()
    headline: tuple[Column, ...] = ()
    sections: tuple[Section, ...] = ()
    references: tuple[tuple[float, str], ...] = ()
    notes: tuple[str, ...] = ()
    document: Mapping[str, Any] = field(default_factory=dict)


class NamedRun(Protocol):
    """A run among those that are compared."""

    @property
    def label(self) -> str:
        """What tables and figures call it; unique in a comparison."""

    @property
    def results(self) -> Results:
        """Its record."""

    @property
    def but_for_the_seed(self) -> Hashable | None:
        """What its campaign file says apart from its seed and name; None if the file is not at hand."""


def merged(sections: list[Section]) -> list[Section]:
    """Sections in order of place, those of one name made one."""
    by_name: dict[str, Section] = {}
    for section in sorted(sections, key=lambda each: each.place):
        first = by_name.get(section.name)
        by_name[section.name] = (
            section
            if first is None
            else Section(
                first.name,
                first.heading,
                (*first.blocks, *section.blocks),
                first.place,
                (*first.withheld, *section.withheld),
                first.reasons_once,
            )
        )
    return [_with_reasons_once(section) for section in by_name.values()]


def _with_reasons_once(section: Section) -> Section:
    inside = [block for each in section.blocks for block in (each.blocks if isinstance(each, Folded) else (each,))]
    figures = [block for block in inside if isinstance(block, FigureBlock)]
    tables = [block.table for block in inside if isinstance(block, TitledTable)]
    if not section.reasons_once or any(each.svg for each in figures) or any(table.rows for table in tables):
        return section
    reasons = [
        reason for reason in (*(each.why_empty for each in figures[:1]), *(t.why_empty for t in tables[:1])) if reason
    ]
    boxes = (Paragraph(reason, missing=True) for reason in dict.fromkeys(_sentence(reason) for reason in reasons))
    return replace(section, blocks=tuple(boxes))


def _sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
