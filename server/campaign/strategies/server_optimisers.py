"""Server optimisers: the mean of the updates as a gradient (Reddi et al. 2021, Adaptive Federated Optimization).

They move parameters only. Running means and variances of a normalisation are averaged: an adaptive step drives a
variance below zero. Notation: Δ the mean update of a parameter in round t = 1, 2, …; the formulas are those of Flower's
strategies of the same names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from fedage.server.campaign.strategies.base import Step
from fedage.server.campaign.strategies.fedavg import FedAvg
from fedage.server.campaign.strategies.site_noise import SiteNoise
from fedage.server.campaign.strategies.updates import Spool

FloatArray = NDArray[np.float64]
_ROUNDS, _FIRST, _SECOND = "rounds", "m:", "v:"
"""Names in a state: how many rounds are behind it, and before the name of a parameter its moments."""


class FedAvgM(FedAvg):
    """Momentum (Hsu et al. 2019): m ← β m + Δ, w ← w + η m.

    Parameters
    ----------
    spool, equal, noise
        See `FedAvg`.
    learnt
        Names of the parameters.
    rate, momentum
        η and β.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        learnt: Collection[str],
        rate: float,
        momentum: float,
        equal: bool = False,
        noise: SiteNoise | None = None,
    ) -> None:
        super().__init__(spool, equal=equal, noise=noise)
        self._learnt = frozenset(learnt)
        self._rate, self._momentum = rate, momentum
        self._moments: dict[str, FloatArray] = {}

    def step(self, name: str, mean: FloatArray) -> FloatArray:
        """η m for a parameter, the mean for any other array."""
        if name not in self._learnt:
            return mean
        before = self._moments.get(name)
        self._moments[name] = mean if before is None else self._momentum * before + mean
        return self._rate * self._moments[name]

    def state(self) -> dict[str, FloatArray]:
        """The momentum of every parameter."""
        return {_FIRST + name: moment for name, moment in self._moments.items()}

    def restore(self, state: Mapping[str, FloatArray]) -> None:
        """Go on from a state."""
        self._moments = {name.removeprefix(_FIRST): moment for name, moment in state.items()}


class FedAdam(FedAvg):
    """Adam: m ← β₁ m + (1 - β₁) Δ, v ← β₂ v + (1 - β₂) Δ², w ← w + η √(1 - β₂^(t+1)) / (1 - β₁^(t+1)) m / (√v + τ).

    Parameters
    ----------
    spool, equal, noise
        See `FedAvg`.
    learnt
        Names of the parameters.
    rate, beta_1, beta_2, tau
        η, β₁, β₂ and τ.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        learnt: Collection[str],
        rate: float,
        beta_1: float,
        beta_2: float,
        tau: float,
        equal: bool = False,
        noise: SiteNoise | None = None,
    ) -> None:
        super().__init__(spool, equal=equal, noise=noise)
        self._learnt = frozenset(learnt)
        self._rate, self._beta_1, self._beta_2, self._tau = rate, beta_1, beta_2, tau
        self._rounds = 0
        self._first: dict[str, FloatArray] = {}
        self._second: dict[str, FloatArray] = {}

    def finish(self) -> Step:
        """See the class."""
        self._rounds += 1
        return super().finish()

    def step(self, name: str, mean: FloatArray) -> FloatArray:
        """The step of a parameter, the mean for any other array."""
        if name not in self._learnt:
            return mean
        zero = np.zeros_like(mean)
        self._first[name] = self._beta_1 * self._first.get(name, zero) + (1 - self._beta_1) * mean
        self._second[name] = self._beta_2 * self._second.get(name, zero) + (1 - self._beta_2) * mean**2
        t = self._rounds + 1
        rate = self._rate * np.sqrt(1 - self._beta_2**t) / (1 - self._beta_1**t)
        return np.asarray(rate * self._first[name] / (np.sqrt(self._second[name]) + self._tau))

    def state(self) -> dict[str, FloatArray]:
        """Both moments of every parameter, and the number of rounds, (1,)."""
        return {
            _ROUNDS: np.array([float(self._rounds)]),
            **{_FIRST + name: moment for name, moment in self._first.items()},
            **{_SECOND + name: moment for name, moment in self._second.items()},
        }

    def restore(self, state: Mapping[str, FloatArray]) -> None:
        """Go on from a state."""
        self._rounds = int(state[_ROUNDS][0])
        self._first = {name.removeprefix(_FIRST): m for name, m in state.items() if name.startswith(_FIRST)}
        self._second = {name.removeprefix(_SECOND): v for name, v in state.items() if name.startswith(_SECOND)}
