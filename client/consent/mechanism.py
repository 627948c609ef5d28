"""What a private training costs: its sampled Gaussian mechanism, from the approved file and the number of patients."""

from __future__ import annotations

import math
from functools import lru_cache

from fedage.client.consent.ledger import Mechanism, epsilon
from fedage.common.campaign import Campaign

_NOISE_BOUNDS = (0.05, 1000.0)
_PRECISION = 1e-3


class NoPrivateTraining(ValueError):
    """The campaign trains nothing, or not privately, or its budget needs more noise than can be accounted for."""


def mechanism_of(campaign: Campaign, *, patients: int) -> Mechanism:
    """One round's training at a site with so many training patients.

    A patient joins a step with probability q = B / n (Poisson sampling); a pass over the data is ⌈n / B⌉ steps.

    Raises
    ------
    NoPrivateTraining
        If there is none to charge for.
    """
    training, privacy = campaign.training, campaign.privacy
    if training is None or privacy.mode != "sample" or patients < 1:
        raise NoPrivateTraining("there is no training with privacy for each patient to account for")
    rate = min(1.0, training.batch_size / patients)
    steps = training.local_epochs * math.ceil(patients / training.batch_size)
    noise = privacy.noise_multiplier
    if noise is None:
        if privacy.epsilon is None or privacy.delta is None:
            raise NoPrivateTraining("the campaign gives neither a noise multiplier nor ε and δ")
        noise = noise_for(privacy.epsilon, delta=privacy.delta, rate=rate, steps=steps * trainings_of(campaign))
    return Mechanism(sampling_rate=rate, noise_multiplier=noise, steps=steps)


def trainings_of(campaign: Campaign) -> int:
    """How many times a campaign trains at a site: once a round of each fold."""
    return (campaign.training.rounds if campaign.training else 0) * (campaign.validation.folds or 1)


@lru_cache(maxsize=64)
def noise_for(target_epsilon: float, *, delta: float, rate: float, steps: int) -> float:
    """The smallest noise multiplier, to 1e-3, with which so many steps stay within ε at δ.

    Raises
    ------
    NoPrivateTraining
        If no noise does.
    """

    def spent(noise: float) -> float:
        return epsilon([Mechanism(sampling_rate=rate, noise_multiplier=noise, steps=steps)], delta=delta)

    low, high = _NOISE_BOUNDS
    if spent(high) > target_epsilon:
        raise NoPrivateTraining("no noise that can be accounted for keeps within the campaign's ε")
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if spent(middle) <= target_epsilon else (middle, high)
    return high
