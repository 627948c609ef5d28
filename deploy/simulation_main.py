"""The process of a simulated run: `python -m fedage.deploy.simulation_main`, with the job named by the environment."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from fedage.deploy.machine.processes import end_with_parent, is_orphaned
from fedage.deploy.machine.simulation import ENGINE_ENDED, VARIABLE, Share, SimulationJob, current_job

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

_TOLD_TO_END = "its process was told to end"
SCRATCH = "FEDAGE_SCRATCH"
"""Names a folder with a short path, for the engine's sockets."""
RECORD_S = 15.0
"""Time for a stopped run to write its record, while a command waits for it and writes what is missing then."""
ORPHANED_RECORD_S = 60.0
"""The same once the command is gone: nobody waits, nobody writes what is missing, and on a machine that is busy with
the sites' last training the report alone has taken longer than `RECORD_S`.
"""


def main() -> int:
    """Run the campaign over the job's sites, in this process or in Flower's simulation engine."""
    job, scratch = current_job(), os.environ.get(SCRATCH)
    if job is None or scratch is None:
        sys.stderr.write(f"{VARIABLE} and {SCRATCH} do not name a job; this is started by fedage simulate\n")
        return 2
    # The engine sets the same handler once it has started.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(number))
    end_with_parent(grace_s=ORPHANED_RECORD_S + 3)
    from fedage.client.node.app import app as client_app
    from fedage.server.campaign.app import app as server_app

    if job.engine == "process":
        return _simulate_here(job, client_app, server_app)
    from flwr.simulation import run_simulation

    try:
        _simulate(run_simulation, client_app, server_app, sites=len(job.sites), share=job.share, scratch=scratch)
    except BaseException as error:  # noqa: BLE001 - whatever it was, the process must end
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        _let_it_write(job, reason=_TOLD_TO_END if isinstance(error, SystemExit) else ENGINE_ENDED)
        sys.stderr.flush()
        # The ServerApp's thread would wait on for sites that will never answer.
        os._exit(1)
    return 0


def _simulate_here(job: SimulationJob, client_app: ClientApp, server_app: ServerApp) -> int:
    """Run the ServerApp and the sites in this thread; a signal ends the run as a stop by a person does."""
    from flwr.app import Context, RecordDict
    from flwr.serverapp import Grid

    from fedage.deploy.simulation_grid import SitesInProcess

    signal.signal(signal.SIGTERM, lambda _number, _frame: job.stop(_TOLD_TO_END))
    try:
        server_app(cast(Grid, SitesInProcess(job, client_app)), Context(1, 0, {}, RecordDict(), {}))
    except BaseException:  # noqa: BLE001 - whatever it was, the record says it
        traceback.print_exc()
        return 1
    return 0


def _let_it_write(job: SimulationJob, *, reason: str) -> None:
    """Have the ServerApp write its record, which it does in its own thread, and wait for that."""
    job.stop(reason)
    deadline = time.monotonic() + (ORPHANED_RECORD_S if is_orphaned() else RECORD_S)
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


def _simulate(
    run_simulation: Callable[..., None],
    client_app: ClientApp,
    server_app: ServerApp,
    *,
    sites: int,
    share: Share,
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
                "num_cpus": share.at_a_time,
                "num_gpus": share.gpus,
                "include_dashboard": False,
                "log_to_driver": False,
            },
            "client_resources": {"num_cpus": 1, "num_gpus": share.gpu},
        },
    )


if __name__ == "__main__":
    sys.exit(main())
