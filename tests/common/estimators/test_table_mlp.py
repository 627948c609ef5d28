"""The table network: it starts as the ridge regression, its standardisation stays, its noise is the ridge's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fedage.common.analyses.preparation.table_preparation import INNER_PLACE
from fedage.common.campaign.types import Training
from fedage.common.estimators.base import ROW, Batch, Estimator
from fedage.common.estimators.table_mlp import TableMLP, TableMLPOptions
from fedage.common.estimators.table_ridge import TableRidge, TableRidgeOptions
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray
from tests import of_estimators
from tests.of_estimators import network, predict_years, train_locally, weights_from

FEATURES = ["a", "b", "c"]
BUFFERS = ("medians", "means", "units", "coefficients", "intercept", "age_sd", "noise")


def mlp(**values: Any) -> TableMLP:
    return TableMLP(TableMLPOptions.model_validate({"features": FEATURES, "hidden": [8], **values}))


def table(seed: int = 0, n: int = 120) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)) * [1.0, 100.0, 1e-3] + [5.0, 2000.0, 0.0]
    z = (x[:, 0] - 5.0) + 1000 * x[:, 2]
    age = 20 * np.exp(0.1 * z + 0.25 * np.maximum(z, 0.0))
    x[::9, 1] = np.nan
    return x, age


def prepared(estimator: Estimator, x: FloatArray, age: FloatArray) -> dict[str, Any]:
    columns = {"age_years": age, "is_train": np.ones(len(age)), INNER_PLACE: age * 7919.17 % 1.0}
    cohort = Cohort(columns | {f"feature:{name}": x[:, j] for j, name in enumerate(FEATURES)})
    return of_estimators.prepared(estimator, {"all": cohort})


def test_before_training_it_is_the_ridge_regression() -> None:
    x, age = table()
    ridge = TableRidge(TableRidgeOptions(features=tuple(FEATURES)))
    made = mlp()
    result = prepared(made, x, age)
    expected = predict_years(ridge, weights_from(ridge, result), x)
    predicted = predict_years(made, weights_from(made, result, seed=1), x, device="cpu")
    np.testing.assert_allclose(predicted, expected, rtol=2e-5)


def test_start_at_the_mean_needs_no_products() -> None:
    x, age = table()
    made = mlp(start="mean", noise=0.5)
    result = prepared(made, x, age)
    assert result["model"]["coefficients"] == []
    predicted = predict_years(made, weights_from(made, result, seed=1), x, device="cpu")
    np.testing.assert_allclose(predicted, np.exp(np.log(age).mean()), rtol=1e-5)


def test_training_beats_the_ridge_where_the_truth_is_bent_and_moves_no_buffer() -> None:
    x, age = table(n=400)
    made = mlp(noise=0.05, hidden=[16])
    result = prepared(made, x, age)
    start = weights_from(made, result, seed=3)
    training = Training(rounds=1, local_epochs=200, batch_size=64, optimiser="adam", learning_rate=3e-3)
    update = train_locally(made, start, x, age, training=training, round_number=1, rng_seed=5, threads=1)
    before, after = (predict_years(made, w, x, device="cpu") for w in (start, update.weights))
    assert np.abs(after - age).mean() < 0.5 * np.abs(before - age).mean()
    for name in BUFFERS:
        np.testing.assert_array_equal(update.weights[name], start[name])
    assert any(not np.array_equal(update.weights[name], start[name]) for name in start if name not in BUFFERS)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    x, age = table()
    made = mlp()
    result = prepared(made, x, age)
    torch.manual_seed(1)
    first = weights_from(made, result, seed=4)
    torch.manual_seed(2)
    again, other = weights_from(made, result, seed=4), weights_from(made, result, seed=5)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_noise_is_as_strong_as_the_penalty_and_spares_unused_features() -> None:
    x, age = table()
    x[:, 1] = 7.0
    made = mlp(penalty=30.0)
    weights = weights_from(made, prepared(made, x, age), seed=0)
    assert weights["noise"][0] == pytest.approx(np.sqrt(30.0 / 120))
    module = network(made).build(seed=0)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    batch = torch.from_numpy(np.concatenate([x[:2], np.ones((2, 3))], axis=1).astype(np.float32))
    with torch.inference_mode():
        quiet, noisy = module(batch[:, :3]), module(batch)
    slope = weights["coefficients"]
    assert slope[1] == 0
    np.testing.assert_allclose(noisy - quiet, weights["noise"][0] * slope.sum(), rtol=1e-3)


def test_augmentation_comes_from_the_generator_alone() -> None:
    made = mlp(dropout=0.3)
    batch = Batch({ROW: torch.ones(500, 3)}, {}, {})
    first, again = (
        network(made).training_batch(batch, generator=torch.Generator().manual_seed(9)).inputs[ROW] for _ in range(2)
    )
    assert first.shape == (500, 6)
    torch.testing.assert_close(first, again, equal_nan=True)
    assert torch.isnan(first[:, :3]).float().mean() == pytest.approx(0.3, abs=0.05)
    assert first[:, 3:].std() == pytest.approx(1.0, abs=0.06)


def of_age(age_years: torch.Tensor) -> Batch:
    return Batch({}, {}, {"age_years": age_years})


def test_loss_and_age_by_hand() -> None:
    output, age = torch.log(torch.tensor([22.0, 44.0])), torch.tensor([20.0, 40.0])
    gap = float(np.log(1.1))
    made = mlp()
    assert float(network(made).loss(output, of_age(age))) == pytest.approx(gap**2, rel=1e-4)
    assert float(network(mlp(loss="l1")).loss(output, of_age(age))) == pytest.approx(gap, rel=1e-4)
    torch.testing.assert_close(network(made).age_years(output), torch.tensor([22.0, 44.0]))
    linear = network(mlp(age_scale="linear", loss="huber"))
    assert float(linear.loss(torch.tensor([30.0]), of_age(torch.tensor([20.0])))) == pytest.approx(5 * (10 - 2.5))
    torch.testing.assert_close(linear.age_years(torch.tensor([-3.0, 200.0])), torch.tensor([0.0, 130.0]))


@pytest.mark.parametrize("wrong", [{"hidden": [0]}, {"noise": -1.0}, {"start": "mean"}, {"dropout": 1.0}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        mlp(**wrong)
