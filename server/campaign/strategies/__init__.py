"""How the sites' updates become the next model: one strategy a file.

A strategy is asked to configure a round, to accept one update at a time as the sites answer, and to finish the round.
The rounds themselves (who is asked, what is checked, the bounds of a step, the record) are the same for all of them.
"""

from __future__ import annotations

from fedage.common.campaign.types import Training
from fedage.server.campaign.strategies.base import RoundRequest, RoundStart, Step, Strategy
from fedage.server.campaign.strategies.fedavg import FedAvg
from fedage.server.campaign.strategies.spool import Spool
from fedage.server.campaign.strategies.updates import Update, UpdateRefused, check_update

__all__ = [
    "FedAvg",
    "RoundRequest",
    "RoundStart",
    "Spool",
    "Step",
    "Strategy",
    "Update",
    "UpdateRefused",
    "check_update",
    "make_strategy",
]

_STRATEGIES = {"fedavg": FedAvg}


def make_strategy(training: Training, spool: Spool) -> Strategy:
    """The strategy that a campaign file names; updates wait in `spool`.

    Raises
    ------
    KeyError
        If there is none of that name; the campaign file is checked for it when it is read.
    """
    return _STRATEGIES[training.strategy](spool)
