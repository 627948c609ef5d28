"""`fedage site status`: how agent, node and relay are, in words."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedage.client.node import wire
from fedage.client.node.node_folder import socket_of
from fedage.client.site.durable import DISK_FULL, StoreUnavailable, is_full, named_failures
from fedage.client.site.home import SiteHome
from fedage.client.supervisor.state import STATE_FILE, read_state
from fedage.common.version import __version__

_ASK_S = 3.0
_PROBE_BYTES = 65536
_FAILED = {DISK_FULL: "the disk is full"}


def site_status(home: SiteHome) -> list[str]:
    """A line each about the agent, what it handles, the site's disk and stores, the node and the relay."""
    lines = _agent_lines(_socket(home), _part(home.run / STATE_FILE, "agent"))
    return [*lines, *store_lines(home.root), *_node_lines(home)]


def store_lines(root: Path) -> list[str]:
    """Whether the site can write down what must be on disk before anything leaves; a line for each thing wrong.

    To be asked as the agent's own user: another one may write less, or more.
    """
    mend = "nothing leaves this site until that is mended"
    if (reason := _not_writable(root)) is not None:
        return [f"disk: {reason}; {mend}"]
    troubles = []
    for file in sorted(root.glob("*.db")):
        if (reason := _store_trouble(file)) is not None:
            troubles.append(f"{file.name}: {reason}; {mend}")
    if troubles:
        return troubles
    room = os.statvfs(root)
    return [f"disk: can be written, {room.f_bavail * room.f_frsize / 1e9:.1f} GB free"]


def _not_writable(root: Path) -> str | None:
    """Why nothing can be written in a folder; None if it can."""
    probe = root / ".probe"
    try:
        with probe.open("wb") as stream:
            stream.write(bytes(_PROBE_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"full: free some space for {root}" if full else f"{root} cannot be written ({error.strerror})"
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return f"all but full: free some space for {root}" if is_full(root) else None


def _store_trouble(file: Path) -> str | None:
    """Why a store cannot be written; None if it can."""
    try:
        with named_failures(file, unavailable=StoreUnavailable):
            connection = sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=_ASK_S, isolation_level=None)
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            finally:
                connection.close()
    except StoreUnavailable as unavailable:
        return str(unavailable).partition(": ")[2]
    return None


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
            state = json.loads(channel.unary_unary(f"/{wire.SERVICE}/{wire.STATUS}")(b"", timeout=_ASK_S))
        except grpc.RpcError:
            return [f"agent: does not answer{_restarts(part)}"]
    failed = state.get("failed")
    serves = serving == health_pb2.HealthCheckResponse.SERVING
    well = "stopping" if not serves else "running, but not well" if failed else "healthy"
    lines = [f"agent: {well}, FedAge {state['version']}, since {_when(state['since'])}{_restarts(part)}"]
    lines += [f"  {state['computes']}"] if state.get("computes") else []
    lines += [
        f"  {'waits' if work['waits'] else 'handles'} {work['kind']} for {work['seconds']:.0f} s"
        for work in state["handled"]
    ]
    if failed:
        ago = max(time.time() - failed["at"], 0)
        reason = _FAILED.get(failed["reason"], failed["reason"])
        lines.append(f"  its last answer, to a {failed['kind']} message {ago:.0f} s ago, failed: {reason}")
    return lines if state["handled"] else [*lines, "  handles nothing"]


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
    relay = "in the SuperNode's own process" if home.config.executor == "resident" else "a process for every message"
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
