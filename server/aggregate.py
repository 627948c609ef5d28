"""Federated averaging: Σ n_k Δ_k / Σ n_k, added in the order of the sites' names through one float64 accumulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.networks.arrays import Weights


class UpdateRefused(ValueError):
    """A site's update has wrong names, shapes or values that are not finite; the message names the array."""


@dataclass(frozen=True)
class Update:
    """One site's change of the weights and the number of patients it was trained on."""

    change: Mapping[str, NDArray[Any]]
    n: int


def check_update(update: Update, weights: Mapping[str, NDArray[Any]], *, patients: int | None) -> None:
    """Raise `UpdateRefused` unless the update fits the model and the site's own description of its cohort."""
    if update.n < 1:
        raise UpdateRefused("an update must come from at least one patient")
    if patients is None or update.n > patients:
        raise UpdateRefused("an update must not count more patients than the site described")
    if set(update.change) != set(weights):
        missing = sorted(set(update.change) ^ set(weights))
        raise UpdateRefused(f"the update's arrays are not the model's ({', '.join(missing[:3])} …)")
    for name, array in update.change.items():
        if array.shape != weights[name].shape:
            raise UpdateRefused(f"{name} has shape {array.shape}, the model's is {weights[name].shape}")
        if not np.all(np.isfinite(array)):
            raise UpdateRefused(f"{name} has values that are not finite")


def federated_average(weights: Mapping[str, NDArray[Any]], updates: Mapping[str, Update]) -> tuple[Weights, float]:
    """The next weights and the L2 norm of the mean update (McMahan et al. 2017, eq. for FederatedAveraging).

    Parameters
    ----------
    weights
        The model the sites started from.
    updates
        By site; at least one.
    """
    patients = sum(update.n for update in updates.values())
    following: Weights = {}
    squared = 0.0
    for name, current in weights.items():
        accumulator = np.zeros(current.shape, dtype=np.float64)
        for site in sorted(updates):
            accumulator += updates[site].n * updates[site].change[name].astype(np.float64)
        mean = accumulator / patients
        squared += float(np.sum(mean**2))
        following[name] = (current.astype(np.float64) + mean).astype(current.dtype)
    return following, float(np.sqrt(squared))
