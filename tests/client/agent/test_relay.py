"""Relay and agent over a real unix socket: replies unchanged, failures without their text, nothing left running."""

from __future__ import annotations

import logging
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp

from fedage.client.agent.service import Agent, serve
from fedage.client.node import wire
from fedage.client.node.app import app as site_app
from fedage.client.node.relay import relay
from fedage.client.site.cancel import should_stop

app = ClientApp()


class RowOfMeierError(Exception):
    pass


@app.train()
def train(message: Message, context: Context) -> Message:
    calls = context.state.config_records.get("calls", ConfigRecord({"n": 0}))
    calls["n"] = int(calls["n"]) + 1  # type: ignore[arg-type]
    context.state["calls"] = calls
    doubled = ArrayRecord({key: Array(array.numpy() * 2) for key, array in message.content.array_records["w"].items()})
    said = ConfigRecord({"home": str(context.node_config["site-home"]), "n": calls["n"]})
    return Message(RecordDict({"w": doubled, "said": said}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    raise RowOfMeierError("Meier, Hans, 1948")


@app.query("exit")
def leave(message: Message, context: Context) -> Message:
    sys.exit(3)


@app.query("nothing")
def nothing(message: Message, context: Context) -> Message:
    return None  # type: ignore[return-value]


stopped = threading.Event()


@app.query("endless")
def endless(message: Message, context: Context) -> Message:
    while not should_stop():
        time.sleep(0.01)
    stopped.set()
    return Message(RecordDict(), reply_to=message)


def message_of(kind: str, content: RecordDict | None = None, *, ttl: float = 30.0, run_id: int = 7) -> Message:
    metadata = Metadata(
        run_id=run_id,
        message_id=f"id-{time.monotonic_ns()}",
        src_node_id=1,
        dst_node_id=2**63,
        reply_to_message_id="",
        group_id="3",
        created_at=time.time(),
        ttl=ttl,
        message_type=kind,
    )
    return make_message(metadata=metadata, content=content or RecordDict())


def context_for(socket: Path, *, home: str = "/etc") -> Context:
    """What a SuperNode hands over; a hostile one may name another home."""
    config: dict[str, bool | float | int | str] = {"agent-socket": str(socket), "site-home": home}
    return Context(run_id=7, node_id=2**63, node_config=config, state=RecordDict(), run_config={})


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[Agent, Path]]:
    socket = tmp_path / "run" / "a.sock"
    made = Agent(app, site_home=tmp_path / "home", max_bytes=100_000_000)
    server = serve(made, socket=socket)
    stopped.clear()
    yield made, socket
    made.cancel_all()
    server.stop(grace=2).wait()


def test_arrays_go_there_and_back(agent: tuple[Agent, Path]) -> None:
    weights = np.random.default_rng(1).normal(size=(300, 2000))
    sent = message_of("train", RecordDict({"w": ArrayRecord({"a": Array(weights), "b": Array(np.empty((0, 3)))})}))
    reply = site_app(sent, context_for(agent[1]))
    np.testing.assert_array_equal(reply.content.array_records["w"]["a"].numpy(), weights * 2)
    assert reply.content.array_records["w"]["b"].numpy().shape == (0, 3)
    assert reply.metadata.reply_to_message_id == sent.metadata.message_id
    assert (reply.metadata.src_node_id, reply.metadata.dst_node_id) == (2**63, 1)
    assert reply.metadata.group_id == "3"


def test_the_agent_uses_its_own_home_and_keeps_its_own_state_by_run(agent: tuple[Agent, Path], tmp_path: Path) -> None:
    content = RecordDict({"w": ArrayRecord()})
    said = [
        site_app(message_of("train", content, run_id=run), context_for(agent[1], home="/elsewhere")).content["said"]
        for run in (7, 7, 8)
    ]
    assert [record["n"] for record in said] == [1, 2, 1]
    assert {record["home"] for record in said} == {str(tmp_path / "home")}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("evaluate", "RowOfMeierError"),
        ("query.exit", "SystemExit"),
        ("query.nothing", "TypeError"),
        ("query.unknown", "ValueError"),
    ],
)
def test_a_failure_says_only_its_type(
    agent: tuple[Agent, Path], kind: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    reply = site_app(message_of(kind), context_for(agent[1]))
    assert reply.error == Error(code=2, reason=reason)
    assert "Hans" not in caplog.text
    assert f"{kind} failed: {reason} < " in caplog.text


def test_the_log_names_the_line_that_failed(agent: tuple[Agent, Path], caplog: pytest.LogCaptureFixture) -> None:
    site_app(message_of("evaluate"), context_for(agent[1]))
    assert "RowOfMeierError < test_relay.py:" in caplog.text


def test_a_message_out_of_bounds_is_refused(agent: tuple[Agent, Path]) -> None:
    too_large = RecordDict({"w": ArrayRecord({"a": Array(np.zeros(13_000_000))})})
    assert site_app(message_of("train", too_large), context_for(agent[1])).error.reason == "MessageRefused"


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_hospitals_clock_does_not_decide_whether_its_reply_counts(agent: tuple[Agent, Path], kind: str) -> None:
    sent = message_of(kind, RecordDict({"w": ArrayRecord()}), ttl=30.0)
    sent.metadata.created_at -= 3600  # this machine is an hour ahead of the coordinator
    reply = site_app(sent, context_for(agent[1]))
    assert (reply.metadata.created_at, reply.metadata.ttl) == (sent.metadata.created_at, 30.0)


def test_an_agent_that_is_not_there_is_an_error_after_a_while(tmp_path: Path) -> None:
    started = time.monotonic()
    reply = relay(message_of("train"), socket=str(tmp_path / "none.sock"), connect_s=0.5)
    assert reply.error == Error(code=2, reason="AgentUnavailable")
    assert 0.4 < time.monotonic() - started < 3


def test_an_agent_that_comes_back_in_time_is_found(tmp_path: Path) -> None:
    socket = tmp_path / "late.sock"
    servers: list[grpc.Server] = []
    timer = threading.Timer(0.7, lambda: servers.append(serve(Agent(app, site_home=tmp_path), socket=socket)))
    timer.start()
    reply = relay(message_of("train", RecordDict({"w": ArrayRecord()})), socket=str(socket), connect_s=8)
    timer.join()
    assert reply.content["said"]["n"] == 1
    servers[0].stop(grace=1).wait()


def test_time_over_ends_the_handler_too(agent: tuple[Agent, Path]) -> None:
    reply = site_app(message_of("query.endless", ttl=0.5), context_for(agent[1]))
    assert reply.error.reason == "AgentTimeout"
    assert stopped.wait(2)


def cancel_by_message(agent: Agent, channel: grpc.Channel, call: grpc.Call, message: Message) -> None:
    cancel: Callable[..., bytes] = channel.unary_unary(f"/{wire.SERVICE}/{wire.CANCEL}")
    assert cancel(b"another") == b"0"
    assert cancel(message.metadata.message_id.encode()) == b"1"


def cancel_by_leaving(agent: Agent, channel: grpc.Channel, call: grpc.Call, message: Message) -> None:
    channel.close()


def cancel_by_stopping(agent: Agent, channel: grpc.Channel, call: grpc.Call, message: Message) -> None:
    agent.cancel_all()


@pytest.mark.parametrize("cancel", [cancel_by_message, cancel_by_leaving, cancel_by_stopping])
def test_a_handler_learns_that_nobody_waits(agent: tuple[Agent, Path], cancel: Callable[..., None]) -> None:
    channel = grpc.insecure_channel(f"unix:{agent[1]}", options=wire.GRPC_OPTIONS)
    message = message_of("query.endless")
    call = channel.stream_stream(f"/{wire.SERVICE}/{wire.HANDLE}")(wire.encode(message))
    time.sleep(0.3)
    assert not stopped.is_set()
    cancel(agent[0], channel, call, message)
    assert stopped.wait(3)
    channel.close()


def test_the_socket_is_its_owners_alone(agent: tuple[Agent, Path]) -> None:
    assert stat.S_IMODE(agent[1].stat().st_mode) == 0o600
    assert stat.S_IMODE(agent[1].parent.stat().st_mode) == 0o700


def test_a_path_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="shorter path"):
        serve(Agent(app, site_home=tmp_path), socket=tmp_path / ("x" * 120) / "a.sock")


def test_the_relay_imports_nothing_heavy() -> None:
    heavy = "torch monai pandas sqlalchemy pydicom scipy matplotlib opacus fedage.client.inbox.handlers"
    code = f"""
import sys
import fedage.client.node.app
found = [name for name in {heavy.split()!r} if name in sys.modules]
raise SystemExit(f"imported: {{found}}" if found else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
