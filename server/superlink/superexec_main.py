"""`flower-superexec` that ends with the coordinator, and starts ServerApps that end with it. Run by `SuperLink`.

Flower's own look at a parent is whether its number is still taken, which a zombie's is for as long as nobody waits for
it: where process 1 reaps late or never, as in many containers, a ServerApp went on after its coordinator was killed.
"""

from __future__ import annotations

import os
import subprocess
import sys

from flwr.supercore.cli.flower_superexec import flower_superexec
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supercore.superexec.executor.types import ExecutionSpec, LaunchResult

from fedage.deploy.machine.processes import PARENT, end_with_parent


class ServerAppExecutor(SubprocessExecutor):
    """Starts each run's process as `serverapp_main`, and waits for those that have ended."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start the process of a run."""
        if spec.task_type != TaskType.SERVER_APP:
            return LaunchResult.failed(f"only runs of campaigns are started here, not {spec.task_type}")
        command: list[str] = [sys.executable, "-m", "fedage.server.superlink.serverapp_main"]
        command += ["--runtime-api-address", spec.runtime_api_address, "--token", spec.token]
        command += ["--insecure"] if spec.insecure else ["--root-certificates", str(spec.root_certificates_path)]
        environment = {**os.environ, PARENT: str(os.getpid())}
        self._started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment))
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Let no process that has ended stay a zombie."""
        self._started = [process for process in self._started if process.poll() is None]


def main() -> None:
    """Take runs until told to stop."""
    end_with_parent()
    vars(run_superexec)["get_executor"] = lambda *_arguments, **_options: ServerAppExecutor()
    sys.argv[0] = "flower-superexec"
    flower_superexec()


if __name__ == "__main__":
    main()
