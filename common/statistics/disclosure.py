"""Small cells: what a table may show when few patients stand behind one of its cells.

A count below the minimum is not shown, and neither is anything from which it follows by subtraction (statistical
disclosure control's primary and complementary suppression).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray, Statistic


@dataclass(frozen=True)
class Suppressed:
    """A table without small cells.

    Parameters
    ----------
    counts
        The counts, 0 where a cell is withheld; the shape of the input.
    shown
        Which cells are as they were (an empty cell counts as shown).
    withheld
        How many patients are in the withheld cells together.
    """

    counts: FloatArray
    shown: NDArray[np.bool_]
    withheld: int


def suppress_small_cells(counts: FloatArray, minimum: int) -> Suppressed:
    """Withhold every cell with 0 < count < `minimum`, and one more if the withheld total would itself be that small.

    The total of a table is usually known from elsewhere, so that the withheld total follows by subtraction; it must
    be no small cell either. If all patients together are fewer than `minimum`, all cells are withheld and `withheld`
    is that small number: the guard has to block the whole table.

    Parameters
    ----------
    counts
        Non-negative whole counts of patients, any shape.
    minimum
        Fewest patients that a shown cell may hold; 1 shows everything.
    """
    return _suppress(counts, _large_enough(counts, minimum), minimum)


def suppress_by_row(counts: FloatArray, minimum: int, *, rows: NDArray[np.bool_] | None = None) -> Suppressed:
    """The same for a table (R, C) whose row totals are known from elsewhere: no row's withheld total is small either.

    A row of fewer than `minimum` patients is withheld altogether, as the table of the row totals has to withhold it,
    and so is one that is not among `rows` (R,).
    """
    shown = np.array([suppress_small_cells(row, minimum).shown for row in counts]).reshape(counts.shape)
    return _suppress(counts, shown if rows is None else shown & rows[:, None], minimum)


def without_few(statistic: Statistic, *, minimum: int) -> Statistic:
    """The statistic with small counts of its own replaced by 0 and by 1 in the field that says so (`Field.few`)."""
    values = {field.name: statistic[field.name] for field in statistic.layout.fields}
    for field in statistic.layout.fields:
        if field.few and 0 < statistic.scalar(field.name) < minimum:
            values |= {field.name: np.zeros(()), field.few: np.ones(())}
    return replace(statistic, vector=statistic.layout.flatten(values))


def _large_enough(counts: FloatArray, minimum: int) -> NDArray[np.bool_]:
    if minimum < 1:
        raise ValueError(f"minimum={minimum} must be at least 1 patient; see privacy.minimum_count")
    large: NDArray[np.bool_] = (counts == 0) | (counts >= minimum)
    return large


def _suppress(counts: FloatArray, shown: NDArray[np.bool_], minimum: int) -> Suppressed:
    """Withhold what is not `shown`, and the smallest shown cell too if the withheld total would be small."""
    occupied = np.where(shown & (counts > 0), counts, np.inf)
    if 0 < counts[~shown].sum() < minimum and np.isfinite(occupied).any():
        shown = shown.copy()
        shown[np.unravel_index(np.argmin(occupied), counts.shape)] = False
    return Suppressed(counts=np.where(shown, counts, 0.0), shown=shown, withheld=int(counts[~shown].sum()))
