"""A statistic in the ring of `privacy.ring`, and a sum of statistics back: both sides derive it from the layout."""

from __future__ import annotations

import numpy as np

from fedage.common.privacy import ring
from fedage.common.statistics.statistic import FloatArray, Layout

STATISTIC_WORDS = 2
"""128 bits: bounds of statistics differ by twenty powers of ten, and what is left holds more digits than a float64."""


def statistic_rows(layout: Layout, vector: FloatArray, *, sites: int) -> ring.Words:
    """Sums of one site of `sites` as rows (v, 2). Raises `ring.OutOfRange` for values outside the layout's bounds."""
    bounds = _bounds(layout)
    return ring.encode(
        vector, ring.places_of(bounds, sites=sites, words=STATISTIC_WORDS), bounds=bounds, words=STATISTIC_WORDS
    )


def summed_statistic(layout: Layout, rows: ring.Words, *, sites: int) -> FloatArray:
    """The sum (v,) over at most `sites` sites: exact for counts, else within `sites` × 2^-(places + 1)."""
    values = ring.decode(rows, ring.places_of(_bounds(layout), sites=sites, words=STATISTIC_WORDS))
    whole = layout.whole()
    values[whole] = np.rint(values[whole])
    return values


def _bounds(layout: Layout) -> FloatArray:
    lower, upper = layout.bounds()
    return np.maximum(np.abs(lower), np.abs(upper))
