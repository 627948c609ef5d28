"""What noisy training costs: (ε, δ) of sampled Gaussian mechanisms one after another.

Every noisy training is a sampled Gaussian mechanism: each patient joins a step with probability q (Poisson sampling),
the sum of clipped gradients gets noise of σ times the clip norm, T steps. Adjacency is adding or removing one patient.
Rounds, phases, folds and campaigns compose exactly, as the distribution of their privacy loss
(`loss_distribution`); figures of ε do not add up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from fedage.common.errors import FedAgeError

ACCOUNTANT = "privacy loss distribution"

_RATE, _NOISE, _STEPS = (1e-9, 1.0), (0.05, 1000.0), (1, 100_000_000)
_PRECISION = 1e-3
SMALLEST_DELTA = 1e-11
"""Below it, the rounding of 64-bit numbers would count."""


class ChargeRefused(FedAgeError):
    """A charge that makes no sense: a mechanism out of bounds, or a request charged for something else before."""


class NoNoise(FedAgeError):
    """No noise that can be accounted for keeps within ε."""


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """One training as a sampled Gaussian mechanism.

    Parameters
    ----------
    sampling_rate
        q, the probability with which a patient joins a step, in (0, 1].
    noise_multiplier
        σ, the noise's standard deviation over the clip norm.
    steps
        T, how many noisy steps.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        bounds = {"sampling_rate": _RATE, "noise_multiplier": _NOISE, "steps": _STEPS}
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:  # NaN too
                raise ChargeRefused(f"{name}={value} must be from {low:g} to {high:g}; see [privacy] of the campaign")
        if type(self.steps) is not int:
            raise ChargeRefused(f"steps={self.steps} must be a whole number")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent in all: ε at δ."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf or not SMALLEST_DELTA <= self.delta < 1:
            raise ChargeRefused(
                f"epsilon={self.epsilon} must be > 0 and delta={self.delta} between {SMALLEST_DELTA:g} and 1"
            )


def epsilon(mechanisms: Iterable[Mechanism], *, delta: float) -> float:
    """ε at δ of these mechanisms one after another, in whatever order; 0 for none, infinite where nothing bounds it."""
    steps: Counter[tuple[float, float]] = Counter()
    for mechanism in mechanisms:
        steps[mechanism.sampling_rate, mechanism.noise_multiplier] += mechanism.steps
    return _epsilon(tuple(sorted(steps.items())), delta)


@lru_cache(maxsize=256)
def _epsilon(steps: tuple[tuple[tuple[float, float], int], ...], delta: float) -> float:
    from fedage.common.privacy.loss_distribution import composed_epsilon  # scipy takes a moment

    return composed_epsilon(dict(steps), delta=delta)


@lru_cache(maxsize=64)
def noise_for(
    target_epsilon: float, *, delta: float, rate: float, steps: int, beside: tuple[Mechanism, ...] = ()
) -> float:
    """The smallest noise multiplier, to a thousandth of it, with which so many steps stay within ε at δ.

    Parameters
    ----------
    beside
        What the same ε is to cover too.

    Raises
    ------
    NoNoise
        If no noise does.
    """

    def spent(noise: float) -> float:
        made = Mechanism(sampling_rate=rate, noise_multiplier=noise, steps=steps)
        return epsilon([made, *beside], delta=delta)

    from scipy.optimize import brentq  # takes a moment

    least, most = _NOISE
    # About what the Gaussian mechanism needs; then outwards until the target lies between.
    guess = rate * math.sqrt(2 * steps * math.log(1.25 / delta)) / target_epsilon
    high = min(max(guess, 2 * least), most)
    while spent(high) > target_epsilon:
        if high == most:
            raise NoNoise("no noise that can be accounted for keeps within the campaign's ε")
        high = min(2 * high, most)
    low = high
    while spent(low) <= target_epsilon:
        if low == least:
            return least
        high, low = low, max(low / 2, least)

    def excess(log_noise: float) -> float:
        return math.log(max(min(spent(math.exp(log_noise)), 1e6), 1e-9) / target_epsilon)

    found = math.exp(brentq(excess, math.log(low), math.log(high), xtol=_PRECISION / 4))
    while spent(found) > target_epsilon:
        found *= 1 + _PRECISION / 4
    return min(found, most)
