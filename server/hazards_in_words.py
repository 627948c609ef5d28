"""Hazard ratios in words: with so many decimals that an interval says something."""

from __future__ import annotations

import math

_USUAL, _MOST = 3, 12
_SIGNIFICANT = 2
"""Digits that the width of an interval and its smallest number are shown with, at least."""


def ratio_decimals(*ratios: float | None) -> int:
    """Decimals for a hazard ratio and its bounds: of a covariate in small units, all three are near 1.

    Examples
    --------
    >>> [ratio_decimals(1.17, 1.05, 1.31), ratio_decimals(1.0000021, 1.0000011, 1.0000031), ratio_decimals(None)]
    [3, 7, 3]
    """
    told = [ratio for ratio in ratios if ratio is not None and math.isfinite(ratio)]
    if not told:
        return _USUAL
    least = min((size for size in (max(told) - min(told), *told) if size > 0), default=1.0)
    if least >= 10 ** -(_USUAL - 1):
        return _USUAL
    return min(_MOST, max(_USUAL, _SIGNIFICANT - 1 - math.floor(math.log10(least))))


def per_sd(ratio: float | None, *, decimals: int) -> str:
    """The hazard ratio per standard deviation, where the one per unit is too near 1 to be read."""
    return "" if ratio is None or decimals <= _USUAL else f"; per SD {ratio:.3f}"
