"""`flower-supernode`, prompt, and ending when the process that started it does. Run by the supervisor."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from flwr.supernode import start_client_internal
from flwr.supernode.cli import flower_supernode

from fedage.client.node import concurrent_fetcher as several
from fedage.client.node.flower_waits import hasten_heartbeats, shorten_pulls, shorten_sleeps
from fedage.deploy.machine.processes import PARENT, end_with_parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the SuperNode, and its resident executor if a socket is given, until told to stop."""
    parser = argparse.ArgumentParser(description="A SuperNode; other arguments are Flower's.", add_help=False)
    parser.add_argument("--poll-s", type=float, default=3.0, help="longest wait between two looks for work")
    parser.add_argument("--port", required=True, help="port of the runtime interface")
    parser.add_argument("--executor-socket", help="run the resident executor, for the agent at this socket")
    parser.add_argument("--executor-secret", help="file with the secret that only the executor shares")
    options, flowers = parser.parse_known_args(arguments)
    flowers += ["--host", "127.0.0.1", "--port", options.port]
    end_with_parent()
    fetched: Callable[[], None] = _nobody_to_wake
    if options.executor_socket:
        flowers += ["--isolation", "process", "--superexec-auth-secret-file", options.executor_secret]
        command = [sys.executable, "-m", "fedage.client.node.executor", "--port", options.port]
        command += ["--socket", options.executor_socket, "--secret", options.executor_secret]
        _make_secret(Path(options.executor_secret))
        executor = _start_executor(command)
        fetched = partial(_wake, executor)
    shorten_sleeps(start_client_internal, poll_s=options.poll_s)
    shorten_pulls()
    hasten_heartbeats()
    several.install(start_client_internal, poll_s=options.poll_s, fetched=fetched)
    sys.argv = ["flower-supernode", *flowers]
    flower_supernode()


def _make_secret(file: Path) -> None:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(secrets.token_bytes(32))


def _start_executor(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """A SuperNode whose executor is gone would look online and be deaf: it ends too, and both are started again."""
    environment = {**os.environ, PARENT: str(os.getpid())}
    executor = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)

    def watch() -> None:
        executor.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="executor").start()
    return executor


def _wake(executor: subprocess.Popen[bytes]) -> None:
    """Tell the executor that there is a message; one that is busy finds it anyway."""
    assert executor.stdin is not None
    with contextlib.suppress(OSError):
        os.write(executor.stdin.fileno(), b".")


def _nobody_to_wake() -> None:
    """Flower's own executor looks by itself."""


if __name__ == "__main__":
    main()
