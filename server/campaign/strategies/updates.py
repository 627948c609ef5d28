"""One site's update, and what makes it one that counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.networks.arrays import is_finite_float32
from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import StepLimits, StepTooLong, step_between
from fedage.common.protocol.messages import printable


class UpdateRefused(ValueError):
    """A site's update that does not count. `.rule` is a short name, the message names the array."""

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        super().__init__(detail)


@dataclass(frozen=True, kw_only=True)
class Update:
    """One site's change of the weights and the number of patients it was trained on."""

    site: str
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
