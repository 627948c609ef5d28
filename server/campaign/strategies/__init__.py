"""How the sites' updates become the next model: one strategy a file.

A strategy is asked to configure a round, to accept one update at a time as the sites answer, and to finish the round.
The rounds themselves (who is asked, what is checked, the bounds of a step, the record) are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Collection

from fedage.common.campaign.types import Training
from fedage.server.campaign.strategies.base import RoundRequest, RoundStart, Step, Strategy
from fedage.server.campaign.strategies.fedavg import FedAvg
from fedage.server.campaign.strategies.scaffold import Scaffold
from fedage.server.campaign.strategies.server_optimisers import FedAdam, FedAvgM
from fedage.server.campaign.strategies.site_noise import SiteNoise
from fedage.server.campaign.strategies.updates import Spool, Update, UpdateRefused, check_update

__all__ = [
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "RoundRequest",
    "RoundStart",
    "Scaffold",
    "SiteNoise",
    "Spool",
    "Step",
    "Strategy",
    "Update",
    "UpdateRefused",
    "check_update",
    "make_strategy",
]


def make_strategy(
    training: Training, spool: Spool, *, learnt: Collection[str], noise: SiteNoise | None = None
) -> Strategy:
    """The strategy that a campaign file names; updates wait in `spool`, `learnt` names the network's parameters.

    `noise` is added to the mean of the updates, before an optimiser sees it.

    FedProx and FedBN differ at the sites only, see `train_locally` and `client.inbox.own_training`.
    """
    equal = training.weighting == "equal"
    match training.strategy:
        case "fedavgm":
            return FedAvgM(
                spool,
                learnt=learnt,
                rate=_given(training.server_learning_rate, 1.0),
                momentum=_given(training.server_momentum, 0.9),
                equal=equal,
                noise=noise,
            )
        case "fedadam":
            return FedAdam(
                spool,
                learnt=learnt,
                rate=_given(training.server_learning_rate, 0.01),
                beta_1=_given(training.server_beta_1, 0.9),
                beta_2=_given(training.server_beta_2, 0.99),
                tau=_given(training.server_tau, 1e-3),
                equal=equal,
                noise=noise,
            )
        case "scaffold":
            return Scaffold(spool, learnt=learnt, equal=equal)
        case _:
            return FedAvg(spool, equal=equal, noise=noise)


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
