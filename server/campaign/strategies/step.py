"""The bounds of a step, which hold for whatever a strategy makes of the updates."""

from __future__ import annotations

import numpy as np

from fedage.common.networks.arrays import Weights
from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import StepLimits, clipped_step, learnt_norm


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
