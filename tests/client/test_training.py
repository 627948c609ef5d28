import math

import numpy as np
import pytest
import torch

from fedage.client.compute import training as training_module
from fedage.client.compute.training import (
    BatchTooLarge,
    TooFewSamples,
    TrainingDiverged,
    TrainingStopped,
    learning_rate,
)
from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.estimators.base import Batch
from fedage.common.networks.arrays import ModelRefused, load_arrays, state_to_arrays
from fedage.common.networks.devices import resolve_device
from tests.of_estimators import network, predict_years, train_locally
from tests.of_estimators import samples as samples_of


def _estimator(**options):
    return make("chest-ca", {"image_size": 64, "width": 8, "augment": False, **options})


def _samples(n: int, seed: int = 0):
    """Discs whose radius is the age."""
    rng = np.random.default_rng(seed)
    ages = rng.uniform(40, 85, size=n)
    y, x = np.mgrid[0:64, 0:64] - 31.5
    radius = 8 + (ages - 40) / 3
    discs = 1 / (1 + np.exp((np.hypot(x, y)[None] - radius[:, None, None]) / 2))
    noisy = discs + rng.normal(scale=0.05, size=discs.shape)
    return ((noisy - 0.4) / 0.45)[:, None].astype(np.float32), ages


def _train(estimator, weights, samples, ages, *, seed=1, round_number=1, should_stop=lambda: False, **training):
    table = Training.model_validate({"rounds": 4, "batch_size": 8, "learning_rate": 2e-3, **training})
    return train_locally(
        estimator,
        weights,
        samples,
        ages,
        training=table,
        round_number=round_number,
        rng_seed=seed,
        threads=1,
        device="cpu",
        should_stop=should_stop,
    )


