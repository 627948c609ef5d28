"""A round of stock Flower: an 11.3 MB model in one packed array to three SuperNodes and back, nothing trained.

What `bench_round.py` is held against, with Flower as it comes: FedAvg, a SuperLink without TLS, a process a message and
its own waits. `PYTHONPATH=. python tests/bench/bench_stock_flower.py` prints the median over rounds after the first.
"""

from __future__ import annotations

import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fedage.deploy.machine.processes import free_port
from tests.hospitals_at_work import until

ROUNDS, SITES, VALUES = 6, 3, 2_830_000
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "stock"
version = "1.0.0"
dependencies = []
license = "Apache-2.0"
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "stock_app:server"
clientapp = "stock_app:client"
"""
APP = f"""
import time
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message, context):
    arrays = {{name: Array(array.numpy() + 1) for name, array in message.content["arrays"].items()}}
    return Message(RecordDict({{"arrays": ArrayRecord(arrays), "metrics": MetricRecord({{"num-examples": 80}})}}),
                   reply_to=message)


class Timed(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        print(f"begins {{server_round}} {{time.time()}}", flush=True)
        return super().configure_train(server_round, arrays, config, grid)


@server.main()
def main(grid, context):
    model = ArrayRecord({{"model": Array(np.zeros({VALUES}, dtype=np.float32))}})
    Timed(fraction_evaluate=0.0, min_train_nodes={SITES}, min_available_nodes={SITES}).start(
        grid, model, num_rounds={ROUNDS + 1})
"""


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    """Run, and print what a round took."""
    with tempfile.TemporaryDirectory() as folder:
        root, port = Path(folder), free_port()
        app = root / "app"
        app.mkdir()
        (app / "pyproject.toml").write_text(PROJECT)
        (app / "stock_app.py").write_text(APP)
        (root / "flwr").mkdir()
        address = f"127.0.0.1:{port}"
        (root / "flwr" / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{address}"\ninsecure = true\n'
        )
        own = {"FLWR_HOME": str(root / "flwr"), "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **own, "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1"}
        tools, log = Path(sys.executable).parent, (root / "log").open("wb")
        environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"  # Flower starts its other commands by name

        def start(*command: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [str(tools / command[0]), *command[1:]], env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=root
            )

        link = start("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port),
                     "--database", str(root / "state.db"))  # fmt: skip
        until(lambda: _listens(port), timeout_s=120, what="the SuperLink does not listen")
        nodes = [
            start("flower-supernode", "--insecure", "--superlink", address, "--port", str(free_port()))
            for _ in range(SITES)
        ]
        try:
            time.sleep(8)
            done = subprocess.run(
                [str(tools / "flwr"), "run", str(app), "here", "--stream"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=900,
                check=False,
                cwd=root,
            )
        finally:
            for process in (*nodes, link):
                process.terminate()
            for process in (*nodes, link):
                process.wait(60)
        text = done.stdout + done.stderr + (root / "log").read_text(errors="replace")
        begins = {int(n): float(t) for n, t in re.findall(r"begins (\d+) ([\d.]+)", text)}
        if len(begins) <= ROUNDS:
            sys.exit(text[-5000:])
        seconds = [begins[number + 1] - begins[number] for number in range(2, ROUNDS + 1)]
        print(f"load {os.getloadavg()[0]:.1f}; {len(seconds)} rounds, {SITES} sites, {VALUES * 4 / 1e6:.1f} MB")
        print(f"stock Flower: {statistics.median(seconds):.2f} s a round ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
