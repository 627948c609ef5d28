"""A round of NVFLARE: an 11.3 MB model to three sites and back, nothing trained. What `bench_round.py` is held against.

NVFLARE runs in an environment of its own, whose Python is an argument, as provisioned for a proof of concept: a server
and three clients as processes of their own on this machine, with its mutual TLS. Its polling is tuned (`SETTINGS`);
as it comes, a client asks every 2 s. Each round's time is that between two of the server's own `ROUND_STARTED` events.

`PYTHONPATH=. python tests/bench/bench_nvflare_round.py --python VENV/bin/python` prints the median over rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROUNDS, SITES, VALUES = 12, 3, 2_830_000
SETTINGS = {"task_request_interval": 0.05, "task_check_period": 0.05, "wait_time_after_min_received": 0}
COMPONENTS = """
import time
import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_component import FLComponent
from nvflare.app_common.app_event_type import AppEventType


class Adds(Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        data = {name: np.asarray(array) + 1 for name, array in from_shareable(shareable).data.items()}
        return DXO(DataKind.WEIGHTS, data=data, meta={"NUM_STEPS_CURRENT_ROUND": 1}).to_shareable()


class Clock(FLComponent):
    def __init__(self, file):
        super().__init__()
        self._file = file

    def handle_event(self, event_type, fl_ctx):
        if event_type == AppEventType.ROUND_STARTED:
            with open(self._file, "a") as times:
                times.write(f"{time.time()}\\n")
"""
DRIVER = """
import sys
from pathlib import Path
from nvflare.fuel.flare_api.flare_api import new_secure_session
from nvflare.recipe.poc_env import DEFAULT_ADMIN_USER
(kit,) = Path(sys.argv[1]).glob(f"*/prod_00/{DEFAULT_ADMIN_USER}")
session = new_secure_session(DEFAULT_ADMIN_USER, str(kit), timeout=60.0)
print(session.monitor_job(session.submit_job(sys.argv[2]), timeout=float(sys.argv[3])))
session.close()
"""


def make_job(folder: Path, *, times: Path, start: Path) -> None:
    """A job of NVFLARE's own scatter and gather with FedAvg, its model in one array."""
    config, custom = folder / "app" / "config", folder / "app" / "custom"
    config.mkdir(parents=True)
    custom.mkdir()
    (custom / "bench_components.py").write_text(COMPONENTS)
    common = "nvflare.app_common"
    flow: dict[str, Any] = {
        "min_clients": SITES,
        "num_rounds": ROUNDS + 2,
        "train_timeout": 0,
        "persistor_id": "persistor",
        "aggregator_id": "aggregator",
        "shareable_generator_id": "generator",
        **{name: value for name, value in SETTINGS.items() if name != "task_request_interval"},
    }
    weights = {"expected_data_kind": "WEIGHTS"}
    parts = {
        "persistor": (f"{common}.np.np_model_persistor.NPModelPersistor", {"source_ckpt_file_full_name": str(start)}),
        "generator": (f"{common}.shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator", {}),
        "aggregator": (
            f"{common}.aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator",
            weights,
        ),
        "clock": ("bench_components.Clock", {"file": str(times)}),
    }
    server = {
        "format_version": 2,
        "server": {"task_request_interval": SETTINGS["task_request_interval"]},
        "components": [{"id": name, "path": path, "args": args} for name, (path, args) in parts.items()],
        "workflows": [
            {"id": "sag", "path": f"{common}.workflows.scatter_and_gather.ScatterAndGather", "args": flow},
        ],
    }
    client = {
        "format_version": 2,
        "executors": [{"tasks": ["train"], "executor": {"path": "bench_components.Adds", "args": {}}}],
        "components": [],
    }
    meta = {"name": "bench", "min_clients": SITES, "deploy_map": {"app": ["@ALL"]}, "resource_spec": {}}
    (config / "config_fed_server.json").write_text(json.dumps(server))
    (config / "config_fed_client.json").write_text(json.dumps(client))
    (folder / "meta.json").write_text(json.dumps(meta))


def main() -> None:
    """Run, and print what a round took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="Python of an environment with nvflare")
    python: Path = parser.parse_args().python
    with tempfile.TemporaryDirectory() as folder:
        root, workspace = Path(folder), Path(folder, "poc")
        start, times = root / "start.npy", root / "times"
        make = f"import numpy; numpy.save({str(start)!r}, numpy.zeros({VALUES}, dtype='float32'))"
        # What NVFLARE notes of a proof of concept it keeps in the home folder: not in this user's.
        own = {"HOME": folder, "NVFLARE_POC_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **own, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}

        def run(*command: str | Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [str(word) for word in command],
                env=environment,
                cwd=root,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=True,
            )

        tool = python.parent / "nvflare"
        run(python, "-c", make)
        version = run(python, "-c", "import nvflare; print(nvflare.__version__)").stdout.strip()
        make_job(root / "job", times=times, start=start)
        try:
            run(tool, "poc", "prepare", "-n", str(SITES))
            run(tool, "poc", "start", "-ex", "admin@nvidia.com")
            done = run(python, "-c", DRIVER, workspace, root / "job", "600", timeout_s=700)
        except subprocess.CalledProcessError as failed:
            sys.exit(f"{failed}\n{failed.stdout[-3000:]}\n{failed.stderr[-3000:]}")
        finally:
            subprocess.run([str(tool), "poc", "stop"], env=environment, cwd=root, capture_output=True, check=False)
        began = [float(line) for line in times.read_text().split()] if times.is_file() else []
        if len(began) <= ROUNDS:
            sys.exit(f"the job came to no end: {done.stdout[-3000:]}")
        seconds = [after - before for before, after in itertools.pairwise(began[1:])]
        settings = ", ".join(f"{name} {value:g} s" for name, value in SETTINGS.items())
        print(f"load {os.getloadavg()[0]:.1f}; {len(seconds)} rounds, {SITES} sites, {VALUES * 4 / 1e6:.1f} MB")
        print(f"NVFLARE {version} ({settings}): {statistics.median(seconds):.2f} s a round", end=" ")
        print(f"({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
