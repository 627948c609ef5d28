"""What is used of Flower's inside is still there: a new minor fails here, and not at a hospital."""

from __future__ import annotations

import inspect
import subprocess
import sys
import time
from importlib.metadata import version
from types import SimpleNamespace

import flwr
import pytest
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import start_client_internal

from fedage.client.node import concurrent_fetcher
from fedage.client.node.concurrent_fetcher import ConcurrentFetcher
from fedage.client.node.flower_waits import ShortWaitClock, shorten_pulls


def test_the_minor_is_the_pinned_one() -> None:
    assert version("flwr").startswith("1.41.")
    assert flwr.__version__ == version("flwr")


def test_a_clientapp_is_called_with_message_and_context() -> None:
    assert list(inspect.signature(ClientApp.__call__).parameters) == ["self", "message", "context"]


def test_the_supernode_sleeps_where_the_clock_is_replaced() -> None:
    source = inspect.getsource(start_client_internal)
    assert source.count("time.sleep(") == 3  # the third waits for an object of a reply, in the same process
    assert "time.sleep(3)" in source
    assert "time.sleep(0.5)" in source
    assert "import time\n" in source


def test_the_clock_caps_both_waits_and_is_time_otherwise() -> None:
    clock = ShortWaitClock(poll_s=0.05)
    began = clock.monotonic()  # type: ignore[operator]
    clock.sleep(3)
    clock.sleep(0.5)
    clock.sleep(0.001)
    assert 0.09 < time.monotonic() - began < 0.5
    assert clock.time is time.time


def test_pulls_are_shortened() -> None:
    tries: list[float] = []

    def pull(_object_id: str) -> bytes:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise inflatable_utils.ObjectUnavailableError("x")
        return b"data"

    both = (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree)
    before = [dict(function.__kwdefaults__) for function in both]
    try:
        shorten_pulls()
        assert inflatable_utils.pull_objects(["x"], pull) == {"x": b"data"}
        assert {function.__kwdefaults__["initial_backoff"] for function in both} == {0.05}
    finally:
        for function, defaults in zip(both, before, strict=True):
            function.__kwdefaults__.update(defaults)
    assert tries[2] - tries[0] < 0.5


def test_pulling_objects_has_the_waits_the_grid_shortens() -> None:
    for function in (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree):
        defaults = function.__kwdefaults__
        assert {"initial_backoff", "backoff_cap", "max_time", "max_tries_per_object"} <= set(defaults)


def test_the_supernodes_loop_fetches_and_then_sends() -> None:
    fetch, send = start_client_internal._pull_and_store_message, start_client_internal._push_messages
    wanted = {"state", "get_run", "receive", "pull_object", "confirm_message_received"}
    assert wanted <= set(inspect.signature(fetch).parameters)
    assert set(inspect.signature(send).parameters) == {"state", "object_store", "send", "push_object"}
    loop = inspect.getsource(start_client_internal.start_client_internal).split("while True:")[1]
    assert loop.index("_pull_and_store_message(") < loop.index("if run_id is None:") < loop.index("_push_messages(")
    assert "while not (reply_messages := state.get_messages_legacy(is_reply=True)):" in inspect.getsource(send)


class FakeState:
    """A node's state with tasks and replies as the test sets them."""

    def __init__(self) -> None:
        self.tasks: list[SimpleNamespace] = []
        self.replies: list[str] = []
        self.finished: list[int] = []

    def get_tasks(self, **_filters: object) -> list[SimpleNamespace]:
        return self.tasks

    def get_messages_legacy(self, **_filters: object) -> list[str]:
        found, self.replies = self.replies, []
        return found

    def finish_task(self, task_id: int, **_why: str) -> None:
        self.finished.append(task_id)


