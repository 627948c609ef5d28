"""Exchanges over an in-process grid: as they arrive, by the deadline, failures told apart."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable

import pytest
from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.server.superlink.linkstate.utils import (
    create_message_error_unavailable_ins_message,
    create_message_error_unavailable_res_message,
)
from flwr.supercore.inflatable import inflatable_utils

from fedage.server.superlink.grid import UNANSWERED, Failure, PollingGrid

Answer = Callable[[Message], Message | None]


def message_to(node: int) -> Message:
    metadata = Metadata(
        run_id=1,
        message_id="",
        src_node_id=1,
        dst_node_id=node,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=1e5,
        message_type="train",
    )
    return make_message(metadata=metadata, content=RecordDict())


class FakeGrid:
    """Node n answers after `after_s[n]`, never if it is not there; it refuses what is in `refuse`."""

    def __init__(self, after_s: dict[int, float], *, error: dict[int, Error] | None = None, refuse: Iterable[int] = ()):
        self.after_s, self.error, self.refuse = after_s, error or {}, set(refuse)
        self.sent: dict[str, tuple[Message, float]] = {}
        self.looks: list[float] = []
        self._ids = (f"id-{number}" for number in itertools.count())

    def get_node_ids(self) -> list[int]:
        return [30, 10, 20]

    def create_message(self, *arguments: object) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            if node in self.refuse:
                ids.append(None)
                continue
            message_id = next(self._ids)
            message.metadata.__dict__["_message_id"] = message_id
            self.sent[message_id] = (message, time.monotonic() + self.after_s.get(node, 1e9))
            ids.append(message_id)
        return ids  # type: ignore[return-value]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self.looks.append(time.monotonic())
        replies = []
        for message_id in message_ids:
            message, ready = self.sent.get(message_id, (None, 1e9))
            if message is not None and time.monotonic() >= ready:
                del self.sent[message_id]
                error = self.error.get(message.metadata.dst_node_id)
                content = error if error is not None else RecordDict()
                replies.append(Message(content, reply_to=message))
        return replies


def exchange(grid: FakeGrid, nodes: Iterable[int], **options: object) -> dict[int, Message | Failure]:
    return PollingGrid(grid, poll_s=0.01).exchange([message_to(n) for n in nodes], **options)  # type: ignore[arg-type]


def test_node_ids_come_in_order() -> None:
    assert PollingGrid(FakeGrid({})).get_node_ids() == [10, 20, 30]


def test_replies_are_handed_on_as_they_arrive() -> None:
    grid = FakeGrid({2: 0.0})  # the others answer only once the one before has been handed on
    arrived: list[int] = []

    def tell(node: int, _: object) -> None:
        arrived.append(node)
        follows = {2: 3, 3: 1}.get(node)
        for key, (message, _ready) in list(grid.sent.items()):
            if message.metadata.dst_node_id == follows:
                grid.sent[key] = (message, 0.0)

    found = exchange(grid, (1, 2, 3), deadline_s=5, on_reply=tell)
    assert arrived == [2, 3, 1]
    assert all(isinstance(reply, Message) for reply in found.values())


def test_an_error_is_a_failure_with_its_reason() -> None:
    error = {1: Error(code=2, reason="ValueError"), 2: Error(code=5), 3: Error(code=2)}
    found = exchange(FakeGrid({1: 0, 2: 0, 3: 0}, error=error), (1, 2, 3), deadline_s=5)
    assert found == {
        1: Failure(2, "ValueError"),
        2: Failure(5, "went offline"),
        3: Failure(2, "failed and did not say why"),
    }


RAY = (
    "<class 'flwr.clientapp.client_app.ClientAppException'>:<'\nException ClientAppException occurred: "
    "\x1b[36mray::ClientAppActor.run()\x1b[39m (pid=4711, ip=10.0.0.7)\nKeyError: 'Jane Roe'\nnode 5550123456789'>"
)


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        (2, RAY, "ClientAppException"),
        (0, "<class 'KeyError'>:<'Jane Roe'>", "KeyError"),
        (0, "<class 'ray.exceptions.RayTaskError(ValueError)'>:<'Jane Roe'>", "RayTaskError"),
        (0, "Jane Roe, node 5550123456789", "failed and did not say why"),
        (2, "<class 'Jane Roe'>", "failed and did not say why"),
        (2, "K" * 81, "failed and did not say why"),
        (2, "ValueError\n", "failed and did not say why"),
        (3, "Error: Message Unavailable - node 5550123456789", "did not answer before the deadline"),
        (8, "Traceback: Jane Roe", "the app crashed"),
    ],
)
def test_no_exceptions_text_and_no_nodes_number_is_ever_told(code: int, reason: str, told: str) -> None:
    found = exchange(FakeGrid({1: 0}, error={1: Error(code=code, reason=reason)}), (1,), deadline_s=5)
    assert found == {1: Failure(code, told)}


@pytest.mark.parametrize(
    ("by_flower", "told"),
    [
        # Fetched by its node or not, Flower says the same of a message whose time is over: delivery is not known.
        (create_message_error_unavailable_ins_message("id-0", 1), "did not answer before the deadline"),
        (create_message_error_unavailable_res_message(message_to(1).metadata, "msg_unavail"), "the answer came after"),
        (create_message_error_unavailable_res_message(message_to(1).metadata, "node_unavail"), "went offline"),
    ],
)
def test_of_a_message_whose_time_is_over_nothing_is_said_of_its_delivery(by_flower: Message, told: str) -> None:
    found = exchange(FakeGrid({1: 0}, error={1: by_flower.error}), (1,), deadline_s=5)[1]
    assert isinstance(found, Failure)
    assert found.reason.startswith(told)
    assert "deliver" not in found.reason


def test_the_deadline_is_the_messages_time_to_live_and_ends_the_wait() -> None:
    grid = FakeGrid({1: 0.0})
    began = time.monotonic()
    told: list[int] = []
    found = exchange(grid, (1, 2), deadline_s=0.2, on_reply=lambda node, _: told.append(node))
    assert 0.2 < time.monotonic() - began < 5
    assert found[2] == Failure(UNANSWERED, "no answer within 0.2 s")
    assert isinstance(found[1], Message)
    assert told == [1, 2]
    assert [message.metadata.ttl for message, _ in grid.sent.values()] == [0.2]


def test_an_exchange_can_be_stopped_at_a_quorum() -> None:
    answered: set[int] = set()
    found = exchange(
        FakeGrid({1: 0.0, 2: 0.05}),
        (1, 2, 3),
        deadline_s=60,
        on_reply=lambda node, _: answered.add(node),
        stop=lambda: len(answered) >= 2,
    )
    assert {node for node, reply in found.items() if isinstance(reply, Message)} == {1, 2}
    assert found[3] == Failure(UNANSWERED, "no answer when enough others had given theirs")


def test_what_could_not_be_sent_is_told_at_once() -> None:
    found = exchange(FakeGrid({1: 0.0}, refuse=[2]), (1, 2), deadline_s=5)
    assert found[2] == Failure(UNANSWERED, "the SuperLink did not take the message")
    assert isinstance(found[1], Message)


def test_a_lot_too_large_for_the_superlink_is_a_failure_of_each() -> None:
    grid = FakeGrid({})
    grid.push_messages = lambda _messages: []  # type: ignore[method-assign,assignment]
    assert exchange(grid, (1, 2), deadline_s=5) == dict.fromkeys(
        (1, 2), Failure(UNANSWERED, "the SuperLink did not take the message")
    )


def test_nothing_to_send_is_nothing_to_wait_for() -> None:
    grid = FakeGrid({})
    assert exchange(grid, (), deadline_s=5) == {}
    assert grid.looks == []


def test_two_messages_to_one_node_are_refused() -> None:
    with pytest.raises(ValueError, match="one message a node"):
        exchange(FakeGrid({}), (1, 1), deadline_s=5)


def test_looks_become_rarer_while_waiting() -> None:
    grid = FakeGrid({1: 1.5})
    exchange(grid, (1,), deadline_s=5)
    pauses = [b - a for a, b in itertools.pairwise(grid.looks)]
    assert pauses[0] < 0.03
    assert max(pauses) > 0.05
    assert len(grid.looks) < 100


def test_pulls_are_quick_and_bounded_during_an_exchange_only() -> None:
    seen: list[dict[str, object]] = []

    class Watching(FakeGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            seen.append(dict(inflatable_utils.pull_objects.__kwdefaults__))
            return super().pull_messages(message_ids)

    before = dict(inflatable_utils.pull_objects.__kwdefaults__)
    exchange(Watching({1: 0.0}), (1,), deadline_s=7)
    assert inflatable_utils.pull_objects.__kwdefaults__ == before
    assert before["initial_backoff"] == 1
    assert seen[0]["initial_backoff"] == 0.05
    assert 11 < float(str(seen[0]["max_time"])) <= 12
