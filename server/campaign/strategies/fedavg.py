"""Federated averaging: Σ n_k Δ_k / Σ n_k (McMahan et al. 2017, FederatedAveraging)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.networks.arrays import Weights
from fedage.server.campaign.strategies.base import RoundRequest, RoundStart, Step
from fedage.server.campaign.strategies.site_noise import SiteNoise
from fedage.server.campaign.strategies.updates import Spool, Update


class FedAvg:
    """The mean of the updates, weighted by patients.

    Updates wait on disk until the round ends and are added in the order of the sites' names, array by array through one
    float64 accumulator: memory is that of one model, however many sites there are.

    Parameters
    ----------
    spool
        Where they wait.
    equal
        Whether every site's update counts the same, whatever its patients.
    noise
        What is added to the mean, for privacy of whole sites; None for nothing.
    """

    def __init__(self, spool: Spool, *, equal: bool = False, noise: SiteNoise | None = None) -> None:
        self._spool = spool
        self._equal = equal
        self._noise = noise
        self._weights: Weights = {}
        self._number = 0

    def configure(self, start: RoundStart) -> RoundRequest:
        """All sites get the model and nothing else."""
        self._spool.clear()
        self._weights, self._number = start.weights, start.number
        return RoundRequest(sites=start.sites)

    def accept(self, update: Update) -> None:
        """Spool one site's update."""
        self._spool.add(update)

    def finish(self) -> Step:
        """The mean update, as `step` has it, added to the model."""
        following: Weights = {}
        squared = 0.0
        for name, mean in self._means():
            change = self.step(name, mean)
            squared += float(np.sum(change**2))
            following[name] = moved(self._weights[name], change)
        self._spool.clear()
        return Step(weights=following, norm=float(np.sqrt(squared)))

    def step(self, name: str, mean: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - of all arrays alike
        """How far an array moves, given the mean of its updates."""
        return mean

    def state(self) -> dict[str, NDArray[np.float64]]:
        """What is kept from round to round: nothing."""
        return {}

    def restore(self, state: Mapping[str, NDArray[np.float64]]) -> None:
        """Go on from a state."""

    def _means(self) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """The mean update of one array after another."""
        patients = self._spool.patients()
        counts = dict.fromkeys(patients, 1) if self._equal else patients
        total = sum(counts.values())
        for name in self._weights:
            mean = self._spool.add_up(name, counts)
            mean /= total
            if self._noise is not None:
                share = max(counts.values()) / total
                mean = self._noise.added(name, mean, round_number=self._number, largest_share=share)
            yield name, mean


def moved(current: NDArray[Any], change: NDArray[np.float64]) -> NDArray[Any]:
    """An array and its change, in the array's own type."""
    exact: NDArray[np.float64] = np.add(current, change, dtype=np.float64)
    return exact.astype(current.dtype)


def norm_between(before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]]) -> float:
    """L2 norm of the change of all arrays together."""
    return float(np.sqrt(sum(float(np.sum((after[name].astype(np.float64) - before[name]) ** 2)) for name in before)))
