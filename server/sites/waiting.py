"""Waiting for sites that are not there, where there are too few without them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from fedage.server.record.events import EventLog
from fedage.server.superlink.grid import PollingGrid

_LOOK_S = 0.5
_AGAIN_S, _SELDOM_S = 1.0, 15.0
"""Between two looks for lost sites, at first and at most: one that fails at once is not asked all the time."""


def online_when_enough(
    grid: PollingGrid, nodes: Mapping[str, int], *, quorum: int, wait_s: float, events: EventLog
) -> set[int]:
    """The nodes online, as soon as so many sites of `nodes` are among them as the quorum, or after `wait_s`."""
    deadline, announced = time.monotonic() + wait_s, False
    while True:
        online = set(grid.get_node_ids())
        away = sorted(site for site, node in nodes.items() if node not in online)
        if len(nodes) - len(away) >= min(quorum, len(nodes)) or time.monotonic() >= deadline:
            return online
        if not announced:
            events.emit("away", sites=away, quorum=quorum)
            announced = True
        time.sleep(_LOOK_S)


def coming_back(grid: PollingGrid, lost: set[int], *, enough: Callable[[], bool], wait_s: float) -> Iterator[list[int]]:
    """Lost nodes as they are online again, taken from `lost`, while there is not enough and the wait is not over.

    Whoever is given out and lost again is to be put back into `lost`.
    """
    deadline, pause_s = time.monotonic() + wait_s, _AGAIN_S
    while not enough() and lost and (left_s := deadline - time.monotonic()) > 0:
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _SELDOM_S)
        if back := sorted(lost.intersection(grid.get_node_ids())):
            lost.difference_update(back)
            yield back


@dataclass
class Enough:
    """Whether a round waits no longer: the quorum answered so long ago."""

    answered: Mapping[str, int]
    quorum: int
    wait_s: float | None
    _since: float | None = None

    def reached(self) -> bool:
        if self.wait_s is None or len(self.answered) < self.quorum:
            return False
        if self._since is None:
            self._since = time.monotonic()
        return time.monotonic() >= self._since + self.wait_s
