"""Hazard ratios per unit of a covariate in small units are shown with digits that say something."""

from __future__ import annotations

import math
import re

import pytest

from fedage.common.analyses.survival._hazards_text import in_unit, per_sd, ratio_decimals, told_per_sd
from fedage.common.analyses.survival.results import Coefficient


@pytest.mark.parametrize(
    ("ratio", "low", "high"),
    [
        (1.0000021, 1.0000011, 1.0000031),  # a brain volume in mm³
        (0.99998, 0.99995, 1.00001),
        (1.0021, 1.0007, 1.0035),
        (1.00000000321, 1.00000000318, 1.00000000324),
        (0.00004, 0.00001, 0.3),
        (1.17, 1.05, 1.31),
        (4.1, 0.2, 900.0),
    ],
)
def test_ratio_and_bounds_can_be_told_apart(ratio: float, low: float, high: float) -> None:
    decimals = ratio_decimals(ratio, low, high)

    shown = [f"{value:.{decimals}f}" for value in (low, ratio, high)]

    assert len(set(shown)) == 3
    assert all(float(text) > 0 for text in shown)
    assert float(shown[0]) < float(shown[1]) < float(shown[2])
    assert (float(shown[2]) < 1) == (high < 1)


@pytest.mark.parametrize("ratios", [(1.17, 1.05, 1.31), (1.0, 0.9, 1.1), (1.02, 1.01, 1.03), (None, None, None)])
def test_three_decimals_stay_where_they_say_enough(ratios: tuple[float | None, ...]) -> None:
    assert ratio_decimals(*ratios) == 3
    assert per_sd(covariate("age_years", 0.02, sd=9.0), decimals=3) == ""


@pytest.mark.parametrize("ratios", [(float("inf"), 1.0, 1.0), (1.0, 1.0, 1.0), (0.0, 0.0, 1e-300)])
def test_no_ratio_asks_for_digits_without_end(ratios: tuple[float, ...]) -> None:
    assert 3 <= ratio_decimals(*ratios) <= 12


def test_the_ratio_per_sd_stands_beside_one_that_is_near_1() -> None:
    assert re.search(r"per SD 1\.221 \(0\.819 to 1\.822\)$", per_sd(covariate("brain", 2e-6, sd=1e5), decimals=7))


def covariate(name: str, coef: float, *, sd: float) -> Coefficient:
    """With a standard error that is as large as the coefficient, but at least 0.1 per SD."""
    se = max(abs(coef), 0.1 / sd)
    bounds = (coef - 2 * se, coef, coef + 2 * se)

    def ratios(unit: float) -> list[float | None]:
        return [math.exp(b * unit) if abs(b * unit) < 700 else None for b in bounds]

    (low, ratio, high), (sd_low, of_sd, sd_high) = ratios(1.0), ratios(sd)
    return Coefficient(
        name=name, coef=coef, se=se, hazard_ratio=ratio, ci95_low=low, ci95_high=high, sd=sd,
        hazard_ratio_per_sd=of_sd, ci95_per_sd_low=sd_low, ci95_per_sd_high=sd_high,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "coef", "sd"),
    [
        ("brain_mm3", 2e-6, 1e5),
        ("income", -2e-5, 14_000.0),
        ("scanned_s", 2e-9, 9e7),
        ("lesion_m3", 3e5, 4e-7),
        ("diffusivity", 3e9, 1e-10),
        ("fractional_anisotropy", -9.0, 0.03),
        ("platelets", 0.002, 80.0),
    ],
)
def test_a_unit_that_says_little_is_told_per_sd(name: str, coef: float, sd: float) -> None:
    item = covariate(name, coef, sd=sd)
    assert told_per_sd(item)
    assert in_unit(item) == (item.hazard_ratio_per_sd, item.ci95_per_sd_low, item.ci95_per_sd_high)
    assert per_sd(item, decimals=3).startswith("; per SD ")


@pytest.mark.parametrize(
    ("name", "coef", "sd"),
    [
        ("age_years", 0.02, 12.0),
        ("is_male", 0.5, 0.5),
        ("ecog", 0.5, 0.7),
        ("rare_flag", 0.9, 0.06),
        ("scan_year", 0.02, 3.0),
        ("gap_years", 0.01, 25.0),
        ("raw_gap_years", 0.02, 0.05),
    ],
)
def test_years_scores_and_flags_stay_per_unit(name: str, coef: float, sd: float) -> None:
    item = covariate(name, coef, sd=sd)
    assert not told_per_sd(item)
    assert in_unit(item) == (item.hazard_ratio, item.ci95_low, item.ci95_high)


def test_a_record_without_ratios_per_sd_is_told_per_unit() -> None:
    old = covariate("brain_mm3", 2e-6, sd=1e5).model_copy(update={"hazard_ratio_per_sd": None})
    assert not told_per_sd(old)
    assert per_sd(old, decimals=7) == ""
