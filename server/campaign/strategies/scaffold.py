"""SCAFFOLD (Karimireddy et al. 2020): averaging with control variates; see `common.networks.control_variates`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from fedage.common.networks.control_variates import change_of_control
from fedage.common.protocol.control import join_control
from fedage.server.campaign.strategies.base import RoundRequest, RoundStart, Step
from fedage.server.campaign.strategies.fedavg import FedAvg
from fedage.server.campaign.strategies.updates import Spool, Update

FloatArray = NDArray[np.float64]
_SUM, _WEIGHT, _COUNTED = "c:", "n:", "r:"
"""Before names in a state: of a parameter its Σ nᵢ cᵢ, of a site its nᵢ and the last round whose update counted."""


class Scaffold(FedAvg):
    """The mean of the updates, and c = Σ nᵢ cᵢ / Σ nᵢ over the sites that have trained so far.

    The sites' own control variates are not known here: how each changed follows from its update. Memory is that of
    another model.

    Parameters
    ----------
    spool, equal
        See `FedAvg`.
    learnt
        Names of the parameters.
    """

    def __init__(self, spool: Spool, *, learnt: Collection[str], equal: bool = False) -> None:
        super().__init__(spool, equal=equal)
        self._learnt = tuple(learnt)
        self._sums: dict[str, FloatArray] = {}
        self._site_weights: dict[str, int] = {}
        self._counted: dict[str, int] = {}
        self._control: dict[str, NDArray[np.float32]] = {}
        self._told: dict[str, Update] = {}
        self._round, self._rate = 0, 0.0

    def configure(self, start: RoundStart) -> RoundRequest:
        """All sites get the model, c, and which update of each counted last."""
        asked = super().configure(start)
        self._told.clear()
        self._round, self._rate = start.number, start.learning_rate
        total = sum(self._site_weights.values())
        self._control = {name: (each / total).astype(np.float32) for name, each in self._sums.items()}
        counted = {site: number for site, number in self._counted.items() if site in asked.sites}
        return RoundRequest(sites=asked.sites, payload=join_control(self._control, counted=counted))

    def accept(self, update: Update) -> None:
        """Spool one site's update."""
        super().accept(update)
        # Of the arrays only what the spool has; what else was told is small.
        self._told[update.site] = Update(
            site=update.site, change={}, n=update.n, steps=update.steps, control_share=update.control_share
        )

    def finish(self) -> Step:
        """The mean update, and c after the round."""
        for name in self._learnt:
            for site, change in self._spool.arrays(name):
                told = self._told[site]
                moved = change_of_control(
                    np.asarray(self._control.get(name, 0.0), dtype=np.float64),
                    change.astype(np.float64),
                    share=told.control_share,
                    steps=told.steps,
                    rate=self._rate,
                )
                weighted = self._weight(told) * moved
                self._sums[name] = self._sums[name] + weighted if name in self._sums else weighted
        for site, told in sorted(self._told.items()):
            self._site_weights[site], self._counted[site] = self._weight(told), self._round
        return super().finish()

    def state(self) -> dict[str, FloatArray]:
        """Σ nᵢ cᵢ of every parameter, and by site nᵢ and the last round that counted, (1,) each."""
        return {
            **{_SUM + name: each for name, each in self._sums.items()},
            **{_WEIGHT + site: np.array([float(n)]) for site, n in self._site_weights.items()},
            **{_COUNTED + site: np.array([float(number)]) for site, number in self._counted.items()},
        }

    def restore(self, state: Mapping[str, FloatArray]) -> None:
        """Go on from a state."""
        self._sums = {name.removeprefix(_SUM): each for name, each in state.items() if name.startswith(_SUM)}
        self._site_weights = _of_sites(state, _WEIGHT)
        self._counted = _of_sites(state, _COUNTED)

    def _weight(self, told: Update) -> int:
        return 1 if self._equal else told.n


def _of_sites(state: Mapping[str, FloatArray], prefix: str) -> dict[str, int]:
    return {key.removeprefix(prefix): int(value[0]) for key, value in state.items() if key.startswith(prefix)}
