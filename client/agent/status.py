"""`fedage site status`: how agent, node and relay are, in words."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedage.client.agent import wire
from fedage.client.agent.node_side import socket_of
from fedage.client.agent.state import STATE_FILE, read_state
from fedage.client.home import SiteHome
from fedage.common._version import __version__

_ASK_S = 3.0


def site_status(home: SiteHome) -> list[str]:
    """A line each about the agent, what it handles, the node and the relay."""
    lines = _agent_lines(_socket(home), _part(home.run / STATE_FILE, "agent"))
    return [*lines, *_node_lines(home)]


def _socket(home: SiteHome) -> Path:
    if home.config.relay_user is not None:
        return socket_of(home.relay_folder)
    elsewhere = home.run / "socket-folder"
    folder = Path(elsewhere.read_text(encoding="utf-8").strip()) if elsewhere.is_file() else home.run
    return folder / "agent.sock"


def _agent_lines(socket: Path, part: dict[str, Any]) -> list[str]:
    if not socket.exists():
        return [f"agent: not running{_restarts(part)}"]
    with grpc.insecure_channel(f"unix:{socket}", options=wire.GRPC_OPTIONS) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=wire.SERVICE)
            serving = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_ASK_S).status
            told = json.loads(channel.unary_unary(f"/{wire.SERVICE}/{wire.STATUS}")(b"", timeout=_ASK_S))
        except grpc.RpcError:
            return [f"agent: does not answer{_restarts(part)}"]
    well = "healthy" if serving == health_pb2.HealthCheckResponse.SERVING else "stopping"
    lines = [f"agent: {well}, FedAge {told['version']}, since {_when(told['since'])}{_restarts(part)}"]
    lines += [
        f"  {'waits' if work['waits'] else 'handles'} {work['kind']} for {work['seconds']:.0f} s"
        for work in told["handled"]
    ]
    return lines if told["handled"] else [*lines, "  handles nothing"]


def _node_lines(home: SiteHome) -> list[str]:
    part = _part(home.run / STATE_FILE, "node")
    if not part and home.config.relay_user is not None:
        try:
            part = _part(home.relay_folder / "run" / STATE_FILE, "node")
        except PermissionError:
            return [f"node: its state is {home.config.relay_user}'s alone; ask as that user, or as root"]
    if not part:
        return ["node: not running"]
    user = f", as {home.config.relay_user}" if home.config.relay_user else ""
    relay = "in a process that stays" if home.config.executor == "resident" else "a process for every message"
    return [
        f"node: {part['state']}, Flower's SuperNode for {home.config.coordinator}, since {_when(part['since'])}"
        f"{user}{_restarts(part)}",
        f"relay: {relay}, FedAge {__version__}" if part["state"] == "online" else "relay: waits for the node",
    ]


def _part(file: Path, name: str) -> dict[str, Any]:
    return read_state(file).get(name, {})


def _restarts(part: dict[str, Any]) -> str:
    again = int(part.get("starts", 1)) - 1
    return f", started again {again} times" if again > 1 else ", started again once" if again == 1 else ""


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
