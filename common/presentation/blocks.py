"""What an analysis shows of itself: sentences, tables and figures, and where in the report they stand.

Terminal, report and comparison draw these and know nothing of the analysis they come from.

Shown
├── sentences   the report's first screen and the end of a run
├── terminal    tables and sentences at the end of a run
├── tells_sites whether the terminal's tables tell each site's patients and status, so that no other table has to
├── columns     of a comparison's first table: a header, and by a run's label its cell
├── first       tables of the report's first screen
└── sections    of the report, each a heading over blocks: Drawn, Titled, Paragraph or Folded
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol

from fedage.common.presentation.cells import Cell, Table
from fedage.common.record.results import Results


@dataclass(frozen=True)
class Drawn:
    """A figure, or the reason there is none.

    Parameters
    ----------
    draw
        Gives an `<svg>` element as `presentation.svg.draw` does, or None; called where a page is made only, so this is
        the place to import what draws.
    """

    kind: ClassVar[str] = "drawn"
    draw: Callable[[], str | None]
    caption: str
    why_empty: str = ""
    without: str = ""

    @cached_property
    def svg(self) -> str | None:
        """The figure; None if there is none."""
        return self.draw()


@dataclass(frozen=True)
class Titled:
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
    blocks: tuple[Drawn | Titled | Paragraph, ...]


Block = Drawn | Titled | Paragraph | Folded


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
class Shown:
    """What an analysis shows; see the head of this file."""

    sentences: tuple[str, ...] = ()
    terminal: tuple[Titled | str, ...] = ()
    first: tuple[Titled, ...] = ()
    tells_sites: bool = False
    columns: tuple[tuple[str, Mapping[str, Cell]], ...] = ()
    sections: tuple[Section, ...] = ()


class NamedRun(Protocol):
    """A run among those that are compared."""

    @property
    def label(self) -> str:
        """What tables and figures call it; unique in a comparison."""

    @property
    def results(self) -> Results:
        """Its record."""


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
    figures = [block for block in inside if isinstance(block, Drawn)]
    tables = [block.table for block in inside if isinstance(block, Titled)]
    if not section.reasons_once or any(each.svg for each in figures) or any(table.rows for table in tables):
        return section
    reasons = [
        reason for reason in (*(each.why_empty for each in figures[:1]), *(t.why_empty for t in tables[:1])) if reason
    ]
    boxes = (Paragraph(reason, missing=True) for reason in dict.fromkeys(_sentence(reason) for reason in reasons))
    return replace(section, blocks=tuple(boxes))


def _sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
