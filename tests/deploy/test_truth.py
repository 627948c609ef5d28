from __future__ import annotations

import numpy as np
import pytest

from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import planted
from fedage.deploy.demo.truth import (
    attenuation,
    expected_hazard_ratio,
    irreducible_mae_years,
    mae_of_mean_years,
    posterior_median_age_years,
)


@pytest.mark.parametrize(("low", "high", "sd", "expected"), [(40, 55, 6, 2.84), (0, 6, 1.5, 0.88)])
def test_irreducible_mae_is_the_published_one(low: float, high: float, sd: float, expected: float) -> None:
    mae = irreducible_mae_years(age_min_years=low, age_max_years=high, gap_sd_years=sd)
    assert round(mae, 2) == expected


def test_irreducible_mae_agrees_with_drawn_patients() -> None:
    rng = np.random.default_rng(3)
    ages = rng.uniform(52, 82, 4000)
    read = ages + 3.5 * rng.standard_normal(4000)
    errors = [
        abs(age - posterior_median_age_years(b, age_min_years=52, age_max_years=82, gap_sd_years=3.5))
        for age, b in zip(ages, read, strict=True)
    ]
    mae = irreducible_mae_years(age_min_years=52, age_max_years=82, gap_sd_years=3.5)
    assert np.mean(errors) == pytest.approx(mae, abs=4 * np.std(errors) / np.sqrt(4000))


def test_a_wide_range_of_ages_leaves_the_mean_absolute_gap() -> None:
    mae = irreducible_mae_years(age_min_years=0, age_max_years=3000, gap_sd_years=3.5)
    assert mae == pytest.approx(3.5 * np.sqrt(2 / np.pi), rel=2e-3)


@pytest.mark.parametrize("biological", [20.0, 39.0, 44.0, 61.7, 90.0])
def test_posterior_median_halves_the_posterior(biological: float) -> None:
    ages = np.linspace(40, 75, 200_001)
    log_density = -0.5 * ((biological - ages) / 3.5) ** 2
    mass = np.cumsum(np.exp(log_density - log_density.max()))
    slow = ages[np.searchsorted(mass, mass[-1] / 2)]
    fast = posterior_median_age_years(biological, age_min_years=40, age_max_years=75, gap_sd_years=3.5)
    assert fast == pytest.approx(slow, abs=1e-3)


def test_an_empty_range_of_ages_is_refused() -> None:
    with pytest.raises(ValueError, match="ages 60-60"):
        irreducible_mae_years(age_min_years=60, age_max_years=60, gap_sd_years=3.0)


def test_mae_of_the_mean_by_hand() -> None:
    assert mae_of_mean_years([(40, 60), (60, 80)]) == pytest.approx(10.0)
    assert mae_of_mean_years([(0, 10), (90, 100)]) == pytest.approx(45.0)
    # Mean 45; first range (25 + 225)/40 = 6.25, second 15.
    assert mae_of_mean_years([(30, 50), (50, 70)], weights=[3, 1]) == pytest.approx((3 * 6.25 + 15) / 4)


def test_predicting_the_mean_is_far_worse_than_the_irreducible_error() -> None:
    truth = planted()
    irreducible = np.mean(list(truth.irreducible_mae_years.values()))
    assert mae_of_mean_years(list(truth.age_range_years.values())) >= 3.3 * irreducible
    assert list(truth.irreducible_mae_years) == [hospital.name for hospital in HOSPITALS]


def test_attenuation_of_a_perfect_reader_is_one_over_its_slope() -> None:
    rng = np.random.default_rng(0)
    ages, gaps = rng.uniform(40, 80, 500), 3.5 * rng.standard_normal(500)
    factor = attenuation(0.72 * gaps - 0.3 * ages + 11, true_gap_years=gaps, age_years=ages)
    assert factor == pytest.approx(1 / 0.72)
    assert expected_hazard_ratio(planted(), attenuation=factor) == pytest.approx(1.2 ** (1 / 0.72))


def test_attenuation_by_reading_noise() -> None:
    rng = np.random.default_rng(0)
    ages, gaps = rng.uniform(40, 80, 200_000), 3.0 * rng.standard_normal(200_000)
    read = gaps + 4.0 * rng.standard_normal(200_000)
    assert attenuation(read, true_gap_years=gaps, age_years=ages) == pytest.approx(9 / 25, abs=0.006)
