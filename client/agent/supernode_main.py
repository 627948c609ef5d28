"""`flower-supernode`, prompt, and ending when the process that started it does. Run by the supervisor.

Flower's SuperNode sleeps 3 s between looks for work and has no option for it. The one module that sleeps is given a
clock whose `sleep` is capped; `tests/client/agent/test_flower_contract.py` holds that it still is the one. Where Flower
changes, the cap is without effect and nothing else is.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from flwr.supernode import start_client_internal
from flwr.supernode.cli import flower_supernode

from fedage.common.processes import end_with_parent

_REPLY_POLL_S = 0.05
"""How often the SuperNode looks whether the relay has answered: in its own memory, so it costs nothing."""


class PromptClock:
    """The `time` module with a `sleep` that Flower's two waiting loops end sooner.

    Parameters
    ----------
    poll_s
        Longest wait between two looks for work at the SuperLink.
    """

    def __init__(self, *, poll_s: float) -> None:
        self._poll_s = poll_s

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than asked nor than allowed."""
        time.sleep(min(seconds, self._poll_s if seconds >= 1 else _REPLY_POLL_S))


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
    if options.executor_socket:
        flowers += ["--isolation", "process", "--superexec-auth-secret-file", options.executor_secret]
        command = [sys.executable, "-m", "fedage.client.agent.executor", "--port", options.port]
        command += ["--socket", options.executor_socket, "--secret", options.executor_secret]
        threading.Thread(target=_run_executor, args=(command,), daemon=True, name="executor").start()
    vars(start_client_internal)["time"] = PromptClock(poll_s=options.poll_s)
    sys.argv = ["flower-supernode", *flowers]
    flower_supernode()


def _run_executor(command: Sequence[str]) -> None:
    """A SuperNode whose executor is gone would look online and be deaf: it ends too, and both are started again."""
    subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
