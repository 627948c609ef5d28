"""Hazard ratios in words: with so many decimals that an interval says something."""

from __future__ import annotations

import math

from fedage.common.analyses.survival.results import Coefficient

_USUAL, _MOST = 3, 12
_SIGNIFICANT = 2
"""Digits that the width of an interval and its smallest number are shown with, at least."""
_LARGEST_SD, _SMALLEST_SD = 20.0, 0.1
"""In units: ages, scores and 0/1 covariates lie in between."""
_READABLE = 1000.0
"""Hazard ratios per unit that can be read, or their inverses."""


def ratio_decimals(*ratios: float | None) -> int:
    """Decimals for a hazard ratio and its bounds: of a covariate in small units, all three are near 1.

    Examples
    --------
    >>> [ratio_decimals(1.17, 1.05, 1.31), ratio_decimals(1.0000021, 1.0000011, 1.0000031), ratio_decimals(None)]
    [3, 7, 3]
    """
    known = [ratio for ratio in ratios if ratio is not None and math.isfinite(ratio)]
    if not known:
        return _USUAL
    least = min((size for size in (max(known) - min(known), *known) if size > 0), default=1.0)
    if least >= 10 ** -(_USUAL - 1):
        return _USUAL
    return min(_MOST, max(_USUAL, _SIGNIFICANT - 1 - math.floor(math.log10(least))))


def told_per_sd(item: Coefficient) -> bool:
    """Whether a covariate's hazard ratio is read per standard deviation (SD), not per unit.

    A unit may be small against the SD (a volume in mm³, an income: the ratio per unit is 1.000) or large against it (a
    lesion in m³, a diffusivity in m²/s: the ratio per unit is beyond reading). Years of a gap stay years, and a 0/1
    covariate stays one group against the other.
    """
    low, high = item.ci95_low, item.ci95_high
    if item.hazard_ratio_per_sd is None or item.sd is None or item.name.endswith("gap_years"):
        return False
    if item.hazard_ratio is None or low is None or high is None:
        return True
    return item.sd > _LARGEST_SD or (item.sd < _SMALLEST_SD and not (low > 1 / _READABLE and high < _READABLE))


def in_unit(item: Coefficient) -> tuple[float | None, float | None, float | None]:
    """The hazard ratio that is told of a covariate and the bounds of its 95 % interval, per unit or per SD."""
    if told_per_sd(item):
        return item.hazard_ratio_per_sd, item.ci95_per_sd_low, item.ci95_per_sd_high
    return item.hazard_ratio, item.ci95_low, item.ci95_high


def per_sd(item: Coefficient, *, decimals: int) -> str:
    """The hazard ratio per SD and its 95 % interval, where the one per unit, with so many decimals, says little.

    Examples
    --------
    >>> volume = Coefficient(name="brain", coef=2e-6, se=1e-6, hazard_ratio=1.000002, ci95_low=1.0, ci95_high=1.000004,
    ...                      sd=1e5, hazard_ratio_per_sd=1.2214, ci95_per_sd_low=1.0, ci95_per_sd_high=1.4918)
    >>> per_sd(volume, decimals=7)
    '; per SD 1.221 (1.000 to 1.492)'
    """
    if item.hazard_ratio_per_sd is None or not (decimals > _USUAL or told_per_sd(item)):
        return ""
    ratio, low, high = item.hazard_ratio_per_sd, item.ci95_per_sd_low, item.ci95_per_sd_high
    if low is None or high is None:
        return f"; per SD {ratio:.3f}"
    digits = ratio_decimals(ratio, low, high)
    return f"; per SD {ratio:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
