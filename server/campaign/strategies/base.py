"""What a strategy is: configure a round, accept one update, finish the round (the terms of Flower's strategies)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedage.common.networks.arrays import Weights
from fedage.common.protocol.messages import Payload
from fedage.server.campaign.strategies.updates import Update


@dataclass(frozen=True, kw_only=True)
class RoundStart:
    """What a round begins with.

    Parameters
    ----------
    number
        The round, from 1.
    weights
        The model that goes out.
    sites
        The sites online whose patients may train, in order.
    learning_rate
        The sites' in this round.
    """

    number: int
    weights: Weights
    sites: tuple[str, ...]
    learning_rate: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RoundRequest:
    """Which sites are asked in a round, and what they are sent beside the model."""

    sites: tuple[str, ...]
    payload: Payload = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a round makes of its updates.

    Parameters
    ----------
    weights
        The next model, before the bounds of a step are applied to it.
    norm
        L2 norm of the change of all arrays together.
    """

    weights: Weights
    norm: float


class Strategy(Protocol):
    """How updates become the next model. One instance serves all rounds of one model and may keep state in between."""

    def configure(self, start: RoundStart) -> RoundRequest:
        """Begin a round; what was accepted before and not finished is forgotten."""

    def accept(self, update: Update) -> None:
        """Take one site's update, in the order of arrival. It has been checked against the model and its bounds."""

    def finish(self) -> Step:
        """The next model from the updates accepted, at least one. The order of arrival changes no bit of it."""

    def state(self) -> Mapping[str, NDArray[np.float64]]:
        """What it keeps from round to round, by names of its own: kept with each round, for a run that is resumed."""

    def restore(self, state: Mapping[str, NDArray[np.float64]]) -> None:
        """Go on from the state after an earlier round."""
