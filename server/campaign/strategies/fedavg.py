"""Federated averaging: Σ n_k Δ_k / Σ n_k (McMahan et al. 2017, FederatedAveraging)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.networks.arrays import Weights
from fedage.server.campaign.strategies.base import RoundRequest, RoundStart, Step
from fedage.server.campaign.strategies.spool import Spool
from fedage.server.campaign.strategies.updates import Update


class FedAvg:
    """The mean of the updates, weighted by patients.

    Updates wait on disk until the round ends and are added in the order of the sites' names, array by array through one
    float64 accumulator: memory is that of one model, however many sites there are.

    Parameters
    ----------
    spool
        Where they wait.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._weights: Weights = {}

    def configure(self, start: RoundStart) -> RoundRequest:
        """All sites get the model and nothing else."""
        self._spool.clear()
        self._weights = start.weights
        return RoundRequest(sites=start.sites)

    def accept(self, update: Update) -> None:
        """Spool one site's update."""
        self._spool.add(update)

    def finish(self) -> Step:
        """The mean update, added to the model."""
        patients = self._spool.patients()
        total = sum(patients.values())
        following: Weights = {}
        squared = 0.0
        for name, current in self._weights.items():
            accumulator: NDArray[np.float64] = np.zeros(current.shape, dtype=np.float64)
            for site, change in self._spool.arrays(name):
                accumulator += patients[site] * change.astype(np.float64)
            mean = accumulator / total
            squared += float(np.sum(mean**2))
            following[name] = moved(current, mean)
        self._spool.clear()
        return Step(weights=following, norm=float(np.sqrt(squared)))


def moved(current: NDArray[Any], change: NDArray[np.float64]) -> NDArray[Any]:
    """An array and its change, in the array's own type."""
    return (current.astype(np.float64) + change).astype(current.dtype)


def norm_between(before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]]) -> float:
    """L2 norm of the change of all arrays together."""
    return float(np.sqrt(sum(float(np.sum((after[name].astype(np.float64) - before[name]) ** 2)) for name in before)))
