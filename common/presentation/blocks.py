"""What an analysis shows of itself: sentences, tables and figures, and where in the report they stand.

Terminal, report and comparison draw these and know nothing of the analysis they come from.

Shown
├── sentences   the report's first screen and the end of a run
├── terminal    tables and sentences at the end of a run
├── first       tables of the report's first screen
└── sections    of the report, each a heading over blocks: Drawn, Titled, Paragraph or Folded
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from fedage.common.presentation.cells import Table
from fedage.common.record.results import Results


@dataclass(frozen=True)
class Drawn:
    """A figure, an `<svg>` element as `presentation.svg.draw` gives it, or the reason there is none."""

    kind: ClassVar[str] = "drawn"
    svg: str | None
    caption: str
    why_empty: str = ""
    without: str = ""


@dataclass(frozen=True)
class Titled:
    """A table under its caption."""

    kind: ClassVar[str] = "titled"
    table: Table
    caption: str


@dataclass(frozen=True)
class Paragraph:
    """Text; a `note` is set small."""

    kind: ClassVar[str] = "paragraph"
    text: str
    note: bool = True


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
    withheld
        Steps of which the report says at the section's end which sites' sums are not in them, and why.
    """

    name: str
    heading: str
    blocks: tuple[Block, ...]
    place: int = 100
    withheld: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """What an analysis shows; see the head of this file."""

    sentences: tuple[str, ...] = ()
    terminal: tuple[Titled | str, ...] = ()
    first: tuple[Titled, ...] = ()
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
            )
        )
    return list(by_name.values())