def _same(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# --- memory ---


class _Narrow:
    """A phase whose network fits into memory with so many samples at once."""

    def __init__(self, phase, fits: int, *, couples: bool = False) -> None:
        self._phase, self._fits, self.couples_samples, self.sizes = phase, fits, couples, []

    def __getattr__(self, name):
        return getattr(self._phase, name)

    def output(self, module, batch):
        self.sizes.append(len(batch.targets["age_years"]))
        if self.sizes[-1] > self._fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._phase.output(module, batch)


def _train_narrow(phase, weights, samples, ages, **training):
    table = Training.model_validate(
        {"rounds": 1, "batch_size": 12, "learning_rate": 1e-2, "optimiser": "sgd", **training}
    )
    return training_module.train_locally(
        phase,
        weights,
        samples_of(_estimator(), samples),
        {"age_years": ages},
        training=table,
        round_number=1,
        rng_seed=1,
        threads=1,
        device="cpu",
    )


@pytest.mark.parametrize(("fits", "parts"), [(12, 1), (6, 2), (7, 2), (3, 4), (1, 12)])
def test_a_batch_that_does_not_fit_is_cut_and_trains_the_same(fits, parts):
    phase = network(_estimator())
    samples, ages = _samples(12)
    weights = state_to_arrays(phase.build(seed=0))
    whole = _train_narrow(phase, weights, samples, ages)
    narrow = _Narrow(phase, fits)
    cut = _train_narrow(narrow, weights, samples, ages)
    assert cut.parts == parts
    assert cut.mean_loss == pytest.approx(whole.mean_loss, rel=1e-5)
    assert sum(size > fits for size in narrow.sizes) == math.ceil(
        math.log2(parts)
    )  # once for each halving, not each batch
    for name, array in whole.weights.items():
        np.testing.assert_allclose(cut.weights[name], array, rtol=1e-4, atol=1e-6)
    assert whole.parts == 1


@pytest.mark.parametrize("micro_batch", [1, 4, 5, 7, 12, 40])
def test_a_batch_computed_some_patients_at_a_time_trains_the_same(micro_batch):
    phase = network(_estimator())
    samples, ages = _samples(12)
    weights = state_to_arrays(phase.build(seed=0))
    whole = _train_narrow(phase, weights, samples, ages)
    seen = _Narrow(phase, fits=min(micro_batch, 12))
    found = _train_narrow(seen, weights, samples, ages, micro_batch=micro_batch)
    assert max(seen.sizes) == min(micro_batch, 12)
    assert found.parts == 1  # nothing had to be cut
    for name, array in whole.weights.items():
        np.testing.assert_allclose(found.weights[name], array, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("norm", "couples"), [("batch", False), ("group", True), ("batch", True)])
def test_samples_that_depend_on_each_other_are_not_computed_apart(norm, couples):
    phase = network(_estimator(norm=norm))
    samples, ages = _samples(12)
    weights = state_to_arrays(phase.build(seed=0))
    with pytest.raises(BatchTooLarge, match=r"micro_batch = 4.*leave it out"):
        _train_narrow(_Narrow(phase, 12, couples=couples), weights, samples, ages, micro_batch=4)


@pytest.mark.parametrize(("norm", "couples", "fits"), [("batch", False, 6), ("group", True, 6), ("group", False, 0)])
def test_a_batch_that_cannot_be_cut_is_refused_with_the_mend(norm, couples, fits):
    phase = network(_estimator(norm=norm))
    samples, ages = _samples(12)
    weights = state_to_arrays(phase.build(seed=0))
    with pytest.raises(BatchTooLarge, match=r"a batch of 12 does not fit .* lower training\.batch_size"):
        _train_narrow(_Narrow(phase, fits, couples=couples), weights, samples, ages)


# --- training ---


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_learns_what_can_be_learnt_and_the_loss_falls(norm):
    estimator = _estimator(norm=norm)
    samples, ages = _samples(48)
    new_samples, new_ages = _samples(40, seed=1)
    weights = state_to_arrays(network(estimator).build(seed=0))
    losses = []
    for round_number in range(1, 5):
        update = _train(estimator, weights, samples, ages, round_number=round_number, seed=round_number, local_epochs=4)
        weights = update.weights
        losses.append(update.mean_loss)
    assert update.n == 48
    assert update.seconds > 0
    assert losses[-1] < 0.4 * losses[0]
    error = np.abs(predict_years(estimator, weights, new_samples, device="cpu") - new_ages).mean()
    assert error < 0.5 * np.abs(new_ages - ages.mean()).mean()


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_same_inputs_same_bits_whatever_the_global_random_state(norm):
    estimator = _estimator(norm=norm, augment=True)
    samples, ages = _samples(12)
    weights = state_to_arrays(network(estimator).build(seed=0))
    torch.manual_seed(1)
    first = _train(estimator, weights, samples, ages)
    torch.manual_seed(2)
    again = _train(estimator, weights, samples, ages)
    other = _train(estimator, weights, samples, ages, seed=2)
    assert _same(first.weights, again.weights)
    assert first.mean_loss == again.mean_loss
    assert not _same(first.weights, other.weights)


def test_inputs_and_the_process_threads_are_left_alone():
    estimator = _estimator()
    samples, ages = _samples(8)
    weights = state_to_arrays(network(estimator).build(seed=0))
    kept, samples_kept = {name: array.copy() for name, array in weights.items()}, samples.copy()
    before = torch.get_num_threads()
    table = Training(rounds=1)
    train_locally(
        estimator, weights, samples, ages, training=table, round_number=1, rng_seed=0, threads=before + 1, device="cpu"
    )
    assert torch.get_num_threads() == before
    assert _same(weights, kept)
    np.testing.assert_array_equal(samples, samples_kept)


def test_a_read_only_memory_map_trains_like_an_array(tmp_path):
    estimator = _estimator()
    samples, ages = _samples(10)
    np.save(tmp_path / "samples.npy", samples)
    mapped = np.load(tmp_path / "samples.npy", mmap_mode="r")
    weights = state_to_arrays(network(estimator).build(seed=0))
    assert _same(_train(estimator, weights, samples, ages).weights, _train(estimator, weights, mapped, ages).weights)


@pytest.mark.parametrize(("norm", "trains"), [("group", True), ("batch", False)])
def test_a_single_patient_is_a_batch_for_group_norm_only(norm, trains):
    estimator = _estimator(norm=norm)
    samples, ages = _samples(1)
    weights = state_to_arrays(network(estimator).build(seed=0))
    if trains:
        assert _train(estimator, weights, samples, ages).n == 1
    else:
        with pytest.raises(TooFewSamples, match="at least 2"):
            _train(estimator, weights, samples, ages)


def test_batch_norm_drops_a_last_batch_of_one():
    estimator = _estimator(norm="batch")
    samples, ages = _samples(9)
    update = _train(estimator, state_to_arrays(network(estimator).build(seed=0)), samples, ages)
    assert update.n == 9
    assert math.isfinite(update.mean_loss)


def test_one_step_of_sgd_is_the_gradient_times_the_rate_of_the_round():
    estimator = _estimator()
    samples, ages = _samples(6)
    net = network(estimator).build(seed=0)
    weights = state_to_arrays(net)
    loss = network(estimator).loss(
        net(torch.from_numpy(samples)), Batch({}, {}, {"age_years": torch.from_numpy(ages.astype(np.float32))})
    )
    loss.backward()
    update = _train(
        estimator,
        weights,
        samples,
        ages,
        optimiser="sgd",
        learning_rate=0.01,
        final_learning_rate_fraction=0.1,
        round_number=4,
        batch_size=6,
    )
    assert update.mean_loss == pytest.approx(loss.item(), rel=1e-4)
    expected = weights["head.weight"] - 0.001 * net.head.weight.grad.numpy()
    np.testing.assert_allclose(update.weights["head.weight"], expected, rtol=1e-3, atol=1e-7)


def test_the_rate_is_a_cosine_over_the_rounds():
    table = Training(rounds=5, learning_rate=1.0, final_learning_rate_fraction=0.2)
    rates = [learning_rate(table, round_number=number) for number in (1, 2, 3, 4, 5)]
    half = 0.5 * math.cos(math.pi / 4)
    np.testing.assert_allclose(rates, [1.0, 0.2 + 0.8 * (0.5 + half), 0.6, 0.2 + 0.8 * (0.5 - half), 0.2])
    assert learning_rate(Training(rounds=1, learning_rate=0.3), round_number=1) == 0.3
    assert learning_rate(Training(rounds=9, learning_rate=0.3), round_number=7) == 0.3


def test_a_stop_request_ends_training_before_the_next_batch():
    estimator = _estimator()
    samples, ages = _samples(40)
    asked = []

    def stop_at_third() -> bool:
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(TrainingStopped, match="round 1"):
        _train(estimator, state_to_arrays(network(estimator).build(seed=0)), samples, ages, should_stop=stop_at_third)
    assert len(asked) == 3


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_divergence_is_named_with_its_mend():
    estimator = _estimator(loss="mse")
    samples, ages = _samples(16)
    weights = state_to_arrays(network(estimator).build(seed=0))
    with pytest.raises(TrainingDiverged, match=r"lower training.learning_rate=10"):
        _train(estimator, weights, samples, ages, optimiser="sgd", learning_rate=10.0, local_epochs=40)


def test_ages_must_match_the_samples():
    estimator = _estimator()
    samples, ages = _samples(4)
    weights = state_to_arrays(network(estimator).build(seed=0))
    with pytest.raises(ValueError, match="4 samples need as many values of age_years"):
        _train(estimator, weights, samples, ages[:3])
    with pytest.raises(ValueError, match="not finite"):
        _train(estimator, weights, samples, np.full(4, np.nan))


# --- prediction ---


def test_predictions_are_the_networks_own_in_order_whatever_the_batch():
    estimator = _estimator(norm="batch")
    samples, _ = _samples(7)
    net = network(estimator).build(seed=3).eval()
    with torch.no_grad():
        expected = network(estimator).age_years(net(torch.from_numpy(samples))).numpy()
    weights = state_to_arrays(net)
    for batch_size in (1, 3, 64):
        predicted = predict_years(estimator, weights, samples, batch_size=batch_size, device="cpu")
        assert predicted.dtype == np.float64
        np.testing.assert_allclose(predicted, expected, atol=1e-3)
    assert predict_years(estimator, weights, samples[:0], device="cpu").shape == (0,)


# --- weights ---


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_weights_survive_the_journey(norm):
    estimator = _estimator(norm=norm)
    source, target = network(estimator).build(seed=1).train(), network(estimator).build(seed=2)
    source(torch.randn(4, 1, 64, 64))  # moves BatchNorm's running statistics
    arrays = state_to_arrays(source)
    assert all(array.dtype == np.float32 for array in arrays.values())
    load_arrays(target, arrays)
    x = torch.randn(2, 1, 64, 64)
    assert torch.equal(source.eval()(x), target.eval()(x))
    assert any("running_var" in name for name in arrays) == (norm == "batch")


def test_arrays_are_copies_not_views():
    net = network(_estimator()).build(seed=1)
    arrays = state_to_arrays(net)
    arrays["head.weight"][:] = 99
    assert (net.head.weight != 99).all()
    load_arrays(net, arrays)
    arrays["head.weight"][:] = 3
    assert (net.head.weight == 99).all()


def test_a_model_of_another_campaign_is_refused_with_all_that_is_wrong():
    net = network(_estimator()).build(seed=0)
    arrays = state_to_arrays(net)
    before = {name: array.copy() for name, array in arrays.items()}
    arrays["head.bias"] = np.full(1, np.nan, dtype=np.float32)
    arrays["head.weight"] = np.zeros((2, 64), dtype=np.float32)
    arrays["stem.0.weight"] = arrays["stem.0.weight"].astype(np.int64)
    del arrays["stem.1.bias"]
    arrays["'; DROP TABLE patients"] = np.zeros(1, dtype=np.float32)
    with pytest.raises(ModelRefused) as refused:
        load_arrays(net, arrays)
    message = str(refused.value)
    assert "head.bias has values that are not finite" in message
    assert "head.weight has shape (2, 64), needed is (1, 64)" in message
    assert "stem.0.weight has type int64" in message
    assert "stem.1.bias is missing" in message
    assert "1 arrays are not the network's" in message
    assert "DROP" not in message
    assert _same(state_to_arrays(net), before)


def test_batch_norm_weights_do_not_fit_group_norm():
    weights = state_to_arrays(network(_estimator(norm="batch")).build(seed=0))
    samples, ages = _samples(4)
    with pytest.raises(ModelRefused, match="are not the network's"):
        _train(_estimator(norm="group"), weights, samples, ages)


def test_auto_is_a_gpu_only_where_there_is_one():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_and_predicts_near_the_cpu():
    estimator = _estimator()
    samples, ages = _samples(16)
    weights = state_to_arrays(network(estimator).build(seed=0))
    table = Training(rounds=1, batch_size=8, learning_rate=1e-3)
    trained = [
        train_locally(
            estimator, weights, samples, ages, training=table, round_number=1, rng_seed=0, threads=1, device=device
        )
        for device in ("cpu", "cuda")
    ]
    assert trained[1].mean_loss == pytest.approx(trained[0].mean_loss, rel=0.05)
    on_cpu, on_gpu = (predict_years(estimator, weights, samples, device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=0.5)


@pytest.mark.parametrize("mu", [0.5, 3.0])
def test_fedprox_pulls_a_site_back_to_the_rounds_model(mu):
    """In one batch the first step is that of FedAvg; the second has μ (w₁ - w₀) more in its gradient."""
    estimator = _estimator()
    samples, ages = _samples(8)
    start = state_to_arrays(network(estimator).build(seed=0))
    options = {"optimiser": "sgd", "learning_rate": 1e-3}
    after_one, plain = (_train(estimator, start, samples, ages, local_epochs=k, **options).weights for k in (1, 2))
    pulled = _train(estimator, start, samples, ages, local_epochs=2, strategy="fedprox", proximal=mu, **options).weights
    for name, array in plain.items():
        np.testing.assert_allclose(pulled[name], array - 1e-3 * mu * (after_one[name] - start[name]), atol=1e-7)
    assert not _same(pulled, plain)
