"""What a message without a model costs: the exchanges of a Cox model at three sites, through TLS, relay and agent.

A campaign of survival analyses runs several times, as real processes. Printed are the seconds of one exchange (asked
of all sites until all have answered), of all exchanges of a run together, and of a run from `campaign run` to its end.

`PYTHONPATH=. python tests/bench/bench_messages.py [--runs 5]` prints medians and the machine's load.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np

from fedage.client.cli.index import index_site
from fedage.common.protocol.messages import ANALYSE
from fedage.server.record.run_folder import RunFolder
from tests.hospitals_at_work import Network, network

NAMES = ("north", "south", "west")
CAMPAIGN = """
[campaign]
name = "{name}"
purpose = "Time the exchanges of a Cox model"
seed = 1
sites = ["north", "south", "west"]
[table]
id = "who"
age = "age"
sex = "sex"
[survival]
time = "time_years"
event = "died"
table_times_years = [1, 2]
[[survival.models]]
name = "by-site"
covariates = ["age", "sex"]
"""


def give_outcomes(fleet: Network, name: str, *, seed: int) -> None:
    """Add a time and an event to a site's table, and index it again."""
    file, rng = fleet.root / f"{name}.csv", np.random.default_rng(seed)
    head, *rows = file.read_text().splitlines()
    more = [f"{row},{rng.exponential(3) + 0.1:.2f},{int(rng.random() < 0.7)}" for row in rows]
    file.write_text("\n".join([f"{head},time_years,died", *more]) + "\n")
    index_site(fleet.root / name)


def exchanges(run: RunFolder) -> list[tuple[float, float]]:
    """When each question of analyses was asked, and how many seconds later the last site had answered."""
    found: list[tuple[float, float]] = []
    began, answered = 0.0, 0
    for line in run.events.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        at = datetime.fromisoformat(event["time"]).timestamp()
        if event["event"] == "asked" and event["step"] == ANALYSE:
            began, answered = at, 0
        elif event["event"] == "answer" and event["step"] == ANALYSE:
            answered += 1
            if answered == len(NAMES):
                found.append((began, at - began))
    return found


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs: int = parser.parse_args().runs
    one, all_of_it, whole, counts = list[float](), list[float](), list[float](), set[int]()
    with tempfile.TemporaryDirectory() as folder, network(Path(folder), names=NAMES) as fleet:
        for number, name in enumerate(NAMES):
            give_outcomes(fleet, name, seed=number)
        for number in range(runs + 1):
            campaign = Path(folder) / f"cox-{number}.toml"
            campaign.write_text(CAMPAIGN.format(name=campaign.stem))
            began = time.monotonic()
            command, run = fleet.run(campaign)
            assert command.process.wait(300) == 0, command.said
            if number:  # the first imports what the others have
                whole.append(time.monotonic() - began)
                found = exchanges(run)
                one += [seconds for _, seconds in found]
                all_of_it.append(found[-1][0] + found[-1][1] - found[0][0])
                counts.add(len(found))
        print(
            f"load {os.getloadavg()[0]:.1f}; {runs} runs of {'/'.join(map(str, sorted(counts)))} exchanges, three sites"
        )
    print(f"an exchange: {statistics.median(one):.2f} s ({min(one):.2f} to {max(one):.2f})")
    print(f"all exchanges of a run: {statistics.median(all_of_it):.2f} s")
    print(f"a run, its process and report included: {statistics.median(whole):.2f} s")


if __name__ == "__main__":
    main()
