"""A coarse grid over images of one shape: where it is cut, and what its cells are called as columns of a cohort.

Notation: an image has sides s₁ … s_r, r = 2 or 3; a grid has cells g₁ … g_r, K = Πg in C order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

SALIENCY = "saliency:"
"""Begins the names of columns that say how much of a predicted age rests on a cell of an image."""


@dataclass(frozen=True)
class CoarseGrid:
    """The grid over one input of an estimator.

    Parameters
    ----------
    name
        The input, e.g. `L-CC`.
    shape
        Sides (s₁ …) of its image in pixels or voxels, as the estimator's preprocessing makes it.
    cells
        Cells (g₁ …) along each side.
    """

    name: str
    shape: tuple[int, ...]
    cells: tuple[int, ...]

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...], *, longest: int) -> CoarseGrid:
        """About cubic cells, `longest` along the longest side.

        >>> CoarseGrid.of("L-CC", (64, 32), longest=8).cells
        (8, 4)
        """
        largest = max(shape)
        cells = tuple(max(1, min(side, round(side / largest * longest))) for side in shape)
        return cls(name, tuple(shape), cells)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names (K,) of the cells."""
        return tuple(f"{SALIENCY}{self.name}:{'-'.join(map(str, place))}" for place in product(*map(range, self.cells)))

    def slices(self) -> Iterator[tuple[slice, ...]]:
        """Where each cell lies in the image."""
        sides = []
        for side, cells in zip(self.shape, self.cells, strict=True):
            cuts = [round(side * k / cells) for k in range(cells + 1)]
            sides.append([slice(low, high) for low, high in pairwise(cuts)])
        return product(*sides)
