"""ε against Google's accountant, Opacus' and closed forms: never below the truth, and hardly above it."""

from __future__ import annotations

import logging
import math
import random

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from fedage.common.privacy.accountant import ChargeRefused, Mechanism, NoNoise, epsilon, noise_for
from fedage.common.privacy.loss_distribution import composed_epsilon

Steps = dict[tuple[float, float], int]
LOOSE, STRICT = 1e-3, 1e-4

QUICK: list[tuple[Steps, float]] = [
    ({(1.0, 4.0): 10}, 1e-5),
    ({(0.2, 6.0): 20}, 1e-5),
    ({(0.05, 2.0): 40, (0.5, 8.0): 10}, 1e-6),
]
SLOW: list[tuple[Steps, float]] = [
    ({(q, sigma): t}, delta)
    for q, sigma, t in [
        (1.0, 1.0, 1),
        (1.0, 20.0, 100),
        (0.5, 0.7, 5),
        (0.3, 3.0, 300),
        (0.1, 1.0, 100),
        (0.02, 0.6, 200),
        (0.01, 1.0, 1000),
        (0.01, 5.0, 2000),
        (0.001, 0.8, 5000),
    ]
    for delta in (1e-4, 1e-6)
] + [
    ({(0.1, 1.5): 60, (0.02, 0.9): 150, (1.0, 9.0): 3}, 1e-5),
    ({(0.25, 4.0): 30, (0.25, 4.1): 30, (0.01, 1.0): 300, (0.5, 30.0): 10}, 1e-6),
    ({(0.001, 1.0): 1000, (1.0, 5.0): 1}, 1e-5),
]


def bounds(steps: Steps, *, delta: float, spacing: float) -> tuple[float, float]:
    """Google's optimistic and pessimistic ε."""
    from dp_accounting.pld import privacy_loss_distribution

    found = []
    for is_pessimistic in (False, True):
        whole = None
        for (q, sigma), count in steps.items():
            one = privacy_loss_distribution.from_gaussian_mechanism(
                sigma,
                pessimistic_estimate=is_pessimistic,
                value_discretization_interval=spacing,
                sampling_prob=q,
                use_connect_dots=is_pessimistic,
            ).self_compose(count)
            whole = one if whole is None else whole.compose(one)
        assert whole is not None
        found.append(float(whole.get_epsilon_for_delta(delta)))
    return found[0], found[1]


def hold(steps: Steps, *, delta: float, spacing: float) -> None:
    optimistic, pessimistic = bounds(steps, delta=delta, spacing=spacing)
    ours = composed_epsilon(steps, delta=delta)
    assert optimistic <= ours <= 1.02 * pessimistic, (steps, delta)


@pytest.mark.parametrize(("steps", "delta"), QUICK, ids=str)
def test_epsilon_lies_between_the_bounds_of_another_accountant(steps: Steps, delta: float) -> None:
    hold(steps, delta=delta, spacing=LOOSE)


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "delta"), SLOW, ids=str)
def test_epsilon_lies_between_the_bounds_of_another_accountant_on_a_grid(steps: Steps, delta: float) -> None:
    logging.disable(logging.WARNING)
    hold(steps, delta=delta, spacing=STRICT)


def gaussian(mean: float, delta: float) -> float:
    """ε of N(0, 1) against N(mean, 1) (Balle and Wang 2018)."""

    def excess(value: float) -> float:
        return float(norm.cdf(mean / 2 - value / mean) - math.exp(value) * norm.cdf(-mean / 2 - value / mean) - delta)

    return float(brentq(excess, 0, 600)) if excess(0) > 0 else 0.0


@pytest.mark.parametrize("sigma", [0.8, 3.0, 40.0])
@pytest.mark.parametrize("count", [1, 7, 400])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_without_sampling_epsilon_is_that_of_one_gaussian(sigma: float, count: int, delta: float) -> None:
    true = gaussian(math.sqrt(count) / sigma, delta)
    ours = composed_epsilon({(1.0, sigma): count}, delta=delta)
    assert true <= ours <= true * 1.005 + 1e-6


@pytest.mark.parametrize(("q", "sigma", "delta"), [(0.1, 1.0, 1e-5), (0.01, 0.5, 1e-6), (0.6, 3.0, 1e-3)])
def test_one_sampled_step_is_its_own_closed_form(q: float, sigma: float, delta: float) -> None:
    def excess(value: float) -> float:  # a patient removed; for one step the larger of the two
        x = sigma**2 * math.log((math.exp(value) - 1 + q) / q) + 0.5
        over = norm.sf(x / sigma)
        return float((1 - q) * over + q * norm.sf((x - 1) / sigma) - math.exp(value) * over - delta)

    true = float(brentq(excess, 0, 50))
    assert true <= composed_epsilon({(q, sigma): 1}, delta=delta) <= true * 1.005


@pytest.mark.slow
def test_epsilon_is_not_above_that_of_renyi() -> None:
    from opacus.accountants import RDPAccountant

    chance = random.Random(1)
    for _ in range(4):
        accountant, mechanisms = RDPAccountant(), []
        for _ in range(chance.randint(1, 3)):
            q, sigma, steps = chance.uniform(0.01, 0.3), chance.uniform(0.7, 4), chance.randint(1, 30)
            mechanisms.append(Mechanism(sampling_rate=q, noise_multiplier=sigma, steps=steps))
            for _ in range(steps):
                accountant.step(noise_multiplier=sigma, sample_rate=q)
        ours, renyi = epsilon(mechanisms, delta=1e-5), accountant.get_epsilon(1e-5)
        assert 0.75 * renyi < ours < renyi


@pytest.mark.parametrize("target", [0.1, 1.0, 8.0])
@pytest.mark.parametrize(("rate", "steps"), [(1.0, 1), (0.1, 100), (0.02, 1000)])
def test_the_noise_for_a_target_is_the_smallest_that_keeps_it(target: float, rate: float, steps: int) -> None:
    noise = noise_for(target, delta=1e-5, rate=rate, steps=steps)

    def spent(sigma: float) -> float:
        return epsilon([Mechanism(sampling_rate=rate, noise_multiplier=sigma, steps=steps)], delta=1e-5)

    assert 0.99 * target < spent(noise) <= target
    assert spent(noise * 0.995) > target


def test_what_no_noise_can_keep_is_refused() -> None:
    with pytest.raises(NoNoise):
        noise_for(1e-3, delta=1e-9, rate=1.0, steps=100_000)
    with pytest.raises(ChargeRefused):
        Mechanism(sampling_rate=0.1, noise_multiplier=0.01, steps=1)


def test_kinds_order_and_splitting_change_nothing() -> None:
    a = Mechanism(sampling_rate=0.1, noise_multiplier=1.5, steps=30)
    b = Mechanism(sampling_rate=0.5, noise_multiplier=4.0, steps=10)
    half = Mechanism(sampling_rate=0.1, noise_multiplier=1.5, steps=15)
    assert epsilon([a, b], delta=1e-5) == epsilon([b, half, half], delta=1e-5)
    assert epsilon([a, b], delta=1e-5) < epsilon([a], delta=1e-5) + epsilon([b], delta=1e-5)
