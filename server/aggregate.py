"""Federated averaging: Σ n_k Δ_k / Σ n_k, added in the order of the sites' names through one float64 accumulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.continuity import StepLimits, StepTooLong, clipped_step, learnt_norm, step_between
from fedage.common.networks.arrays import Weights, is_finite_float32
from fedage.common.networks.roles import ArrayRoles
from fedage.common.protocol import printable


class UpdateRefused(ValueError):
    """A site's update that does not count. `.rule` is a short name, the message names the array."""

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        super().__init__(detail)


@dataclass(frozen=True)
class Update:
    """One site's change of the weights and the number of patients it was trained on."""

    change: Mapping[str, NDArray[Any]]
    n: int


def check_update(
    update: Update,
    weights: Mapping[str, NDArray[Any]],
    *,
    patients: int | None,
    roles: ArrayRoles | None = None,
    limits: StepLimits | None = None,
) -> None:
    """Make sure that an update fits the model, the site's own description of its cohort, and the bounds of a step.

    Attack: a site that answers with an update of its choice, or claims more patients than it has, decides the model.
    Rule: each of the checks below, by name. Residual risk: a site within them still pulls the model by its share of
    the patients it described, a step at a time.

    Parameters
    ----------
    patients
        How many the site described.
    roles, limits
        What the model's arrays are and how far it may move in a round; None checks no norm.

    Raises
    ------
    UpdateRefused
        Rule `update-patients`, `update-arrays`, `update-type`, `update-not-finite`, `update-norm`,
        `running-statistics` or `fixed-arrays`.
    """
    if update.n < 1:
        raise UpdateRefused("update-patients", "an update must come from at least one patient")
    if patients is None or update.n > patients:
        raise UpdateRefused("update-patients", "an update must not count more patients than the site described")
    if set(update.change) != set(weights):
        missing = sorted(printable(name)[:80] for name in set(update.change) ^ set(weights))
        raise UpdateRefused("update-arrays", f"the update's arrays are not the model's ({', '.join(missing[:3])} …)")
    for name, array in update.change.items():
        if array.shape != weights[name].shape:
            shape = weights[name].shape
            raise UpdateRefused("update-arrays", f"{name} has shape {array.shape}, the model's is {shape}")
        if array.dtype.kind != "f":
            raise UpdateRefused("update-type", f"{name} has type {array.dtype}, needed is float32")
        if not is_finite_float32(array):
            raise UpdateRefused("update-not-finite", f"{name} has values that are not finite in float32")
    if roles is None or limits is None:
        return
    after = {name: weights[name].astype(np.float64) + array for name, array in update.change.items()}
    try:
        step_between(weights, after, roles, limits=limits)
    except StepTooLong as long:
        rule = "update-norm" if long.rule == "model-step" else long.rule
        raise UpdateRefused(rule, str(long).replace("the model is further", "the update goes further")) from None


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


def limited_step(
    before: Weights, after: Weights, roles: ArrayRoles, *, limits: StepLimits, path: float
) -> tuple[Weights, float, bool]:
    """The next model within the bounds that the sites hold it to, the norm of its step, and whether it was clipped.

    Parameters
    ----------
    path
        How far the run has come; what is left of `limits.path_norm` bounds the step too.
    """
    change = {name: after[name].astype(np.float64) - before[name] for name in before}
    allowed = max(0.0, min(limits.step_norm, limits.path_norm - path))
    within = clipped_step(before, change, roles, step_norm=allowed)
    if all(within[name] is change[name] for name in roles.moving):
        return after, learnt_norm(change, roles), False
    clipped = {name: (before[name].astype(np.float64) + within[name]).astype(before[name].dtype) for name in before}
    return clipped, learnt_norm(within, roles), True
