"""Bins of age, fixed by the campaign file and closed on the left; the outermost ones take whatever lies beyond."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray


def age_edges(lowest_years: float, highest_years: float) -> tuple[float, ...]:
    """Edges of age bins over a range: 1, 2 or 5 years wide if eight such bins are enough, else 10, on round ages."""
    span = highest_years - lowest_years
    width = next((width for width in (1.0, 2.0, 5.0) if span <= 8 * width), 10.0)
    first, last = (
        np.floor(lowest_years / width),
        max(np.ceil(highest_years / width), 1 + np.floor(lowest_years / width)),
    )
    return tuple(float(edge) for edge in np.arange(first, last + 1) * width)


def bin_of(values: FloatArray, edges: tuple[float, ...]) -> NDArray[np.intp]:
    """Bin of each value (n,), 0 to len(edges) − 2."""
    return np.clip(np.searchsorted(np.asarray(edges), values, side="right") - 1, 0, len(edges) - 2)
