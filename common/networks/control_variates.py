"""SCAFFOLD's control variates, and what bounds them (Karimireddy et al. 2020, algorithm 1, option II).

Notation: Δᵢ the update of site i after K steps at the rate η, c the server's control variate, cᵢ the site's own, share
∈ [0, 1] how much of c the site uses. Each step adds share·c - cᵢ to the gradient, and then

    cᵢ ← cᵢ - share·c - Δᵢ / (K η).

So that the change of cᵢ follows from the update, K and the share: nothing but these leaves a site, and the server works
out c = Σ nᵢ cᵢ / Σ nᵢ itself.

Attack: a control variate moves a site's model as far during the round as any model that a coordinator may invent. Rule:
it counts as model: over a round it moves the site's by at most a step (K η |c| ≤ `max_step_norm`), over a run by at
most `max_path_norm`, and a round has one. What is longer is used in the share that is within. Residual risk: within
these bounds its direction is the coordinator's choice, as that of the model is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
FloatArray = NDArray[np.float64]


def reach(control: Arrays, *, steps: int, rate: float) -> float:
    """How far a control variate moves a model in a round: K η |c|, the L2 norm over all arrays jointly."""
    return (
        steps * rate * math.sqrt(sum(float(np.sum(np.square(array, dtype=np.float64))) for array in control.values()))
    )


def change_of_control(control: FloatArray, change: FloatArray, *, share: float, steps: int, rate: float) -> FloatArray:
    """The change of cᵢ in one array: -(share·c) - Δᵢ / (K η)."""
    return np.asarray(-share * control - change / (steps * rate), dtype=np.float64)


@dataclass(frozen=True)
class ControlVariates:
    """Those of one training at a site.

    Parameters
    ----------
    server
        c, the arrays of the network's parameters; none in the first round.
    own
        cᵢ, likewise; none before the site has trained.
    allowed
        How far c may move the model in this round.
    """

    server: Arrays
    own: Arrays
    allowed: float

    def share(self, *, steps: int, rate: float) -> float:
        """How much of c is within the bound."""
        far = reach(self.server, steps=steps, rate=rate)
        return 1.0 if far <= self.allowed else self.allowed / far

    def correction(self, *, steps: int, rate: float) -> dict[str, NDArray[np.float32]]:
        """What each step adds to the gradient: share·c - cᵢ."""
        share = self.share(steps=steps, rate=rate)
        added = {}
        for name in {**self.server, **self.own}:
            server, own = (np.asarray(arrays.get(name, 0.0), dtype=np.float64) for arrays in (self.server, self.own))
            added[name] = (share * server - own).astype(np.float32)
        return added

    def own_after(self, change: Arrays, *, steps: int, rate: float) -> dict[str, NDArray[np.float32]]:
        """cᵢ after a training with this update of the parameters."""
        share = self.share(steps=steps, rate=rate)
        after = {}
        for name, array in change.items():
            server = np.asarray(self.server.get(name, np.zeros(array.shape)), dtype=np.float64)
            own = np.asarray(self.own.get(name, np.zeros(array.shape)), dtype=np.float64)
            moved = change_of_control(server, np.asarray(array, dtype=np.float64), share=share, steps=steps, rate=rate)
            after[name] = (own + moved).astype(np.float32)
        return after
