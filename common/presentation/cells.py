"""Table cells: a text for the eye and, for numbers, the record's full value beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

POOLED = "pooled"


@dataclass(frozen=True)
class Cell:
    """One cell. `value` is the number as `results.json` has it, and makes the cell a number.

    `mark` is "good" or "bad" where the cell is a verdict, `POOLED` in the first cell of a row over several sites.
    """

    text: str
    value: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table, or the reason there is none."""

    name: str
    headers: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    why_empty: str = ""
    note: str = ""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column whether it holds numbers, which are aligned on the right so that decimals stand below."""
        return tuple(
            any(row[column].value for row in self.rows if column < len(row)) for column in range(len(self.headers))
        )


NONE = Cell("–")


def words(text: str) -> Cell:
    """A cell of text."""
    return Cell(text) if text else NONE


def number(value: float | None, digits: int = 2) -> Cell:
    """A number with so many decimals; a dash if it could not be computed."""
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return Cell(text.replace("-", "−"), repr(float(value)))


def at_least(value: float | None, *, bound: bool) -> Cell:
    """A number that may be a lower bound only, and is marked with ≥ then."""
    cell = number(value)
    return Cell(f"≥ {cell.text}", cell.value) if bound and value is not None else cell


def percent(value: float | None) -> Cell:
    """A fraction as a percentage."""
    return NONE if value is None else Cell(f"{value:.1%}".replace("%", " %"), repr(float(value)))


def share_between(value: float | None, low: float | None, high: float | None) -> Cell:
    """A fraction, or the bounds it lies between where sites tell no more, each rounded outwards."""
    if value is not None or low is None or high is None:
        return percent(value)
    if low <= 0 and high >= 1:
        return Cell("withheld")
    lowest, highest = (
        f"{per_mille / 10:.1f} %" for per_mille in (math.floor(low * 1000 + 1e-9), math.ceil(high * 1000 - 1e-9))
    )
    text = f"≤ {highest}" if low <= 0 else f"≥ {lowest}" if high >= 1 else f"{lowest} to {highest}"
    return Cell(text, f"{float(low)!r} {float(high)!r}")


def count(value: int | None) -> Cell:
    """A count of patients; one that is null was withheld because it is small."""
    return Cell("withheld") if value is None else Cell(f"{value:,}".replace(",", " "), repr(int(value)))


def left_out(counted: int, *, few_sites: int) -> Cell:
    """Patients left out where sites tell how many; others leave out fewer than the minimum count each."""
    if not few_sites:
        return count(counted)
    few = f"fewer than the minimum count at {few_sites} site{'s' if few_sites > 1 else ''}"
    return Cell(f"{count(counted).text}, and {few}" if counted else few)


def p_value(value: float | None) -> Cell:
    """A p-value."""
    if value is None:
        return NONE
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", repr(float(value)))


def interval(low: float | None, high: float | None, digits: int = 3) -> Cell:
    """A 95 % interval."""
    if low is None or high is None:
        return NONE
    return Cell(f"{low:.{digits}f} to {high:.{digits}f}".replace("-", "−"), f"{float(low)!r} {float(high)!r}")


def reasons(counts: Mapping[str, int | None], *, minimum: int | None = None) -> Cell:
    """Counts by reason code, in one cell; one that is null is some, but fewer than the site's minimum count."""
    few = "(withheld)" if minimum is None else f"fewer than {minimum}"
    parts = [f"{code} {few if n is None else n}" for code, n in sorted(counts.items()) if n != 0]
    return Cell(", ".join(parts)) if parts else Cell("none")
