"""The coVariance network: published numbers, its exact covariance and start, its residuals, and transfer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fedage.common.analyses.preparation.table_preparation import INNER_PLACE
from fedage.common.campaign.learning_rate import learning_rate
from fedage.common.campaign.types import Training
from fedage.common.estimators.base import ROW, Samples
from fedage.common.estimators.cortex_vnn import CortexVNN, CortexVNNOptions, linear_taps, transferred
from fedage.common.networks.arrays import load_arrays
from fedage.common.networks.covariance import CovarianceNetwork
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray
from tests import of_estimators
from tests.of_estimators import network, predict_years, train_locally, weights_from

REGIONS = tuple(f"r{number:02}" for number in range(12))


def vnn(regions: tuple[str, ...] = REGIONS, **values: Any) -> CortexVNN:
    return CortexVNN(CortexVNNOptions.model_validate({"features": regions, "age_scale": "linear", **values}))


def table(seed: int = 0, n: int = 240, p: int = len(REGIONS)) -> tuple[FloatArray, FloatArray]:
    """Thickness (n, p) in mm that falls with age, by a rate of its own in each region, and shares a factor."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 80, n)
    rate = np.linspace(0.0, 0.01, p)
    shared = rng.normal(size=(n, 1)) * 0.08
    return 2.5 - rate * (age[:, None] - 50) + shared + rng.normal(size=(n, p)) * 0.1, age


def cohort(x: FloatArray, age: FloatArray, regions: tuple[str, ...] = REGIONS) -> Cohort:
    columns = {"age_years": age, "is_train": np.ones(len(age)), INNER_PLACE: age * 7919.17 % 1.0}
    return Cohort(columns | {f"feature:{name}": x[:, j] for j, name in enumerate(regions)})


def prepared(made: CortexVNN, x: FloatArray, age: FloatArray, regions: tuple[str, ...] = REGIONS) -> dict[str, Any]:
    return of_estimators.prepared(made, {"all": cohort(x, age, regions)})


def bare(covariance: Any, features: tuple[int, ...], taps: tuple[int, ...]) -> CovarianceNetwork:
    """A network without standardisation, weights of 1 and a level of 0."""
    p = len(covariance)
    made = CovarianceNetwork(p, models=1, features=features, taps=taps, from_linear=False)
    made._level = 0.0
    ones = np.ones(p)
    made.set_standard({"units": ones, "weights": ones, "covariance": np.asarray(covariance)})
    return made


def set_filters(made: CovarianceNetwork, *taps: list[float]) -> None:
    with torch.no_grad():
        for layer, values in zip(made.layers, taps, strict=True):
            layer.taps.copy_(torch.tensor(values).reshape(layer.taps.shape))
            layer.bias.zero_()


@pytest.mark.parametrize(
    ("layers", "taps", "count"),
    [((5, 5), (6, 10), 290), ((26, 26), (2, 2), 1456), ((39, 39), (3, 2), 3237), ((27, 27), (4, 2), 1620)],
)
def test_parameters_are_as_many_as_published_whatever_the_regions(layers, taps, count):
    for regions in (2, 148):
        phase = network(vnn(tuple(f"r{k:03}" for k in range(regions)), layers=list(layers), taps=list(taps)))
        assert sum(parameter.numel() for parameter in phase.build(seed=0).parameters()) == count


def test_a_filter_by_hand():
    made = bare(np.array([[2.0, 1.0], [1.0, 2.0]]) / 3, (1, 1), (3, 2))
    set_filters(made, [1.0, 2.0, 3.0], [1.0, 1.0])
    rows = torch.tensor([[1.0, 0.0]])
    values, vectors = torch.linalg.eigh(made.covariance)
    torch.testing.assert_close(made.layers[0](rows[:, None, None], values, vectors)[0, 0, 0], torch.tensor([4.0, 2.0]))
    each = made.contributions(rows)
    torch.testing.assert_close(each[0, 0], torch.tensor([22 / 3, 14 / 3]))
    torch.testing.assert_close(made(rows), torch.tensor([[6.0]]))
    torch.testing.assert_close(each[0, 0] - made(rows)[0], torch.tensor([4 / 3, -4 / 3]))


