"""Training with privacy for each patient: what one patient adds at most, the noise, and what it all follows from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedage.client.compute.patient_gradients import ClippedGradients
from fedage.client.compute.private_training import BatchNormRefused, PrivateTraining, train_privately
from fedage.client.compute.training import TrainedUpdate
from fedage.common.campaign.types import Training
from fedage.common.estimators.base import Batch, Samples
from fedage.common.networks.arrays import Weights, state_to_arrays
from fedage.common.privacy.accountant import Mechanism
from fedage.common.privacy.noise import key_for

CPU = torch.device("cpu")
KEY = key_for(b"\1" * 32, "test")
TRAINING = Training(rounds=1, optimiser="sgd", learning_rate=1.0)


@dataclass(frozen=True)
class Tiny:
    """A linear model of x (B, 4), or a network with more to it."""

    name: str = "tiny"
    couples_samples: bool = False
    smallest_batch: int = 1
    layers: str = "linear"
    branches: bool = False

    def build(self, *, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.layers == "linear":
                return nn.Linear(4, 1)
            norm: nn.Module = nn.BatchNorm1d(8) if self.layers == "batch" else nn.GroupNorm(2, 8)
            return nn.Sequential(nn.Linear(4, 8), norm, nn.GELU(), nn.Linear(8, 1))

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        del generator
        return batch

    def output(self, module: nn.Module, batch: Batch) -> Any:
        return module(batch.inputs["x"]).squeeze(1)

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        error = output - batch.targets["age_years"]
        if self.branches and float(error[0]) > 1e9:  # what vmap cannot look at
            error = error * 2
        return error.square().mean()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def batch(x: np.ndarray, age: np.ndarray) -> Batch:
    inputs = torch.from_numpy(x.astype(np.float32))
    everybody = torch.ones(len(x), dtype=torch.bool)
    return Batch({"x": inputs}, {"x": everybody}, {"age_years": torch.from_numpy(age.astype(np.float32))})


def exams(count: int, *, seed: int = 0, size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    return size * chance.normal(size=(count, 4)), size * chance.normal(size=count) * 10


def flat(total: dict[str, torch.Tensor]) -> np.ndarray:
    return torch.cat([total[name].ravel() for name in sorted(total)]).numpy()


def summed(phase: Tiny, x: np.ndarray, age: np.ndarray, patients: list[int], *, clip: float) -> np.ndarray:
    gradients = ClippedGradients(phase, phase.build(seed=3), clip_norm=clip, where=CPU)
    total = gradients.zeros()
    gradients.add(total, batch(x, age), np.array(patients, dtype=np.intp))
    return flat(total)


@pytest.mark.parametrize("layers", ["linear", "group"])
@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("count", [1, 5, 12])
def test_a_patient_adds_at_most_the_clip_norm_with_one_exam_and_with_five(
    layers: str, branches: bool, count: int
) -> None:
    clip = 0.5
    phase = Tiny(layers=layers, branches=branches)
    x, age = exams(count, size=50.0)
    norm = np.linalg.norm(summed(phase, x, age, [0] * count, clip=clip))
    assert clip * (1 - 1e-5) < norm <= clip
    # One more patient moves the sum of the others by that much at most.
    others, ages = exams(7, seed=1, size=50.0)
    patients = [0, 0, 1, 1, 1, 2, 3]
    without = summed(phase, others, ages, patients, clip=clip)
    together = summed(
        phase, np.concatenate([others, x]), np.concatenate([ages, age]), [*patients, *[4] * count], clip=clip
    )
    assert np.linalg.norm(together - without) <= clip * (1 + 1e-5)


@pytest.mark.parametrize("layers", ["linear", "group"])
def test_without_clipping_the_sum_is_of_the_plain_gradients_by_either_engine(layers: str) -> None:
    x, age = exams(6)
    patients = [0, 0, 0, 1, 2, 2]
    plain = 0
    for patient in range(3):
        rows = np.array(patients) == patient
        module = Tiny(layers=layers).build(seed=3)
        loss = Tiny().loss(Tiny().output(module, batch(x[rows], age[rows])), batch(x[rows], age[rows]))
        loss.backward()  # type: ignore[no-untyped-call]
        plain = plain + flat({name: p.grad for name, p in module.named_parameters() if p.grad is not None})
    for branches in (False, True):
        made = summed(Tiny(layers=layers, branches=branches), x, age, patients, clip=1e9)
        np.testing.assert_allclose(made, plain, rtol=1e-5, atol=1e-6)


def test_a_patient_whose_gradient_is_no_number_counts_as_none() -> None:
    x, age = exams(3)
    alone = summed(Tiny(), x[1:], age[1:], [0, 1], clip=1.0)
    x[0] = 1e30
    np.testing.assert_allclose(summed(Tiny(), x, age, [0, 1, 2], clip=1.0), alone, rtol=1e-6)


def trained(
    *,
    phase: Tiny | None = None,
    n: int = 30,
    rate: float = 0.5,
    sigma: float = 1.0,
    steps: int = 1,
    key: bytes = KEY,
    clip: float = 1.0,
    x: np.ndarray | None = None,
    age: np.ndarray | None = None,
    patients: np.ndarray | None = None,
    training: Training = TRAINING,
) -> tuple[Weights, TrainedUpdate]:
    phase = phase or Tiny()
    given, ages = exams(n) if x is None or age is None else (x, age)
    start = state_to_arrays(phase.build(seed=3))
    update = train_privately(
        phase,  # type: ignore[arg-type]
        start,
        Samples({"x": given.astype(np.float32)}),
        {"age_years": ages},
        training=training,
        private=PrivateTraining(
            mechanism=Mechanism(sampling_rate=rate, noise_multiplier=sigma, steps=steps),
            clip_norm=clip,
            key=key,
            patients=patients,
        ),
        round_number=1,
        threads=1,
        device="cpu",
    )
    return start, update


def change(start: Weights, update: TrainedUpdate) -> np.ndarray:
    return np.concatenate([(start[name] - update.weights[name]).ravel() for name in start])


def test_the_noise_is_sigma_times_the_clip_norm_over_the_expected_patients() -> None:
    x = np.zeros((30, 4))
    age = np.zeros(30)
    start = state_to_arrays(Tiny().build(seed=3))
    age[:] = start["bias"][0]  # no gradient at all
    steps = []
    for number in range(80):
        before, update = trained(x=x, age=age, sigma=2.0, clip=3.0, rate=0.2, key=key_for(KEY, str(number)))
        steps.append(change(before, update))
    made = np.array(steps) * 0.2 * 30 / (2.0 * 3.0)
    assert made.std() == pytest.approx(1, abs=0.13)
    assert abs(made.mean()) < 0.2


def test_the_sum_is_divided_by_the_expected_and_not_by_the_actual_number_of_patients() -> None:
    x, age = np.zeros((40, 4)), np.full(40, 1e6)  # each adds just C to the bias
    sizes = []
    for number in range(60):
        before, update = trained(x=x, age=age, sigma=0.05, rate=0.3, key=key_for(KEY, str(number)))
        sizes.append(-change(before, update)[-1] * 0.3 * 40)
    joined = np.array(sizes)
    assert joined.std() == pytest.approx((40 * 0.3 * 0.7) ** 0.5, rel=0.3)
    assert joined.mean() == pytest.approx(12, abs=1.5)


def test_all_exams_of_a_patient_join_together_and_count_as_one() -> None:
    x, age = np.zeros((50, 4)), np.full(50, 1e6)
    before, update = trained(x=x, age=age, sigma=0.05, rate=1.0, patients=np.repeat(np.arange(10), 5))
    assert update.n == 10
    assert -change(before, update)[-1] == pytest.approx(1.0, abs=0.05)


def test_the_same_key_gives_the_same_bits_and_another_one_other_noise() -> None:
    torch.manual_seed(1)
    _, first = trained(steps=3, phase=Tiny(layers="group"))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    _, again = trained(steps=3, phase=Tiny(layers="group"))
    assert torch.equal(state, torch.get_rng_state())
    _, other = trained(steps=3, phase=Tiny(layers="group"), key=key_for(KEY, "other"))
    for name in first.weights:
        np.testing.assert_array_equal(first.weights[name], again.weights[name])
        assert not np.array_equal(first.weights[name], other.weights[name])
    assert first.mean_loss is None


def test_other_data_get_other_noise_under_the_same_key() -> None:
    x, age = exams(30)
    start, update = trained(x=x, age=age, rate=1.0, clip=1e-3)
    x[0] += 1e-3
    _, other = trained(x=x, age=age, rate=1.0, clip=1e-3)
    difference = (change(start, update) - change(start, other)) * 30 / 1e-3
    assert np.linalg.norm(difference) > 0.5  # two independent draws, and not one patient's gradient


def test_micro_batches_change_nothing_but_rounding() -> None:
    x, age = exams(9)
    patients = np.array([0, 0, 1, 2, 3, 3, 3, 4, 5], dtype=np.intp)
    gradients = ClippedGradients(Tiny(), Tiny().build(seed=3), clip_norm=0.7, where=CPU)
    total = gradients.zeros()
    for rows in (slice(0, 3), slice(3, 7), slice(7, 9)):
        gradients.add(total, batch(x[rows], age[rows]), patients[rows] - patients[rows][0])
    np.testing.assert_allclose(flat(total), summed(Tiny(), x, age, list(patients), clip=0.7), rtol=1e-5)


def test_batch_normalisation_is_refused_with_the_mend() -> None:
    with pytest.raises(BatchNormRefused, match="group"):
        trained(phase=Tiny(layers="batch"))
