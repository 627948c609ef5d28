"""A relay that neither sends nor takes loses its place, and what waited for the place gets it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedage.client.agent.service import MAX_HANDLED, Agent, serve
from fedage.client.node import wire
from fedage.client.node.relay import relay
from tests.client.agent.test_relay import message_of

PATIENCE_S = 3.0
"""All streams have to be there, and seen, before the first loses its place; a busy machine takes a second or two."""
SHORT_S = 0.7
LARGE = 20_000_000
WITHIN_S = 60.0
"""What a busy machine may take for what takes a moment."""
app = ClientApp()


@app.query("ask")
def ask(message: Message, context: Context) -> Message:
    return Message(RecordDict({"said": ConfigRecord({"well": True})}), reply_to=message)


@app.query("large")
def large(message: Message, context: Context) -> Message:
    return Message(RecordDict({"w": ArrayRecord({"a": Array(np.zeros(LARGE, np.uint8))})}), reply_to=message)


@app.query("long")
def long(message: Message, context: Context) -> Message:
    time.sleep(3 * SHORT_S)
    return ask(message, context)


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Agent, str]]:
    patience_s = getattr(request, "param", PATIENCE_S)
    agent = Agent(app, site_home=tmp_path, max_bytes=LARGE + 1_000_000, patience_s=patience_s)
    made = serve(agent, socket=tmp_path / "a.sock")
    yield agent, str(tmp_path / "a.sock")
    made.stop(grace=1).wait()


def nothing(over: threading.Event) -> Iterator[bytes]:
    over.wait(2 * WITHIN_S)
    yield from ()


def half_a_message(over: threading.Event) -> Iterator[bytes]:
    sent = message_of("query.ask", RecordDict({"w": ArrayRecord({"a": Array(np.zeros(5_000_000, np.uint8))})}))
    yield from list(wire.encode(sent))[:2]
    over.wait(2 * WITHIN_S)


def all_but_the_end(over: threading.Event) -> Iterator[bytes]:
    yield from wire.encode(message_of("query.ask"))
    over.wait(2 * WITHIN_S)


@pytest.mark.parametrize("sends", [nothing, half_a_message, all_but_the_end])
def test_streams_that_say_no_more_are_ended(
    served: tuple[Agent, str], sends: Callable[[threading.Event], Iterator[bytes]]
) -> None:
    agent, socket = served
    over = threading.Event()
    with grpc.insecure_channel(f"unix:{socket}", options=wire.GRPC_OPTIONS) as channel:
        handle = channel.stream_stream(f"/{wire.SERVICE}/{wire.HANDLE}")
        began = time.monotonic()
        calls = [handle(sends(over)) for _ in range(MAX_HANDLED)]
        try:
            while agent._room.messages:
                assert time.monotonic() - began < WITHIN_S
                time.sleep(0.01)
            assert relay(message_of("query.ask"), socket=socket).error.reason == "AgentBusy"
            while agent._room.messages < MAX_HANDLED:
                assert time.monotonic() - began < WITHIN_S
                time.sleep(0.02)
            assert time.monotonic() - began > PATIENCE_S
            assert agent._room.bytes == 2 * (LARGE + 1_000_000)
            assert relay(message_of("query.ask"), socket=socket).content["said"]["well"]
            assert {call.code() for call in calls} == {grpc.StatusCode.CANCELLED}
        finally:
            over.set()


def test_a_reply_that_nobody_takes_is_given_up(served: tuple[Agent, str]) -> None:
    agent, socket = served
    with grpc.insecure_channel(f"unix:{socket}", options=wire.GRPC_OPTIONS) as channel:
        call = channel.stream_stream(f"/{wire.SERVICE}/{wire.HANDLE}")(wire.encode(message_of("query.large")))
        began = time.monotonic()
        while agent._room.messages == MAX_HANDLED:
            assert time.monotonic() - began < WITHIN_S
            time.sleep(0.01)
        while agent._room.messages < MAX_HANDLED:
            assert time.monotonic() - began < WITHIN_S
            time.sleep(0.02)
        assert time.monotonic() - began > PATIENCE_S
        with pytest.raises(grpc.RpcError):
            list(call)
    assert len(relay(message_of("query.large"), socket=socket).content["w"]["a"].numpy()) == LARGE


@pytest.mark.parametrize("served", [SHORT_S], indirect=True, ids=["short"])
def test_work_may_take_its_time(served: tuple[Agent, str]) -> None:
    assert relay(message_of("query.long"), socket=served[1]).content["said"]["well"]
