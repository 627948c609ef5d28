"""A strategy of Flower's own (`flwr.serverapp.strategy`), run inside FedAge's rounds."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy as FlowersStrategy
from numpy.typing import NDArray

from fedage.common.networks.arrays import Weights
from fedage.common.protocol.messages import TRAIN
from fedage.server.campaign.strategies.base import RoundRequest, RoundStart, Step
from fedage.server.campaign.strategies.fedavg import moved, norm_between
from fedage.server.campaign.strategies.updates import Spool, Update

ARRAYS, METRICS, PATIENTS = "arrays", "metrics", "num-examples"
"""Names of the records and of the weight that Flower's strategies expect unless told otherwise."""


class FlowerStrategy:
    """Lets a strategy of Flower's choose a round's sites and make the next model of their updates.

    The strategy sees a grid of as many nodes as there are sites and one reply a site, in the order of the sites' names.
    Messages, signatures, checks and the bounds of a step stay FedAge's. A site sends its update by the rule of the
    campaign file, whatever the strategy would have its clients do: one that needs more than a mean of trained models
    (FedProx's term, control variates) does less here than its name says.

    Parameters
    ----------
    strategy
        Flower's. It must take records by their usual names (`arrays`, `num-examples`).
    spool
        Where updates wait.
    seed
        Drives which sites are sampled; Flower itself samples by Python's global state.
    """

    def __init__(self, strategy: FlowersStrategy, spool: Spool, *, seed: int) -> None:
        self._strategy = strategy
        self._spool = spool
        self._seed = seed
        self._start = RoundStart(number=0, weights={}, sites=())

    def configure(self, start: RoundStart) -> RoundRequest:
        """The sites that the strategy samples.

        Raises
        ------
        ValueError
            If the strategy wants more sites than there are: it would wait for them for ever.
        """
        self._spool.clear()
        self._start = start
        least = max(getattr(self._strategy, name, 0) for name in ("min_available_nodes", "min_train_nodes"))
        if least > len(start.sites):
            raise ValueError(f"the strategy wants {least} sites (min_train_nodes), and {len(start.sites)} can train")
        before = random.getstate()
        random.seed(f"{self._seed} {start.number}")
        try:
            messages = list(
                self._strategy.configure_train(
                    start.number, _arrays(start.weights), ConfigRecord(), cast(Grid, _Sites(len(start.sites)))
                )
            )
        finally:
            random.setstate(before)
        chosen = {message.metadata.dst_node_id for message in messages}
        return RoundRequest(sites=tuple(site for number, site in enumerate(start.sites, start=1) if number in chosen))

    def accept(self, update: Update) -> None:
        """Spool one site's update."""
        self._spool.add(update)

    def finish(self) -> Step:
        """What the strategy makes of the trained models.

        Raises
        ------
        ValueError
            If it makes no model of them, or one of other arrays.
        """
        made, _ = self._strategy.aggregate_train(self._start.number, list(self._replies()))
        before = self._start.weights
        if made is None or set(made) != set(before):
            raise ValueError("the strategy made no model of the round's updates")
        after = {name: made[name].numpy().astype(current.dtype) for name, current in before.items()}
        self._spool.clear()
        return Step(weights=after, norm=norm_between(before, after))

    def state(self) -> dict[str, NDArray[np.float64]]:
        """Nothing: what a strategy of Flower's keeps has no form of its own, so a resumed run begins it anew."""
        return {}

    def restore(self, state: Mapping[str, NDArray[np.float64]]) -> None:
        """See `state`."""

    def _replies(self) -> Iterator[Message]:
        numbers = {site: number for number, site in enumerate(self._start.sites, start=1)}
        for update in self._spool.updates():
            trained = {name: moved(array, update.change[name]) for name, array in self._start.weights.items()}
            content = RecordDict({ARRAYS: _arrays(trained), METRICS: MetricRecord({PATIENTS: update.n})})
            asked = Message(RecordDict(), message_type=TRAIN, dst_node_id=numbers[update.site])
            yield Message(content, reply_to=asked)


class _Sites:
    """As much of a Grid as sampling needs: the sites as nodes numbered from 1."""

    def __init__(self, number: int) -> None:
        self._number = number

    def get_node_ids(self) -> list[int]:
        return list(range(1, self._number + 1))


def _arrays(weights: Weights) -> ArrayRecord:
    arrays: dict[str, Any] = {name: Array(array) for name, array in weights.items()}
    return ArrayRecord(arrays)
