"""A node that was lost in an exchange is asked again once it is back, a few times, and within the deadline."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from flwr.app import Error, Message

from fedage.server.superlink import grid as grid_module
from fedage.server.superlink.grid import Again, Failure, PollingGrid
from tests.server.superlink.test_grid import FakeGrid, message_to


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_RESTART_S": 0.02, "_NODES_EVERY_S": 0.02, "_BACK_WITHIN_S": 0.6}.items():
        monkeypatch.setattr(grid_module, name, value)


@dataclass
class Node:
    node_id: int
    last_activated_at: str = "1"


class Coming(FakeGrid):
    """Nodes 1 and 2; node 1 fails `losses` times with an error before it answers, and is online when `online` says."""

    def __init__(self, error: Error, *, losses: int, back_after_s: float = 0.0) -> None:
        super().__init__({1: 0.0, 2: 0.0})
        self.failing, self.losses = error, losses
        self.back_at = time.monotonic() + back_after_s
        self.contents: list[Message] = []
        self.nodes = [Node(1), Node(2)]

    def push_messages(self, messages):  # type: ignore[no-untyped-def]
        messages = list(messages)
        for message in messages:
            if message.metadata.dst_node_id == 1:
                self.contents.append(message)
                self.error = {1: self.failing} if len(self.contents) <= self.losses else {}
        return super().push_messages(messages)

    def get_nodes(self) -> list[Node]:
        return [node for node in self.nodes if node.node_id != 1 or time.monotonic() >= self.back_at]


def exchanged(grid: Coming, *, deadline_s: float = 5.0) -> tuple[dict[int, Message | Failure], list[Failure]]:
    lost: list[Failure] = []
    again = Again(message=message_to, tell=lambda _node, failure: lost.append(failure))
    found = PollingGrid(grid, poll_s=0.01).exchange([message_to(1), message_to(2)], deadline_s=deadline_s, again=again)
    return found, lost


AGENT = Error(code=2, reason="AgentUnavailable")
OFFLINE = Error(code=5, reason="Error: Node Unavailable")
CRASHED = Error(code=8, reason="Traceback: Jane Roe")


@pytest.mark.parametrize("error", [AGENT, OFFLINE, CRASHED])
def test_a_lost_node_answers_when_it_is_back(error: Error) -> None:
    grid = Coming(error, losses=1, back_after_s=0.3)
    found, lost = exchanged(grid)
    assert isinstance(found[1], Message)
    assert isinstance(found[2], Message)
    assert len(lost) == 1
    assert "Jane" not in lost[0].reason
    assert grid.contents[1].metadata.ttl < 5


def test_a_message_that_kills_its_agent_each_time_is_not_sent_for_ever() -> None:
    grid = Coming(AGENT, losses=99)
    found, lost = exchanged(grid)
    assert found[1] == Failure(2, "AgentUnavailable")
    assert (len(grid.contents), len(lost)) == (3, 2)


def test_a_node_that_stays_away_is_waited_for_no_longer_than_it_takes_to_restart() -> None:
    began = time.monotonic()
    found, _ = exchanged(Coming(OFFLINE, losses=9, back_after_s=60))
    assert found[1] == Failure(5, "went offline")
    assert 0.5 < time.monotonic() - began < 4


def test_the_deadline_ends_it_too() -> None:
    began = time.monotonic()
    found, _ = exchanged(Coming(OFFLINE, losses=9, back_after_s=60), deadline_s=0.2)
    assert isinstance(found[1], Failure)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("reason", ["ValueError", "DiskFull", "AgentTimeout", "Withdrawn"])
def test_a_failure_that_would_come_again_is_final(reason: str) -> None:
    grid = Coming(Error(code=2, reason=reason), losses=1)
    found, lost = exchanged(grid)
    assert found[1] == Failure(2, reason)
    assert (len(grid.contents), lost) == (1, [])


def test_a_node_that_was_started_again_unseen_is_asked_again() -> None:
    """Its old process died with the message; Flower says nothing, as the node is online again."""
    grid = Coming(AGENT, losses=0)
    grid.after_s = {2: 0.0}  # the first message to node 1 is never answered

    def restart_and_answer() -> list[Node]:
        if time.monotonic() > began + 0.2:
            grid.nodes[0].last_activated_at = "2"
            grid.after_s[1] = 0.0
        return grid.nodes

    began = time.monotonic()
    grid.get_nodes = restart_and_answer  # type: ignore[method-assign]
    found, lost = exchanged(grid)
    assert isinstance(found[1], Message)
    assert [failure.reason for failure in lost] == ["was started again"]
    assert len(grid.contents) == 2
