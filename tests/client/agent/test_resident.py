"""A SuperNode that relays by itself: messages as Flower's own parts, with the functions of its loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, inflate_object_from_contents
from flwr.supercore.run import RunNotRunningException

from fedage.client.node import resident
from fedage.client.node.resident import Resident

VALUES = np.arange(5, dtype=np.float32)


def message_of(number: int, *, run: int = 5) -> Message:
    metadata = Metadata(run, "", 1, 2, "", f"{number}", time.time(), 0.3, "train")
    content = RecordDict({"w": ArrayRecord({"w": Array(VALUES + number)}), "c": ConfigRecord({"n": number})})
    message = make_message(metadata=metadata, content=content)
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


class Coordinator:
    """The other end of a SuperNode's functions: what it has to give, and what came back."""

    def __init__(self, *messages: Message) -> None:
        self.waiting = list(messages)
        self.parts = {n: o.deflate() for m in messages for n, o in get_all_nested_objects(m).items()}
        self.confirmed: list[str] = []
        self.replies: dict[str, Any] = {}
        self.came: dict[str, bytes] = {}
        self.ended: set[int] = set()
        self.looks = 0

    def receive(self) -> Any:
        self.looks += 1
        if not self.waiting:
            return None
        message = self.waiting.pop(0)
        return remove_content_from_message(message), get_object_tree(message)

    def pull(self, run: int, name: str) -> bytes:
        if run in self.ended:
            raise RunNotRunningException
        if name not in self.parts:
            raise ObjectPullError(name, "the object could not be found.")
        return self.parts[name]

    def get_run(self, run: int) -> Any:
        if run in self.ended:
            raise RunNotRunningException
        return SimpleNamespace(status=SimpleNamespace(status="running"))

    def send(self, reply: Message, tree: Any, runtime_s: float) -> tuple[set[str], str]:
        assert runtime_s >= 0
        self.replies[reply.metadata.reply_to_message_id] = tree
        return {part.object_id for part in resident.iterate_object_tree(tree)}, "session"

    def push(self, _run: int, session: str, name: str, content: bytes) -> None:
        assert session == "session"
        if name.startswith("parts:"):
            raise push_error(name)
        self.came[name] = content

    def step(self, node: Resident) -> None:
        """One turn of Flower's loop."""
        assert (
            node.fetch(
                receive=self.receive,
                get_run=self.get_run,
                pull_object=self.pull,
                confirm_message_received=lambda _run, name: self.confirmed.append(name),
            )
            is not None  # or Flower sleeps, and does not send
        )
        node.send(send=self.send, push_object=self.push)

    def answer_to(self, message: Message) -> Message:
        tree = self.replies[message.metadata.message_id]
        found = inflate_object_from_contents(tree.object_id, dict(self.came))
        assert isinstance(found, Message)
        return found


def push_error(name: str) -> Exception:
    from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

    return ObjectPushError(name, 5, "session")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_message_without_an_agent_is_answered_with_that(tmp_path: Any) -> None:
    sent = message_of(1)
    other, node = Coordinator(sent), Resident(socket=str(tmp_path / "none"), poll_s=0.01)
    other.step(node)
    until(lambda: not node._in_work)
    assert other.confirmed == [sent.metadata.message_id]
    assert other.answer_to(sent).error.reason == "AgentUnavailable"


def test_messages_are_relayed_beside_each_other_up_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, may_go_on, there = [message_of(number) for number in range(3)], threading.Event(), list[int]()

    def relay(message: Message, **_more: Any) -> Message:
        there.append(int(message.content.config_records["c"]["n"]))  # type: ignore[arg-type]
        assert may_go_on.wait(60)
        doubled = message.content.array_records["w"]["w"].numpy() * 2
        return Message(RecordDict({"w": ArrayRecord({"w": Array(doubled)})}), reply_to=message)

    monkeypatch.setattr(resident, "relay", relay)
    other, node = Coordinator(*sent), Resident(socket="", poll_s=0.01, most=2)
    for _turn in range(5):
        other.step(node)
    until(lambda: len(there) == 2)
    assert (other.looks, len(other.waiting)) == (2, 1)
    may_go_on.set()
    until(lambda: other.step(node) or (len(other.replies) == 3 and not node._in_work))  # type: ignore[func-returns-value]
    for number, message in enumerate(sent):
        back = other.answer_to(message).content.array_records["w"]["w"].numpy()
        assert np.array_equal(back, (VALUES + number) * 2)


def test_what_is_in_work_for_a_run_that_has_ended_is_withdrawn_and_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    withdrawals: list[Future[None]] = []

    def relay(_message: Message, *, withdrawn: Future[None], **_more: Any) -> Message:
        withdrawals.append(withdrawn)
        withdrawn.result(60)
        raise ValueError("whatever a cancelled stream becomes")

    monkeypatch.setattr(resident, "relay", relay)
    monkeypatch.setattr(resident, "_ASK_ABOUT_RUNS_S", 0.05)
    other, node = Coordinator(message_of(1), message_of(2, run=6)), Resident(socket="", poll_s=0.01)
    for _turn in range(2):
        other.step(node)
    until(lambda: len(withdrawals) == 2)
    assert not any(withdrawn.done() for withdrawn in withdrawals)
    other.ended.add(5)
    until(lambda: other.step(node) or len(node._in_work) == 1)  # type: ignore[func-returns-value]
    assert not other.replies
    other.ended.add(6)
    until(lambda: other.step(node) or not node._in_work)  # type: ignore[func-returns-value]
    assert not other.replies


@pytest.mark.parametrize("how", ["its run has ended", "a part is missing", "announced as a message, and none"])
def test_a_message_that_cannot_be_fetched_costs_nothing_but_itself(how: str, tmp_path: Any) -> None:
    lost, sent = message_of(1), message_of(2, run=6)
    other, node = Coordinator(lost, sent), Resident(socket=str(tmp_path / "none"), poll_s=0.01)
    if how == "its run has ended":
        other.ended.add(5)
    elif how == "a part is missing":
        del other.parts[lost.metadata.message_id]
    else:
        other.parts[lost.metadata.message_id] = other.parts[get_object_tree(lost).children[0].object_id]
    for _turn in range(2):
        other.step(node)
    until(lambda: not node._in_work)
    assert list(other.replies) == [sent.metadata.message_id]


def test_another_module_than_flowers_is_refused() -> None:
    with pytest.raises(AttributeError):
        resident.install(ModuleType("another"), socket="", poll_s=1.0)


@pytest.mark.parametrize("poll_s", [0.01, 0.2])
def test_a_look_that_was_held_is_not_followed_by_a_pause(poll_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now, pauses = [100.0], list[float]()
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=pauses.append)
    monkeypatch.setattr(resident, "time", clock)
    node = Resident(socket="", poll_s=poll_s)
    for held_s in (0.0, 1.0):
        node.fetch(receive=lambda held_s=held_s: now.__setitem__(0, now[0] + held_s), get_run=None)
    assert pauses == [poll_s, 0.0]
