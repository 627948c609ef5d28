"""The one thing a site sends: a sum of known layout.

A `Statistic` adds, flattens to one vector whose bounds are known before any patient is looked at (for secure
aggregation), and names the smallest group of patients behind any of its cells (for disclosure control).

Notation: s sites, v values. A statistic is a float64 vector (v,); `Layout` says which entries are what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MAX_PATIENTS = 1e7
"""Most patients of one site, for bounds."""


@dataclass(frozen=True)
class Field:
    """One named block of a statistic.

    Parameters
    ----------
    name
        Unique in its layout.
    shape
        Shape of the block; `()` for a scalar.
    lower, upper
        Bounds of *one site's* contribution per entry, in the entry's own unit. They come from the campaign file, never
        from data. A bound of a sum over patients is so much for each of the most patients that a site may have.
    whole
        Whether the entries are counts, whole numbers.
    few
        Of a count of patients that is told only where it is not small: the field that is 1 where it is. Empty for a
        field whose patients are among the statistic's cells.
    """

    name: str
    shape: tuple[int, ...] = ()
    lower: float = -1e12
    upper: float = 1e12
    whole: bool = False
    few: str = ""

    @property
    def size(self) -> int:
        """Number of values in the block."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Layout:
    """The ordered blocks of a statistic: both sides derive it from the campaign file and the iterate."""

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        if len(set(names)) != len(names):
            raise ValueError(f"layout has repeated field names: {names}")

    @cached_property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(field.size for field in self.fields)

    @cached_property
    def _slices(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        slices, start = {}, 0
        for field in self.fields:
            slices[field.name] = (slice(start, start + field.size), field.shape)
            start += field.size
        return slices

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper bound of every entry of one site's vector, two arrays (v,) that cannot be written to."""
        return self._bounds

    @cached_property
    def _bounds(self) -> tuple[FloatArray, FloatArray]:
        sizes = [field.size for field in self.fields]
        lower, upper = (
            np.repeat(np.array(ends, dtype=np.float64), sizes)
            for ends in ([field.lower for field in self.fields], [field.upper for field in self.fields])
        )
        lower.flags.writeable = upper.flags.writeable = False
        return lower, upper

    def whole(self) -> NDArray[np.bool_]:
        """Which entries are counts, (v,), not to be written to."""
        return self._whole

    @cached_property
    def _whole(self) -> NDArray[np.bool_]:
        fields = self.fields
        whole = np.repeat(np.array([f.whole for f in fields], dtype=np.bool_), [f.size for f in fields])
        whole.flags.writeable = False
        return whole

    def flatten(self, values: Mapping[str, FloatArray | float]) -> FloatArray:
        """Put named blocks into one vector (v,).

        Raises
        ------
        ValueError
            If a block is missing, unknown or of the wrong shape.
        """
        if set(values) != set(self._slices):
            raise ValueError(f"statistic has blocks {sorted(values)}, its layout {sorted(self._slices)}")
        vector = np.empty(self.size)
        for name, (where, shape) in self._slices.items():
            block = np.asarray(values[name], dtype=np.float64)
            if block.shape != shape:
                raise ValueError(f"block {name} has shape {block.shape}, its layout says {shape}")
            vector[where] = block.ravel()
        return vector

    def block(self, vector: FloatArray, name: str) -> FloatArray:
        """The named block of a flat vector, in its own shape."""
        where, shape = self._slices[name]
        return vector[where].reshape(shape)


@dataclass(frozen=True)
class Cell:
    """A group of patients that a statistic describes: how many, and in words which (never who)."""

    count: int
    of: str


@dataclass(frozen=True)
class Statistic:
    """A flat vector with its layout and the smallest non-empty cell of patients behind it.

    Parameters
    ----------
    layout
        What the entries are.
    vector
        Shape (v,), float64.
    smallest
        The smallest non-empty group behind any released cell, complementary groups included; None if no patient
        contributed at all.
    """

    layout: Layout
    vector: FloatArray
    smallest: Cell | None

    def __post_init__(self) -> None:
        if self.vector.shape != (self.layout.size,):
            raise ValueError(f"statistic has {self.vector.shape} values, its layout {self.layout.size}")

    @classmethod
    def of(cls, layout: Layout, values: Mapping[str, FloatArray | float], cells: Iterable[Cell]) -> Statistic:
        """Build from named blocks and the groups of patients behind them; empty groups say nothing and are dropped."""
        occupied = [cell for cell in cells if cell.count > 0]
        smallest = min(occupied, key=lambda cell: cell.count, default=None)
        return cls(layout=layout, vector=layout.flatten(values), smallest=smallest)

    @classmethod
    def zero(cls, layout: Layout) -> Statistic:
        """The neutral element of the sum."""
        return cls(layout=layout, vector=np.zeros(layout.size), smallest=None)

    def __getitem__(self, name: str) -> FloatArray:
        return self.layout.block(self.vector, name)

    def scalar(self, name: str) -> float:
        """A block of shape () as a float."""
        return float(self[name])

    def __add__(self, other: Statistic) -> Statistic:
        if other.layout != self.layout:
            raise ValueError("statistics of different layouts do not add")
        cells = [cell for cell in (self.smallest, other.smallest) if cell is not None]
        return Statistic(
            layout=self.layout,
            vector=self.vector + other.vector,
            smallest=min(cells, key=lambda cell: cell.count, default=None),
        )


def total(layout: Layout, by_site: Mapping[str, Statistic]) -> Statistic:
    """Sum in the order of the sites' names, so that the order of arrival changes no bit of the result."""
    result = Statistic.zero(layout)
    for site in sorted(by_site):
        result = result + by_site[site]
    return result
