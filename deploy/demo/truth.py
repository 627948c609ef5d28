"""What the planted truth of the phantoms implies: the numbers an honest result is held against.

Notation: Ω chronological age, g true gap ~ N(0, σ²), b = Ω + g biological age; a site's ages are uniform. The picture
shows b and nothing else of Ω, so even a perfect reader of the picture is left with the error computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from fedage.common.statistics.statistic import FloatArray


@dataclass(frozen=True)
class Planted:
    """What the phantoms were rendered with.

    Parameters
    ----------
    hazard_ratio_per_year
        Of the true gap, chronological age held fixed.
    hazard_ratio_per_year_of_age
        Of chronological age, the gap held fixed.
    gap_sd_years
        σ of the true gap.
    age_range_years
        By site: bounds of the uniform ages at exam.
    irreducible_mae_years
        By site: MAE of the best possible reader of the biological age.
    """

    hazard_ratio_per_year: float
    hazard_ratio_per_year_of_age: float
    gap_sd_years: float
    age_range_years: dict[str, tuple[float, float]]
    irreducible_mae_years: dict[str, float]


def posterior_median_age_years(
    biological_age_years: float, *, age_min_years: float, age_max_years: float, gap_sd_years: float
) -> float:
    """Median of Ω given b: the estimate of least mean absolute error.

    With Ω uniform on [l, u] the posterior is N(b, σ²) cut to [l, u]; its median is b + σ Φ⁻¹((Φ(α) + Φ(β)) / 2) with
    α = (l − b)/σ, β = (u − b)/σ. Far outside [l, u] the difference of Φ underflows; the side with the smaller
    tail is the one computed, by the symmetry Φ(x) = 1 − Φ(−x).

    >>> posterior_median_age_years(50.0, age_min_years=40.0, age_max_years=60.0, gap_sd_years=3.0)
    50.0
    """
    return float(_posterior_median(np.array([biological_age_years]), age_min_years, age_max_years, gap_sd_years)[0])


def _posterior_median(b: FloatArray, low: float, high: float, sd: float) -> FloatArray:
    # Mirror ages above the middle, so that only lower tails of Φ are added up: they keep their relative precision.
    middle = (low + high) / 2
    mirrored = np.where(b < middle, 2 * middle - b, b)
    alpha, beta = (low - mirrored) / sd, (high - mirrored) / sd
    median = mirrored + sd * norm.ppf((norm.cdf(alpha) + norm.cdf(beta)) / 2)
    return np.asarray(np.where(b < middle, 2 * middle - median, median))


def irreducible_mae_years(
    *, age_min_years: float, age_max_years: float, gap_sd_years: float, grid_points: int = 1201
) -> float:
    """Mean |Ω − posterior median(Ω | b)| over Ω uniform on the range and g ~ N(0, σ²), on a grid of Ω and g.

    It is below σ√(2/π), the mean |g|, because a reader who knows the site's range uses it.

    >>> round(irreducible_mae_years(age_min_years=40.0, age_max_years=55.0, gap_sd_years=6.0), 2)
    2.84
    """
    if not age_min_years < age_max_years or gap_sd_years <= 0:
        raise ValueError(
            f"ages {age_min_years:g}-{age_max_years:g} and gap_sd_years={gap_sd_years:g} must be a range and > 0"
        )
    step = (age_max_years - age_min_years) / grid_points
    ages = age_min_years + step * (np.arange(grid_points) + 0.5)  # (a,) midpoints
    z = np.linspace(-6.0, 6.0, grid_points)  # (z,)
    weight = norm.pdf(z) / norm.pdf(z).sum()
    b = ages[:, None] + gap_sd_years * z[None, :]  # (a, z)
    error = np.abs(ages[:, None] - _posterior_median(b, age_min_years, age_max_years, gap_sd_years))
    return float((error @ weight).mean())


def mae_of_mean_years(ranges: Sequence[tuple[float, float]], *, weights: Sequence[float] | None = None) -> float:
    """MAE of always predicting the pooled mean age, sites' ages uniform on `ranges`, in proportion to `weights`.

    For a uniform on [l, u] of width w, mean |Ω − m| is ((m−l)² + (u−m)²) / 2w if m lies within, |midpoint − m| if not.

    >>> mae_of_mean_years([(40.0, 80.0)])
    10.0
    """
    share = np.full(len(ranges), 1.0) if weights is None else np.asarray(weights, dtype=np.float64)
    share = share / share.sum()
    low, high = np.asarray(ranges, dtype=np.float64).T
    mean = float(share @ ((low + high) / 2))
    within = ((mean - low) ** 2 + (high - mean) ** 2) / (2 * (high - low))
    outside = np.abs((low + high) / 2 - mean)
    return float(share @ np.where((low <= mean) & (mean <= high), within, outside))


def attenuation(estimated_gap_years: FloatArray, *, true_gap_years: FloatArray, age_years: FloatArray) -> float:
    """Cov(ĝ, g) / Var(ĝ), age held fixed: how much of a year of true gap is in a year of estimated gap.

    The slope of g on ĝ after both are freed of their linear dependence on age (Frisch-Waugh): arrays (n,).
    """
    design = np.column_stack([np.ones_like(age_years), age_years])
    both = np.column_stack([estimated_gap_years, true_gap_years])
    residual = both - design @ np.linalg.lstsq(design, both, rcond=None)[0]
    return float(residual[:, 0] @ residual[:, 1] / (residual[:, 0] @ residual[:, 0]))


def expected_hazard_ratio(planted: Planted, *, attenuation: float) -> float:
    """What a Cox model on the estimated gap aims at: HR to the power Cov(ĝ, g)/Var(ĝ), age held fixed."""
    return float(planted.hazard_ratio_per_year**attenuation)
