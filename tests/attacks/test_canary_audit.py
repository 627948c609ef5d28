"""An audit of the real private trainer: what an adversary who chooses patients and sees updates learns of who is there.

Canaries are patients whose gradients are at the clip norm, each in a direction of its own (Dirac canaries; Nasr et al.
2023, arXiv 2302.07956), each in the training set or not by a fair coin, so that one training gives as many trials
(Steinke et al. 2023, arXiv 2305.08846). A canary's coordinate of the update tells whether it was there. From how
often that is wrong follows a lower bound on ε that holds with 99 %; it must stay under the ε that is charged, and it
must pass it where the implementation is broken on purpose.

Where every patient joins every step the trade-off of the two errors is that of N(0, 1) against N(μ, 1), which turns
the errors at one threshold into ε at any δ; with sampling the threshold itself bounds ε.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import beta, norm
from torch import nn

from fedage.client.compute import private_training
from fedage.client.compute.private_training import PrivateTraining, train_privately
from fedage.common.campaign.types import Training
from fedage.common.estimators.base import Batch, Samples
from fedage.common.networks.arrays import state_to_arrays
from fedage.common.privacy.accountant import Mechanism, epsilon, noise_for
from fedage.common.privacy.noise import key_for

DELTA, CLIP, CONFIDENCE = 1e-5, 2.0, 0.99


@dataclass(frozen=True)
class Linear:
    """x · w against the age; at w = 0 a patient's gradient is −2 · age · x."""

    size: int
    name: str = "linear"
    couples_samples: bool = False
    smallest_batch: int = 1

    def build(self, *, seed: int) -> nn.Module:
        del seed
        module = nn.Linear(self.size, 1, bias=False)
        nn.init.zeros_(module.weight)
        return module

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        del generator
        return batch

    def output(self, module: nn.Module, batch: Batch) -> Any:
        return module(batch.inputs["x"]).squeeze(1)

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        return (output - batch.targets["age_years"]).square().mean()


def scores(
    mechanism: Mechanism, *, canaries: int, trial: int, exams: int = 1, counted_by_exam: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Each canary's coordinate of what the training summed, in clip norms, and whether it was there (canaries,)."""
    there = np.random.default_rng(trial).random(canaries) < 0.5
    x = np.repeat(np.eye(canaries, dtype=np.float32)[there], exams, axis=0)
    phase = Linear(canaries)
    patients = None if counted_by_exam else np.repeat(np.arange(int(there.sum())), exams)
    start = state_to_arrays(phase.build(seed=0))
    # A rate so small that the model stays where it is: every step sees the same gradients.
    rate = 1e-6
    update = train_privately(
        phase,  # type: ignore[arg-type]
        start,
        Samples({"x": x}),
        {"age_years": np.full(len(x), 100.0)},
        training=Training(rounds=1, optimiser="sgd", learning_rate=rate),
        private=PrivateTraining(
            mechanism=mechanism, clip_norm=CLIP, key=key_for(b"audit", str(trial)), patients=patients
        ),
        round_number=1,
        threads=1,
        device="cpu",
    )
    expected = mechanism.sampling_rate * update.n
    # SGD keeps a momentum of 0.9: a step's gradient counts once, then 0.9, then 0.81 of it more.
    return update.weights["weight"][0].astype(np.float64) * expected / (rate * CLIP), there


def at_most(wrong: int, of: int) -> float:
    """An upper bound on how often it is wrong."""
    return 1.0 if wrong == of else float(beta.ppf((1 + CONFIDENCE) / 2, wrong + 1, of - wrong))


def gaussian_bound(score: np.ndarray, there: np.ndarray) -> float:
    """The ε that is proved, of errors that trade off as those of one Gaussian do; 0 for none."""
    threshold = (score[there].mean() + score[~there].mean()) / 2
    false = at_most(int((score[~there] >= threshold).sum()), int((~there).sum()))
    missed = at_most(int((score[there] < threshold).sum()), int(there.sum()))
    mean = -norm.ppf(false) - norm.ppf(missed)
    if mean <= 0:
        return 0.0

    def excess(value: float) -> float:
        return float(norm.cdf(mean / 2 - value / mean) - math.exp(value) * norm.cdf(-mean / 2 - value / mean) - DELTA)

    return float(brentq(excess, 0, 100)) if excess(0) > 0 else 0.0


def threshold_bound(score: np.ndarray, there: np.ndarray, *, quantile: float) -> float:
    """The ε that is proved by one threshold: P(told there | there) ≤ e^ε P(told there | not there) + δ."""
    threshold = np.quantile(score, quantile)
    false = at_most(int((score[~there] >= threshold).sum()), int((~there).sum()))
    found = 1 - at_most(int((score[there] < threshold).sum()), int(there.sum()))
    return max(0.0, math.log(max(found - DELTA, 1e-300) / false))


def one_step(target: float) -> Mechanism:
    return Mechanism(sampling_rate=1.0, noise_multiplier=noise_for(target, delta=DELTA, rate=1.0, steps=1), steps=1)


def halve_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    whole: Callable[..., Any] = private_training.noised
    monkeypatch.setattr(private_training, "noised", lambda total, *, sd, random: whole(total, sd=sd / 2, random=random))


def test_the_audit_proves_no_more_than_is_charged() -> None:
    assert 0 < gaussian_bound(*scores(one_step(1.0), canaries=5000, trial=1)) <= 1.0


def test_the_audit_catches_half_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    halve_the_noise(monkeypatch)
    assert gaussian_bound(*scores(one_step(1.0), canaries=5000, trial=1)) > 1.0


def test_the_audit_catches_exams_counted_as_patients() -> None:
    honest = scores(one_step(1.0), canaries=600, trial=2, exams=3)
    assert gaussian_bound(*honest) <= 1.0
    assert gaussian_bound(*scores(one_step(1.0), canaries=600, trial=2, exams=3, counted_by_exam=True)) > 1.0


@pytest.mark.slow
def test_the_audit_over_many_trainings_stays_under_what_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    for broken in (False, True):
        with monkeypatch.context() as patch:
            if broken:
                halve_the_noise(patch)
            for target in (0.5, 1.0):
                many = [scores(one_step(target), canaries=2000, trial=trial) for trial in range(20)]
                proved = gaussian_bound(*(np.concatenate(part) for part in zip(*many, strict=True)))
                assert (proved > target) is broken
                assert proved > 0.5 * target


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "steps", "sigma"), [(0.5, 1, 1.0), (0.2, 3, 0.9), (0.1, 8, 1.2)])
def test_with_sampling_the_audit_stays_under_what_is_charged(rate: float, steps: int, sigma: float) -> None:
    mechanism = Mechanism(sampling_rate=rate, noise_multiplier=sigma, steps=steps)
    many = [scores(mechanism, canaries=2000, trial=trial) for trial in range(20)]
    score, there = (np.concatenate(part) for part in zip(*many, strict=True))
    proved = [threshold_bound(score, there, quantile=quantile) for quantile in (0.8, 0.95, 0.99)]
    assert 0.05 < max(proved) <= epsilon([mechanism], delta=DELTA)
