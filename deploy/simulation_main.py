"""The process of a simulated run: `python -m fedage.deploy.simulation_main`, with the job named by the environment."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedage.common.processes import end_with_parent
from fedage.common.simulation import VARIABLE, current_job

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

SCRATCH = "FEDAGE_SCRATCH"
"""Names a folder with a short path, for the engine's sockets."""


def main() -> int:
    """Run Flower's simulation engine over the job's sites."""
    job, scratch = current_job(), os.environ.get(SCRATCH)
    if job is None or scratch is None:
        sys.stderr.write(f"{VARIABLE} and {SCRATCH} do not name a job; this is started by fedage simulate\n")
        return 2
    end_with_parent()
    from flwr.simulation import run_simulation

    from fedage.client.app import app as client_app
    from fedage.server.app import app as server_app

    try:
        _simulate(run_simulation, client_app, server_app, sites=len(job.sites), scratch=scratch)
    except BaseException:  # noqa: BLE001 - whatever it was, the process must end
        # The ServerApp's thread would wait on for sites that will never answer.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    return 0


def _simulate(
    run_simulation: Callable[..., None],
    client_app: ClientApp,
    server_app: ServerApp,
    *,
    sites: int,
    scratch: str,
) -> None:
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=sites,
        backend_config={
            "init_args": {
                # A cluster of its own, never one that happens to run on this machine.
                "address": "local",
                "_temp_dir": scratch,
                "num_cpus": min(os.cpu_count() or 1, sites),
                "include_dashboard": False,
                "log_to_driver": False,
            },
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    sys.exit(main())