def test_filters_are_powers_of_the_covariance():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(7, 9))
    covariance = root @ root.T
    covariance /= np.linalg.eigvalsh(covariance)[-1]
    made = bare(covariance, (4, 3), (6, 10))
    x = rng.normal(size=(5, 7)).astype(np.float32)
    out = x[:, None, :].astype(np.float64)
    for layer in made.layers:
        taps, bias = layer.taps[0].detach().double().numpy(), layer.bias[0].detach().double().numpy()
        powers = np.stack([np.linalg.matrix_power(covariance, k) for k in range(taps.shape[-1])])
        out = np.maximum(np.einsum("fgk,kpq,bfq->bgp", taps, powers, out) + bias[:, None], 0.0)
    np.testing.assert_allclose(made.contributions(torch.from_numpy(x))[:, 0].detach(), out.mean(axis=1), atol=2e-5)


def test_the_covariance_of_all_sites_is_the_pooled_one_and_of_largest_eigenvalue_one():
    x, age = table()
    made = vnn()
    sites = {name: cohort(x[part], age[part]) for name, part in (("a", slice(0, 90)), ("b", slice(90, None)))}
    model = weights_from(made, of_estimators.prepared(made, sites))
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    pooled = z.T @ z / len(z)
    np.testing.assert_allclose(model["covariance"], pooled / np.linalg.eigvalsh(pooled)[-1], atol=1e-6)
    with_age = z.T @ (age - age.mean()) / len(z) / age.std()
    np.testing.assert_allclose(model["weights"], with_age / np.sqrt(np.mean(with_age**2)), rtol=1e-5)
    np.testing.assert_allclose(weights_from(vnn(readout="mean"), prepared(made, x, age))["weights"], 1.0)


def test_it_begins_as_nearly_the_ridge_regression():
    x, age = table()
    made = vnn(penalty=prepared(vnn(), x, age)["penalty"])
    result = prepared(made, x, age)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    ridge = age.mean() + z @ np.array(result["model"]["coefficients"])
    predicted = predict_years(made, weights_from(made, result, seed=1), x)
    assert np.abs(predicted - ridge).mean() < 0.02 * np.abs(age.mean() - age).mean()
    other = predict_years(made, weights_from(made, result, seed=2), x)
    np.testing.assert_allclose(predicted, other, atol=1e-2)


@pytest.mark.parametrize(
    ("penalty", "share"), [("auto", 0.5), (3.0, 1.0), (30.0, 1.0), (300.0, 1.0)], ids=lambda value: str(value)
)
def test_filters_take_half_the_penalty_that_is_found_for_a_ridge_regression_and_all_of_a_given_one(penalty, share):
    x, age = table()
    made = vnn(penalty=penalty)
    result = prepared(made, x, age)
    begin = weights_from(made, result, seed=1)
    ridge = share * result["penalty"] / result["n"]
    covariance, with_age = (np.array(result["model"][name]) for name in ("correlations", "age_correlations"))
    weights = with_age / np.sqrt(np.mean(with_age**2)) / len(with_age)
    taps = linear_taps(covariance, with_age, weights, ridge=ridge, taps=10)
    np.testing.assert_allclose(begin["layers.1.taps"][0, 0, 0], taps, rtol=1e-5)
    np.testing.assert_allclose(begin["noise"], np.sqrt(ridge), rtol=1e-6)


@pytest.mark.parametrize(("start", "rate", "least"), [("linear", 0.01, 0.8), ("random", 0.05, 0.5)])
def test_training_moves_the_filters_alone_and_learns(start, rate, least):
    """Of thickness that falls ever faster, no linear filter tells age."""
    x, age = table()
    x = 2.5 - 0.0002 * (2.5 - x) * (age[:, None] - 20) ** 2 / 0.3 + (x - x.mean()) * 0.1
    made = vnn(start=start, noise=0.0, readout="mean")
    begin = weights_from(made, prepared(made, x, age), seed=3)
    training = Training(rounds=1, local_epochs=40, batch_size=240, optimiser="adam", learning_rate=rate)
    update = train_locally(made, begin, x, age, training=training, round_number=1, rng_seed=5, threads=1)
    before, after = (np.abs(predict_years(made, w, x) - age).mean() for w in (begin, update.weights))
    print(before, after)
    assert after < least * before
    moved = {name for name in begin if not np.array_equal(begin[name], update.weights[name])}
    assert moved == {name for name in begin if name.startswith("layers.")}


