"""`flower-supernode`, prompt, and ending when the process that started it does. Run by the supervisor."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from flwr.supernode import node_auth_http_interceptor, start_client_internal
from flwr.supernode.cli import flower_supernode

from fedage.client.node import concurrent_fetcher as several
from fedage.client.node import resident
from fedage.client.node.flower_waits import hasten_heartbeats, shorten_pulls, shorten_sleeps
from fedage.deploy.machine.parts import may_be_held
from fedage.deploy.machine.processes import end_with_parent

_HELD_S = 1.0
"""So long a look for work is held, if the coordinator has none; between two looks a run may turn out to have ended."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the SuperNode until told to stop; it relays by itself if it is told the agent's socket."""
    parser = argparse.ArgumentParser(description="A SuperNode; other arguments are Flower's.", add_help=False)
    parser.add_argument("--poll-s", type=float, default=3.0, help="longest wait between two looks for work")
    parser.add_argument("--port", required=True, help="port of the runtime interface")
    parser.add_argument("--agent-socket", help="relay messages to the agent at this socket")
    parser.add_argument("--runtime-secret", help="file for the secret of the runtime interface")
    options, flowers = parser.parse_known_args(arguments)
    flowers += ["--host", "127.0.0.1", "--port", options.port]
    end_with_parent()
    shorten_sleeps(start_client_internal, poll_s=options.poll_s)
    shorten_pulls()
    hasten_heartbeats()
    if options.agent_socket:
        # Nobody else gets to know the secret: no process takes tasks of this SuperNode.
        flowers += ["--isolation", "process", "--superexec-auth-secret-file", options.runtime_secret]
        _make_secret(Path(options.runtime_secret))
        resident.install(start_client_internal, socket=options.agent_socket, poll_s=options.poll_s)
        may_be_held(node_auth_http_interceptor, seconds=_HELD_S)
    else:
        several.install(start_client_internal, poll_s=options.poll_s)
    sys.argv = ["flower-supernode", *flowers]
    flower_supernode()


def _make_secret(file: Path) -> None:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(secrets.token_bytes(32))


if __name__ == "__main__":
    main()
