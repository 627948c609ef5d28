"""Hazard ratios per unit of a covariate in small units are shown with digits that say something."""

from __future__ import annotations

import re

import pytest

from fedage.server.hazards_in_words import per_sd, ratio_decimals


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
    assert per_sd(1.4, decimals=3) == ""


@pytest.mark.parametrize("ratios", [(float("inf"), 1.0, 1.0), (1.0, 1.0, 1.0), (0.0, 0.0, 1e-300)])
def test_no_ratio_asks_for_digits_without_end(ratios: tuple[float, ...]) -> None:
    assert 3 <= ratio_decimals(*ratios) <= 12


def test_the_ratio_per_sd_stands_beside_one_that_is_near_1() -> None:
    assert re.search(r"per SD 1\.420$", per_sd(1.42, decimals=7))
