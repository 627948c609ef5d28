"""A statistic in the ring of `privacy.ring`, and a sum of statistics back: both sides derive it from the layout."""

from __future__ import annotations

import numpy as np

from fedage.common.privacy import ring
from fedage.common.statistics.statistic import FloatArray, Layout

_SITES_BITS = 14
"""Of the most sites of a campaign."""


def statistic_words(layout: Layout) -> int:
    """Words of a row, two at least: bounds of statistics differ by eighty powers of ten."""
    _, exponent = np.frexp(_bounds(layout).max(initial=1.0))
    return max(2, -(-(2 + ring.MOST_PLACES + _SITES_BITS + int(exponent)) // 64))


def statistic_rows(layout: Layout, vector: FloatArray, *, sites: int) -> ring.Words:
    """Sums of one site of `sites` as rows (v, w). Raises `ring.OutOfRange` for values outside the layout's bounds."""
    bounds, words = _bounds(layout), statistic_words(layout)
    return ring.encode(vector, ring.places_of(bounds, sites=sites, words=words), bounds=bounds, words=words)


def summed_statistic(layout: Layout, rows: ring.Words, *, sites: int) -> FloatArray:
    """The sum (v,) over at most `sites` sites: exact for counts, else within `sites` × 2^-(places + 1)."""
    values = ring.decode(rows, ring.places_of(_bounds(layout), sites=sites, words=rows.shape[1]))
    whole = layout.whole()
    values[whole] = np.rint(values[whole])
    return values


def _bounds(layout: Layout) -> FloatArray:
    lower, upper = layout.bounds()
    return np.maximum(np.abs(lower), np.abs(upper))
