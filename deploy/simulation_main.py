"""The process of a simulated run: `python -m fedage.deploy.simulation_main`, with the job named by the environment."""

from __future__ import annotations

import os
import sys

from fedage.common.simulation import VARIABLE, current_job


def main() -> int:
    """Run Flower's simulation engine over the job's sites."""
    job = current_job()
    if job is None:
        sys.stderr.write(f"{VARIABLE} does not name a job; this is started by fedage simulate\n")
        return 2
    from flwr.simulation import run_simulation

    from fedage.client.app import app as client_app
    from fedage.server.app import app as server_app

    cores = os.cpu_count() or 1
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=len(job.sites),
        backend_config={
            "init_args": {"num_cpus": cores, "include_dashboard": False, "log_to_driver": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