def test_one_site_is_plain_pytorch_bit_for_bit():
    x, age = table(n=50)
    made = vnn(noise=0.0, models=2)
    begin = weights_from(made, prepared(made, x, age), seed=3)
    training = Training(rounds=2, local_epochs=2, batch_size=4096, optimiser="sgd", learning_rate=0.05)
    weights = begin
    for number in (1, 2):
        weights = train_locally(
            made, weights, x, age, training=training, round_number=number, rng_seed=number, threads=1
        ).weights
    plain = network(made).build(seed=0)
    load_arrays(plain, begin)
    mean, sd = plain.age
    for number in (1, 2):
        rate = learning_rate(training, round_number=number)
        optimiser = torch.optim.SGD(plain.parameters(), lr=rate, momentum=0.9)
        order = torch.Generator().manual_seed(number)
        for _ in range(training.local_epochs):
            rows = torch.randperm(len(x), generator=order)
            batch = torch.from_numpy(x.astype(np.float32))[rows]
            target = (torch.from_numpy(age.astype(np.float32))[rows] - mean) / sd
            optimiser.zero_grad()
            ((plain(batch) - target[:, None]) ** 2).mean().backward()
            optimiser.step()
    state = plain.state_dict()
    for name, array in weights.items():
        np.testing.assert_array_equal(array, state[name].numpy())


def test_residuals_sum_to_zero_over_the_regions_and_are_kept_model_by_model():
    x, age = table()
    x[:, 4] = 2.0
    made = vnn(residuals=True, models=3, start="random")
    weights = weights_from(made, prepared(made, x, age), seed=1)
    columns = made.predictor(weights, device="cpu")(Samples({ROW: x}))
    assert set(columns) == {output.column for output in made.outputs}
    for model in (1, 2, 3):
        own = np.array([columns[f"residual:{model}:{name}"] for name in REGIONS if name != "r04"])
        np.testing.assert_allclose(own.sum(axis=0), 0.0, atol=1e-4)
        assert own.std() > 0.01
    np.testing.assert_allclose(columns["residual:1:r04"], 0.0, atol=1e-6)


def test_the_mean_of_several_models_is_predicted():
    x, age = table()
    several = vnn(models=3, start="random")
    weights = weights_from(several, prepared(several, x, age), seed=1)
    alone = vnn(start="random")
    each = [
        predict_years(alone, {n: a[k : k + 1] if n.startswith("layers.") else a for n, a in weights.items()}, x)
        for k in range(3)
    ]
    assert np.abs(each[0] - each[1]).max() > 0.1
    np.testing.assert_allclose(predict_years(several, weights, x), np.mean(each, axis=0), rtol=1e-5)


def test_filters_carry_over_to_another_atlas_without_training():
    """Regions of the second atlas are each a mean of two of the first one's."""
    x, age = table(n=600)
    fine = vnn()
    begin = weights_from(fine, prepared(fine, x, age), seed=1)
    halves = tuple(REGIONS[::2])
    y = (x[:, ::2] + x[:, 1::2]) / 2
    coarse = vnn(halves)
    other = coarse.phases[0].solve(prepared(coarse, y, age, halves), {}, seed=0)
    carried = transferred(begin, other)
    assert carried["covariance"].shape == (6, 6)
    for name in begin:
        if name.startswith("layers."):
            np.testing.assert_array_equal(carried[name], begin[name])
    error = np.abs(predict_years(coarse, carried, y) - age).mean()
    assert error < 0.5 * np.abs(age.mean() - age).mean()


def test_a_constant_region_counts_for_nothing():
    x, age = table()
    x[:, 3] = 2.25
    made = vnn()
    result = prepared(made, x, age)
    assert result["unused"] == ["feature:r03"]
    weights = weights_from(made, result, seed=1)
    elsewhere = x.copy()
    elsewhere[:, 3] = 3.0
    np.testing.assert_array_equal(predict_years(made, weights, x), predict_years(made, weights, elsewhere))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"layers": [5]}, "must be as many"),
        ({"layers": [5, 0]}, "sizes from 1 to 256"),
        ({"taps": [6, 99]}, "numbers from 1 to 64"),
        ({"layers": [1, 5]}, "needs two features"),
        ({"noise": -1.0}, "from 0 to 100"),
        ({"features": ["*_thickness"], "residuals": True}, "without"),
        ({"add_sex": True}, "Extra inputs"),
    ],
)
def test_wrong_options_are_refused(wrong, words):
    with pytest.raises(ValidationError, match=words):
        vnn(**wrong)