def test_a_supernode_fetches_beside_work_up_to_its_bound_and_sends_what_is_ready() -> None:
    state, fetched, sent = FakeState(), list[int](), list[str]()

    def fetch(**_arguments: object) -> int | None:
        fetched.append(1)
        return 5 if len(fetched) <= 2 else None

    def send(*, state: FakeState) -> None:
        sent.extend(state.get_messages_legacy(is_reply=True))

    several = ConcurrentFetcher(fetch=fetch, send=send, most=2, poll_s=0.01)

    def get_run(run_id: int) -> SimpleNamespace:
        if run_id == 6:
            raise RunNotRunningException  # what a SuperLink's refusal becomes; no `Exception`
        return SimpleNamespace(status=SimpleNamespace(status="running"))

    assert several.fetch(state=state, get_run=get_run) == 5
    several.send(state=state)
    assert sent == []  # and it did not wait
    state.tasks = [SimpleNamespace(task_id=1, run_id=5)]
    assert several.fetch(state=state, get_run=get_run) == 5
    state.tasks.append(SimpleNamespace(task_id=2, run_id=6))
    assert several.fetch(state=state, get_run=get_run) is not None  # never None, which would skip the sending
    assert len(fetched) == 2  # two in work are the most
    assert state.finished == [2]  # the one whose run has ended
    state.replies = ["a", "b"]
    several.send(state=state)
    assert sent == ["a", "b"]


def test_after_work_a_supernode_looks_soon_and_then_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waits = [100.0], list[float]()
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda s: waits.append(s) or now.__setitem__(0, now[0] + s))
    monkeypatch.setattr(concurrent_fetcher, "time", clock)
    state = FakeState()
    several = ConcurrentFetcher(fetch=lambda **_: None, send=lambda **_: None, poll_s=3.0)
    running = SimpleNamespace(status=SimpleNamespace(status="running"))
    several.fetch(state=state, get_run=lambda _run: running)
    assert waits == [3.0]  # no work so far
    state.tasks = [SimpleNamespace(task_id=1, run_id=1)]
    several.fetch(state=state, get_run=lambda _run: running)
    state.tasks, waits[:] = [], []
    while now[0] < 200:
        several.fetch(state=state, get_run=lambda _run: running)
    assert waits[0] <= 0.2
    assert waits == sorted(waits)
    assert waits[-1] == 3.0
    assert len(waits) < 70


@pytest.mark.parametrize(
    ("in_work", "most", "poll_s", "looks"),
    [(0, 2, 0.01, 3), (1, 2, 30.0, 1), (3, 4, 30.0, 1), (1, 2, 0.01, 3), (2, 2, 0.01, 0)],
)
def test_a_supernode_at_work_asks_for_more_no_oftener_than_one_without(
    in_work: int, most: int, poll_s: float, looks: int
) -> None:
    """It looks for replies all the same: no look waits for `poll_s`."""
    state, fetched = FakeState(), list[int]()
    state.tasks = [SimpleNamespace(task_id=number, run_id=1) for number in range(in_work)]

    def fetch(**_arguments: object) -> None:
        fetched.append(1)

    several = ConcurrentFetcher(fetch=fetch, send=lambda **_: None, most=most, poll_s=poll_s)
    running = SimpleNamespace(status=SimpleNamespace(status="running"))
    began = time.monotonic()
    for _look in range(3):
        assert several.fetch(state=state, get_run=lambda _run: running) is not None
    assert len(fetched) == looks
    assert time.monotonic() - began < 20


def test_a_message_cannot_be_made_outside_a_task() -> None:
    """A ServerApp, and a simulation in one process, say which task they are before they write to a site."""
    code = (
        "from flwr.app import Message, RecordDict\n"
        "from flwr.supercore.task_identity import TaskIdentity\n"
        "def made(): return Message(RecordDict(), message_type='train', dst_node_id=1)\n"
        "try: made()\n"
        "except RuntimeError as error: print(error)\n"
        "TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 2, 3\n"
        "print(made().metadata.run_id)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0].endswith("is not set.")
    assert done.stdout.split("\n")[1] == "2"
