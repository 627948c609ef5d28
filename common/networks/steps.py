"""How far a model may move from one round to the next: a rule that sites and server hold to each other.

Attack: a coordinator that may send any weights asks any question of the patients trained on. A first layer that lets
one patient through puts that patient's record into the update; a model that says 0 or 130 years on either side of a
value tells, round by round, who lies there.
Rule: the first model follows from the approved file. From then on a step has an L2 norm of at most `step_norm` over all
learnt arrays together, and the steps of a run at most `path_norm` together; running statistics move by at most
`RUNNING_STEP` (below); fixed arrays never. A site clips its update to the same step.
Residual risk: an update still tells of the patients behind it, more so of few, and a coordinator that invents the sums
of other sites chooses how features are standardised. Only differential privacy bounds what one patient changes.

Notation: w arrays by name, Δ a change of them; for a channel with running mean m and variance v, before and after:
|Δm| / √(max(v, v′) + ε) and |ln((v′ + ε) / (v + ε))|.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.networks.roles import ArrayRoles

Arrays = Mapping[str, NDArray[Any]]

RUNNING_STEP = 8.0
"""How far a channel's running mean moves in a round, in standard deviations, and the logarithm of its variance."""
ROUNDING = 1e-3
"""Relative excess of a bound that is put down to float32."""
_EPSILON = 1e-5
"""Added to variances, as BatchNorm does."""


class StepTooLong(ValueError):
    """A model that moved further than the rule allows. `.rule` names which, the message says no value of it."""

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        super().__init__(detail)


@dataclass(frozen=True)
class StepLimits:
    """The bounds of a campaign: the L2 norm of one round's step, and of all steps of a run together."""

    step_norm: float
    path_norm: float


def learnt_norm(change: Arrays, roles: ArrayRoles) -> float:
    """L2 norm of a change over all learnt arrays jointly."""
    return math.sqrt(sum(float(np.sum(np.square(change[name], dtype=np.float64))) for name in roles.learnt))


def step_between(before: Arrays, after: Arrays, roles: ArrayRoles, *, limits: StepLimits, rounds: int = 1) -> float:
    """The norm of the step from one model to a later one, `rounds` rounds after it.

    Raises
    ------
    StepTooLong
        Rule `model-step`, `running-statistics` or `fixed-arrays`.
    """
    change = {name: np.subtract(after[name], before[name], dtype=np.float64) for name in roles.learnt}
    return _step(before, change, after, roles, limits=limits, rounds=rounds)


def step_by(before: Arrays, change: Arrays, roles: ArrayRoles, *, limits: StepLimits) -> float:
    """The norm of a step from a model by a change of all its arrays.

    Raises
    ------
    StepTooLong
        As `step_between`.
    """
    others = {name for pair in roles.running for name in pair} | set(roles.fixed)
    after = {name: before[name].astype(np.float64) + change[name] for name in others}
    return _step(before, change, after, roles, limits=limits, rounds=1)


def _step(
    before: Arrays, change: Arrays, after: Arrays, roles: ArrayRoles, *, limits: StepLimits, rounds: int
) -> float:
    norm, allowed = learnt_norm(change, roles), rounds * limits.step_norm
    if not norm <= allowed * (1 + ROUNDING):
        raise StepTooLong(
            "model-step",
            f"the model is further than training.max_step_norm = {limits.step_norm:g} a round from the one before",
        )
    for mean, variance in roles.running:
        shift, ratio = _running_step(before[mean], before[variance], after[mean], after[variance])
        if not max(shift, ratio) <= rounds * RUNNING_STEP * (1 + ROUNDING):
            raise StepTooLong(
                "running-statistics",
                f"a running mean moved by more than {RUNNING_STEP:g} standard deviations in a round, or a running "
                f"variance by more than a factor of {math.exp(RUNNING_STEP):.0f}",
            )
    for name in roles.fixed:
        if not np.array_equal(before[name], after[name]):
            raise StepTooLong("fixed-arrays", "an array that no training changes is another one than before")
    return norm


def clipped_step(before: Arrays, change: Arrays, roles: ArrayRoles, *, step_norm: float) -> dict[str, NDArray[Any]]:
    """A change within the bounds of one step, of the same types; the same arrays where nothing has to be clipped.

    The learnt arrays are scaled together, each running statistic is clipped alone, fixed arrays do not change.
    """
    within = dict(change)
    norm = learnt_norm(change, roles)
    if norm > step_norm:
        for name in roles.learnt:
            scaled = np.asarray(change[name], dtype=np.float64) * (step_norm / norm)
            within[name] = scaled.astype(change[name].dtype)
    for mean, variance in roles.running:
        m, v = (np.asarray(before[name], dtype=np.float64) for name in (mean, variance))
        shift, ratio = _running_step(m, v, m + change[mean], v + change[variance])
        if max(shift, ratio) <= RUNNING_STEP:
            continue
        low, high = (np.maximum((v + _EPSILON) * math.exp(sign * RUNNING_STEP) - _EPSILON, 0.0) for sign in (-1, 1))
        new = np.clip(v + change[variance], low, high)
        most = RUNNING_STEP * np.sqrt(np.maximum(v, new) + _EPSILON)
        within[mean] = np.clip(change[mean], -most, most).astype(change[mean].dtype)
        within[variance] = (new - v).astype(change[variance].dtype)
    for name in roles.fixed:
        within[name] = np.zeros_like(change[name])
    return within


def _running_step(
    m: NDArray[Any], v: NDArray[Any], m_after: NDArray[Any], v_after: NDArray[Any]
) -> tuple[float, float]:
    """The largest shift of a mean in standard deviations, and |ln| of the largest ratio of variances; inf if v′ < 0."""
    if not v.size:
        return 0.0, 0.0
    m, v, m_after, v_after = (np.asarray(array, dtype=np.float64) for array in (m, v, m_after, v_after))
    if np.any(v_after < 0) or np.any(v < 0):
        return math.inf, math.inf
    shift = np.abs(m_after - m) / np.sqrt(np.maximum(v, v_after) + _EPSILON)
    ratio = np.abs(np.log((v_after + _EPSILON) / (v + _EPSILON)))
    return float(shift.max()), float(ratio.max())
