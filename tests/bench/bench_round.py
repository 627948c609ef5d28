"""A round of training by real processes, with the SuperLink's parts of messages in files and as Flower keeps them.

Three sites of 80 patients, a network of 11 MB on three features, so that hardly anything is trained: what is timed is
the model's way to the sites and the updates' way back, through TLS, relay and agent. The same coordinator and sites run
campaigns in turn, with `FileObjectStore` and with Flower's store in SQLite.

`PYTHONPATH=. python tests/bench/bench_round.py` prints the medians over rounds, their ratio and the machine's load.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
from pathlib import Path

from tests.hospitals_at_work import CAMPAIGN, Network, network, record

ROUNDS, REPEATS = 6, 2
LARGE = CAMPAIGN.replace("hidden = [4]", "hidden = [1680, 1680]").replace(
    "rounds = {rounds}", "rounds = {rounds}\nbatch_size = 64"
)
FLOWERS = """
import fedage.server.superlink.object_store as ours
from flwr.supercore.object_store.object_store_factory import ObjectStoreFactory
ours.FileObjectStoreFactory = ObjectStoreFactory
"""
"""Imported by every Python process of a coordinator that is to keep parts as Flower does."""


def timed(fleet: Network, name: str) -> list[float]:
    """Seconds of the rounds of one campaign, but the first."""
    campaign = fleet.campaign(name, rounds=ROUNDS, deadline_s=300)
    campaign.write_text(
        LARGE.format(
            name=name,
            sites=", ".join(f'"{site}"' for site in fleet.names),
            rounds=ROUNDS,
            quorum=len(fleet.names),
            deadline_s=300,
        )
    )
    command, run = fleet.run(campaign)
    assert command.process.wait(1200) == 0, command.said
    return [float(done.seconds or 0) for done in record(run).rounds[1:]]


def main() -> None:
    """Run, compare, print."""
    seconds: dict[str, list[float]] = {"files": [], "sqlite": []}
    with tempfile.TemporaryDirectory() as folder:
        patched = Path(folder) / "patched"
        patched.mkdir()
        (patched / "sitecustomize.py").write_text(FLOWERS)
        with network(Path(folder), names=("north", "south", "west")) as fleet:
            for repeat in range(REPEATS):
                for kind in seconds:
                    fleet.running["coordinator"].end(signal.SIGTERM)
                    if kind == "sqlite":
                        os.environ["PYTHONPATH"] = f"{patched}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
                    fleet.start_coordinator()
                    os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", "").removeprefix(f"{patched}{os.pathsep}")
                    seconds[kind] += timed(fleet, f"{kind}-{repeat}")
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    print(f"load {os.getloadavg()[0]:.1f}; {len(seconds['files'])} rounds each, three sites, 11.3 MB")
    for kind, median in medians.items():
        print(f"{kind}: {median:.2f} s a round ({min(seconds[kind]):.2f} to {max(seconds[kind]):.2f})")
    print(f"files / sqlite: {medians['files'] / medians['sqlite']:.2f}")


if __name__ == "__main__":
    main()
