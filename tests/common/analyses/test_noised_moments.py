"""Moments with noise: by hand, bounded for any patient, and solved to the ridge regression where noise is 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedage.common.analyses.base import Done, NotComputable
from fedage.common.analyses.exact import NoisedAnalysis, NoSumOfPatients
from fedage.common.analyses.preparation.age_scale import AgeScale
from fedage.common.analyses.preparation.noised_moments import NoisedMoments
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Statistic

LINEAR = AgeScale("linear")


def analysis(p: int = 1, **changes: Any) -> NoisedMoments:
    values: dict[str, Any] = {
        "middles": (10.0,) * p,
        "sds": (2.0,) * p,
        "age_middle": 50.0,
        "age_sd": 10.0,
        "clip_norm": 3.0,
        "noise_multiplier": 0.0,
        "scale": LINEAR,
    }
    return NoisedMoments(tuple(f"feature:x{k}" for k in range(p)), **{**values, **changes})


def cohort(x: Any, age: Any) -> Cohort:
    x = np.atleast_2d(np.asarray(x, dtype=np.float64).T).T
    columns = {f"feature:x{k}": column for k, column in enumerate(x.T)}
    return Cohort({"age_years": np.asarray(age, dtype=np.float64), "is_train": np.ones(len(x)), **columns})


def moments(x: Any, age: Any, **changes: Any) -> np.ndarray:
    made = analysis(np.atleast_2d(np.asarray(x, dtype=np.float64).T).T.shape[1], **changes)
    return np.asarray(made.local(cohort(x, age), {})["moments"])


def test_two_patients_by_hand() -> None:
    # Rows (1, 1, 2), of norm √6, and (1, 0, 0), as the value is missing and the age in the middle; C = 3, so over 9.
    found = moments([12.0, np.nan], [70.0, 50.0]) * 9
    root = np.sqrt(2.0)
    np.testing.assert_allclose(found, [2, root, 2 * root, 1, 2 * root, 4], rtol=1e-14)


def test_a_row_beyond_the_clip_norm_is_cut_to_it() -> None:
    # (1, 2, 2) is of norm 3; at C = 1.5 it counts by half, which over C² is S of (1, 2, 2) / 3.
    found = moments([14.0], [70.0], clip_norm=1.5) * 9
    np.testing.assert_allclose(np.linalg.norm(found), 9.0, rtol=1e-14)
    assert found[0] == pytest.approx(1.0)


@pytest.mark.parametrize("clip_norm", [0.1, 1.0, 30.0])
@pytest.mark.parametrize(
    ("x", "age"),
    [
        ([1e300, -1e300, 5.0], 130.0),
        ([np.nan, np.inf, -np.inf], 0.0),
        ([10.0, 10.0, 10.0], 50.0),
        ([0.0, 20.0, 1e9], 99.0),
        ([3.0, np.nan, 1e-300], np.nan),
    ],
)
def test_one_patient_moves_the_sums_by_at_most_1(clip_norm: float, x: list[float], age: float) -> None:
    others, ages = np.full((4, 3), 9.0), [30.0, 40.0, 50.0, 60.0]
    without = moments(others, ages, clip_norm=clip_norm)
    there = moments(np.vstack([others, x]), [*ages, age], clip_norm=clip_norm)
    assert np.isfinite(there).all()
    assert np.linalg.norm(there - without) <= 1 + 1e-12


def test_without_noise_it_is_the_ridge_regression_of_all_sites() -> None:
    chance = np.random.default_rng(0)
    x = 10 + 2 * chance.normal(size=(200, 3))
    age = np.clip(50 + 4 * (x[:, 0] - 10) - 2 * (x[:, 2] - 10) + chance.normal(size=200), 10, 90)
    made = analysis(3, penalty=5.0, clip_norm=20.0)
    assert isinstance(made, NoisedAnalysis)
    total = made.local(cohort(x[:50], age[:50]), {}) + made.local(cohort(x[50:], age[50:]), {})
    outcome = made.combine(made.check_total(total.vector, {}), {})
    assert isinstance(outcome, Done)
    z, t = (x - 10) / 2, (age - 50) / 10
    centred = z - z.mean(axis=0)
    beta = np.linalg.solve(centred.T @ centred + 5.0 * np.eye(3), centred.T @ (t - t.mean()))
    np.testing.assert_allclose(outcome.result["model"]["coefficients"], 10 * beta, rtol=1e-9)
    assert outcome.result["model"]["intercept"] == pytest.approx(age.mean() - 10 * z.mean(axis=0) @ beta)
    assert (outcome.result["sites"], outcome.result["penalty"]) == (2, 5.0)


@pytest.mark.parametrize(("noise", "sites", "p"), [(1.0, 1, 3), (0.5, 4, 8), (3.0, 9, 2)])
def test_the_penalty_follows_from_the_noise(noise: float, sites: int, p: int) -> None:
    made = analysis(p, noise_multiplier=noise, clip_norm=2.0)
    layout = made.layout({})
    size = p + 2
    diagonal = np.eye(size)[np.triu_indices(size)] * 500
    vector = layout.flatten({"moments": diagonal, "sites": float(sites)})
    outcome = made.combine(Statistic(layout=layout, vector=vector, smallest=None), {})
    assert isinstance(outcome, Done)
    assert outcome.result["penalty"] == pytest.approx(4 * noise * np.sqrt(sites) * np.sqrt(2 * p))


def test_noise_without_patients_gives_no_model() -> None:
    made = analysis(2, noise_multiplier=4.0)
    layout = made.layout({})
    vector = layout.flatten({"moments": np.full(10, 5.0), "sites": 1.0})
    outcome = made.combine(Statistic(layout=layout, vector=vector, smallest=None), {})
    assert isinstance(outcome, NotComputable)
    assert "the noise outweighs the patients" in outcome.reason


@pytest.mark.parametrize("wrong", [np.zeros(3), np.full(11, np.nan), np.full(11, 1e12)])
def test_a_total_that_no_sites_have_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(NoSumOfPatients):
        analysis(2).check_total(wrong, {})
