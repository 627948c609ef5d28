"""`age-ensemble`: weights against an independent slow optimum, the same wherever the patients are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.optimize import minimize

from fedage.common.estimators import make
from fedage.common.estimators.table import FEATURE
from fedage.common.networks.arrays import ModelRefused
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.simplex import MOST_MEMBERS, least_squares_weights
from tests.of_estimators import predict_years, prepared, weights_from

NAMES = ("b0", "convnext", "dense", "r18", "r50")


def members(*, n: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold ages (n, 5) of members with errors in common, of which one is poor and one biased, and ages (n,)."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(40, 75, n)
    shared, own = rng.normal(size=(n, 1)), rng.normal(size=(n, 5))
    made = age[:, None] + 2.0 * shared + np.array([1.0, 2.0, 3.0, 12.0, 2.0]) * own + np.array([0, 0.5, 0, 0, -9.0])
    return made, age


def sites(made: np.ndarray, age: np.ndarray, *, count: int) -> dict[str, Cohort]:
    found = {}
    for number, rows in enumerate(np.array_split(np.arange(len(age)), count)):
        columns: dict[str, Any] = {FEATURE + name: made[rows, k] for k, name in enumerate(NAMES)}
        columns |= {"age_years": age[rows], "is_train": np.ones(len(rows)), "healthy": np.ones(len(rows))}
        found[f"site {number}"] = Cohort(columns)
    return found


def ensemble(**options: Any) -> Any:
    return make("age-ensemble", {"features": list(NAMES), **options})


def weights(made: np.ndarray, age: np.ndarray, *, count: int = 3) -> np.ndarray:
    estimator = ensemble()
    return weights_from(estimator, prepared(estimator, sites(made, age, count=count)))["weights"]


def slow(made: np.ndarray, age: np.ndarray) -> np.ndarray:
    found = minimize(
        lambda w: np.square(made @ w - age).mean(), np.full(made.shape[1], 1 / made.shape[1]), method="SLSQP",
        bounds=[(0, 1)] * made.shape[1], constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 1000},
    )  # fmt: skip
    return np.asarray(found.x)


@pytest.mark.parametrize("seed", range(4))
def test_sums_of_three_sites_give_the_optimum_on_all_patients(seed: int) -> None:
    made, age = members(seed=seed)
    found = weights(made, age)
    np.testing.assert_allclose(found, slow(made, age), atol=1e-4)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    assert found[0] == found.max()
    assert found[4] < 0.2  # the biased one
    error = np.square(made @ found - age).mean()
    assert error <= np.square(made - age[:, None]).mean(axis=0).min()
    np.testing.assert_allclose(found, weights(made, age, count=1), atol=1e-8)


@pytest.mark.parametrize("members_of", [1, 3, 5, 8])
def test_no_direction_within_the_weights_lowers_the_error(members_of: int) -> None:
    """Of a convex problem that is the optimum: each member's slope is at least that of those with a weight."""
    rng = np.random.default_rng(members_of)
    for _ in range(20):
        errors = rng.normal(size=(30, members_of)) * rng.uniform(0.2, 5, members_of) + rng.normal(size=(30, 1))
        products = errors.T @ errors / 30
        found = least_squares_weights(products)
        slope = products @ found
        assert slope.min() >= found @ products @ found - 1e-10
        np.testing.assert_allclose(slope[found > 0], found @ products @ found, rtol=1e-8)


def test_a_member_twice_counts_once() -> None:
    made, age = members()
    twice = np.column_stack([made[:, 0], made[:, 0], made[:, 2], made[:, 2], made[:, 4]])
    found, once = weights(twice, age), slow(made[:, [0, 2, 4]], age)
    np.testing.assert_allclose([found[0] + found[1], found[2] + found[3], found[4]], once, atol=1e-4)


def test_a_lacking_member_is_left_out_of_a_patients_mean() -> None:
    made, age = members()
    estimator = ensemble()
    arrays = weights_from(estimator, prepared(estimator, sites(made, age, count=2)))
    w = arrays["weights"]
    rows = made[:3].copy()
    rows[0, 0] = np.nan
    rows[1] = np.nan
    found = predict_years(estimator, arrays, rows)
    assert found[0] == pytest.approx(made[0, 1:] @ w[1:] / w[1:].sum())
    assert found[1] == pytest.approx(arrays["medians"] @ w)
    assert found[2] == pytest.approx(made[2] @ w)


def test_what_no_weighted_mean_is_is_refused() -> None:
    made, age = members()
    estimator = ensemble()
    arrays = weights_from(estimator, prepared(estimator, sites(made, age, count=2)))
    for wrong in (
        {"weights": arrays["weights"][:4]},
        {"weights": -arrays["weights"]},
        {"weights": np.zeros(5)},
        {"weights": np.full(5, np.nan)},
        {"more": np.zeros(5)},
    ):
        with pytest.raises(ModelRefused, match="weights must be"):
            estimator.predictor({**arrays, **wrong}, device="cpu")
    for options in ({"age_scale": "log"}, {"penalty": 2.0}, {"age_offset_years": 3.0}, {"inner_folds": 4}):
        with pytest.raises(ValidationError, match="no effect"):
            ensemble(**options)
    for many in (0, MOST_MEMBERS + 1):
        with pytest.raises(ValueError, match="1 to 12 members"):
            least_squares_weights(np.eye(many))
