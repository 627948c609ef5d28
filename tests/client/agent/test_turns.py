"""The real service on a real socket: trainings take turns, questions do not wait, what nobody wants ends."""

from __future__ import annotations

import json
import socket as sockets
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedage.client.agent.service import MAX_HANDLED, Agent, Serving, serve
from fedage.client.node import wire
from fedage.client.node.relay import relay
from fedage.client.site.cancel import stop_if_cancelled
from fedage.common.version import __version__

app = ClientApp()
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Seen:
    """What the handlers did, for the test to look at."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.lock = threading.Lock()
        self.computing = self.most_computing = 0
        self.begun: list[str] = []


seen = Seen()


@app.train()
def train(message: Message, context: Context) -> Message:
    return compute(message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    return compute(message)


def compute(message: Message) -> Message:
    with seen.lock:
        seen.computing += 1
        seen.most_computing = max(seen.most_computing, seen.computing)
        seen.begun.append(message.metadata.message_id)
    try:
        while not seen.go.wait(0.01):
            stop_if_cancelled()
        return Message(RecordDict(), reply_to=message)
    finally:
        with seen.lock:
            seen.computing -= 1


@app.query("ask")
def ask(message: Message, context: Context) -> Message:
    return Message(RecordDict({"said": ConfigRecord({"computing": seen.computing})}), reply_to=message)


def message_of(kind: str, name: str, *, run: str = "", ttl: float = 30.0) -> Message:
    metadata = Metadata(
        run_id=7,
        message_id=name,
        src_node_id=1,
        dst_node_id=2,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=ttl,
        message_type=kind,
    )
    head = ConfigRecord({"digest": "d" * 64, "run": run or name})
    return make_message(metadata=metadata, content=RecordDict({"request": head}))


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[Serving, str]]:
    global seen
    seen = Seen()
    path = tmp_path / "a.sock"
    made = serve(Agent(app, site_home=tmp_path, max_bytes=20_000_000), socket=path)
    yield made, str(path)
    made.stop(grace=2).wait()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made
        seen.go.set()


def until(condition: object, *, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_computations_take_turns_and_questions_are_answered_beside_them(
    serving: tuple[Serving, str], pool: ThreadPoolExecutor
) -> None:
    kinds = ["train", "evaluate", "train"]
    asked = [pool.submit(relay, message_of(kind, f"c{number}"), socket=serving[1]) for number, kind in enumerate(kinds)]
    until(lambda: seen.computing == 1)
    for number in range(3):
        began = time.monotonic()
        reply = relay(message_of("query.ask", f"q{number}"), socket=serving[1])
        assert reply.content["said"]["computing"] == 1
        assert time.monotonic() - began < 5
    seen.go.set()
    assert all(reply.result(10).has_content() for reply in asked)
    assert sorted(seen.begun) == ["c0", "c1", "c2"]
    assert seen.most_computing == 1


def test_one_that_waits_ends_when_its_time_is_over_and_never_begins(
    serving: tuple[Serving, str], pool: ThreadPoolExecutor
) -> None:
    first = pool.submit(relay, message_of("train", "first"), socket=serving[1])
    until(lambda: seen.computing == 1)
    began = time.monotonic()
    reply = relay(message_of("evaluate", "late", ttl=0.7), socket=serving[1])
    assert reply.error.reason in {"AgentTimeout", "TimeOver"}
    assert time.monotonic() - began < 5
    until(lambda: len(serving[0].agent._turns.works()) == 1)
    seen.go.set()
    assert first.result(5).has_content()
    assert seen.begun == ["first"]


@pytest.mark.parametrize("waits", [False, True])
def test_a_withdrawn_one_ends_working_or_waiting(
    serving: tuple[Serving, str], pool: ThreadPoolExecutor, waits: bool
) -> None:
    if waits:
        pool.submit(relay, message_of("train", "other"), socket=serving[1])
        until(lambda: seen.computing == 1)
    withdrawn = Future[None]()
    reply = pool.submit(relay, message_of("train", "unwanted"), socket=serving[1], withdrawn=withdrawn)
    until(lambda: len(serving[0].agent._turns.works()) == 1 + waits)
    time.sleep(0.2)
    began = time.monotonic()
    withdrawn.set_result(None)
    assert reply.result(5).error.reason == "Withdrawn"
    until(lambda: len(serving[0].agent._turns.works()) == waits)
    assert time.monotonic() - began < 5
    assert ("unwanted" in seen.begun) is not waits


def test_a_later_computation_of_a_run_supersedes_the_earlier_one_and_no_other_runs(
    serving: tuple[Serving, str], pool: ThreadPoolExecutor
) -> None:
    earlier = pool.submit(relay, message_of("train", "1", run="mine"), socket=serving[1])
    until(lambda: seen.begun == ["1"])
    waiting = pool.submit(relay, message_of("train", "2", run="mine"), socket=serving[1])
    assert earlier.result(3).error.reason == "Superseded"
    until(lambda: seen.begun == ["1", "2"])
    other = pool.submit(relay, message_of("evaluate", "3", run="another"), socket=serving[1])
    asked = relay(message_of("query.ask", "4", run="mine"), socket=serving[1])
    assert asked.content["said"]["computing"] == 1
    seen.go.set()
    assert waiting.result(5).has_content()
    assert other.result(5).has_content()


def test_too_many_are_turned_away_and_health_and_cancelling_still_answer(
    serving: tuple[Serving, str], pool: ThreadPoolExecutor
) -> None:
    asked = [pool.submit(relay, message_of("train", f"{n}"), socket=serving[1]) for n in range(MAX_HANDLED)]
    until(lambda: len(serving[0].agent._turns.works()) == MAX_HANDLED)
    assert relay(message_of("query.ask", "more"), socket=serving[1]).error.reason == "AgentBusy"
    with grpc.insecure_channel(f"unix:{serving[1]}") as channel:
        assert checked(channel, "") == SERVING
        told = json.loads(channel.unary_unary(f"/{wire.SERVICE}/{wire.STATUS}")(b"", timeout=2))
        assert channel.unary_unary(f"/{wire.SERVICE}/{wire.CANCEL}")(b"7", timeout=2) == b"1"
    assert told["version"] == __version__
    assert [handled["waits"] for handled in told["handled"]].count(False) == 1
    seen.go.set()
    assert sum(reply.result(10).has_content() for reply in asked) >= MAX_HANDLED - 1
    assert relay(message_of("query.ask", "again"), socket=serving[1]).has_content()


def test_bytes_under_way_are_bounded_together(serving: tuple[Serving, str], pool: ThreadPoolExecutor) -> None:
    def large(name: str) -> Message:
        message = message_of("train", name)
        message.content["w"] = ArrayRecord({"a": Array(np.zeros(15_000_000, np.uint8))})
        return message

    asked = [pool.submit(relay, large(name), socket=serving[1]) for name in "ab"]
    until(lambda: len(serving[0].agent._turns.works()) == 2)
    assert relay(large("c"), socket=serving[1]).error.reason == "AgentBusy"
    seen.go.set()
    assert all(reply.result(10).has_content() for reply in asked)
    assert relay(large("d"), socket=serving[1]).has_content()


def checked(channel: grpc.Channel, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=5).status)


def test_health_is_told_for_all_and_for_the_service_and_ends_while_stopping(
    serving: tuple[Serving, str], pool: ThreadPoolExecutor
) -> None:
    stubborn = threading.Event()

    def ignore(message: Message, context: Context) -> Message:
        stubborn.wait(10)
        return Message(RecordDict(), reply_to=message)

    serving[0].agent._app = ignore
    pool.submit(relay, message_of("train", "stubborn"), socket=serving[1])
    with grpc.insecure_channel(f"unix:{serving[1]}") as channel:
        assert [checked(channel, name) for name in ("", wire.SERVICE)] == [SERVING, SERVING]
        with pytest.raises(grpc.RpcError) as unknown:
            checked(channel, "another")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        until(lambda: len(serving[0].agent._turns.works()) == 1)
        stopping = pool.submit(serving[0].stop, grace=3)
        until(lambda: checked(channel, wire.SERVICE) == NOT_SERVING)
        assert checked(channel, "") == NOT_SERVING
        assert relay(message_of("query.ask", "late"), socket=serving[1], connect_s=1).error.reason == "AgentUnavailable"
        stubborn.set()
        stopping.result(5).wait(5)


def test_garbage_on_the_socket_harms_nobody(serving: tuple[Serving, str]) -> None:
    rng = np.random.default_rng(3)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for start in (b"", preface, b"GET / HTTP/1.1\r\n\r\n", preface + struct.pack(">I", 0x7FFFFFFF)):
        with sockets.socket(sockets.AF_UNIX) as client:
            client.connect(serving[1])
            client.settimeout(0.3)
            try:
                client.sendall(start + rng.bytes(100_000))
                while client.recv(65536):
                    pass
            except OSError:
                pass  # hung up on, or nothing more to say: both are fine
    assert relay(message_of("query.ask", "after"), socket=serving[1]).has_content()


@pytest.mark.parametrize("frames", [[b""], [b"x" * 3_000_000], [b"FEDAGE-1" + b"\xff" * 4], []])
def test_garbage_in_a_stream_is_refused(serving: tuple[Serving, str], frames: list[bytes]) -> None:
    with grpc.insecure_channel(f"unix:{serving[1]}") as channel:
        call = channel.stream_stream(f"/{wire.SERVICE}/{wire.HANDLE}")(iter(frames), timeout=5)
        with pytest.raises(grpc.RpcError) as refused:
            list(call)
    assert refused.value.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert relay(message_of("query.ask", "after"), socket=serving[1]).has_content()


def test_a_skeleton_that_would_grow_in_memory_is_refused_unread(serving: tuple[Serving, str]) -> None:
    count = wire.MAX_SKELETON_BYTES + 1
    with pytest.raises(wire.WireError, match="the skeleton has"):
        wire.decode([struct.pack("<8sIQ", b"FEDAGE-1", 1, count)])


def test_a_clock_that_jumps_moves_no_deadline(
    serving: tuple[Serving, str], pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = pool.submit(relay, message_of("train", "long", ttl=20.0), socket=serving[1])
    until(lambda: seen.computing == 1)
    for jump_s in (86_400.0 * 3650, -86_400.0 * 3650):
        monkeypatch.setattr(time, "time", lambda jump_s=jump_s: 1.8e9 + jump_s)
        time.sleep(0.5)
        assert seen.computing == 1
    monkeypatch.undo()  # gRPC's client reckons its timeouts with this clock
    assert relay(message_of("query.ask", "q"), socket=serving[1]).has_content()
    seen.go.set()
    assert reply.result(5).has_content()
