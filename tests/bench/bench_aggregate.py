"""The mean of a round's updates by `FedAvg`, from their arrival, against one pass of numpy over the same in memory.

Updates are spooled to disk as they arrive and added array by array when the round closes, so that memory does not grow
with the sites. `python tests/bench/bench_aggregate.py [--sites 8]` prints the ratio of the two rates, run by run, and
the memory that aggregating three and so many updates takes beside one model.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fedage.server.campaign.strategies import FedAvg, RoundStart, Spool, Update

ARRAYS, VALUES, RUNS = 45, 250_000, 11
"""A model of 45 MB."""


def model(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"layer-{k}": rng.random(VALUES, dtype=np.float32) for k in range(ARRAYS)}


def now() -> np.ndarray:
    """Wall clock and processor's time of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def by_strategy(folder: Path, updates: list[dict[str, np.ndarray]], weights: dict[str, np.ndarray]) -> np.ndarray:
    """Seconds from the first update to the next model, by wall clock and by processor."""
    strategy = FedAvg(Spool(folder / "spool"))
    strategy.configure(RoundStart(number=1, weights=weights, sites=()))
    began = now()
    for number, change in enumerate(updates):
        strategy.accept(Update(site=f"site-{number:03d}", change=change, n=80))
    strategy.finish()
    return now() - began


def by_numpy(updates: list[dict[str, np.ndarray]], weights: dict[str, np.ndarray]) -> np.ndarray:
    """The same for the weighted mean added to the model, float64 in between as there."""
    began = now()
    for name, current in weights.items():
        total = np.zeros(VALUES)
        for change in updates:
            total += 80 * change[name].astype(np.float64)
        (current + total / (80 * len(updates))).astype(np.float32)
    return now() - began


def peak_mb(sites: int) -> float:
    """Memory of a process that aggregates so many updates, each gone once it is accepted."""
    code = (
        "import sys; from tests.bench import bench_aggregate as b; from pathlib import Path; import tempfile\n"
        "with tempfile.TemporaryDirectory() as folder: b.one_after_another(Path(folder), int(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(sites)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def one_after_another(folder: Path, sites: int) -> None:
    """Aggregate, and print the most memory that was used, in MB."""
    strategy, weights = FedAvg(Spool(folder / "spool")), model(0)
    strategy.configure(RoundStart(number=1, weights=weights, sites=()))
    for number in range(sites):
        strategy.accept(Update(site=f"site-{number:03d}", change=model(number), n=80))
    strategy.finish()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=8)
    sites = parser.parse_args().sites
    updates, weights = [model(number) for number in range(1, sites + 1)], model(0)
    ratios, rates = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(RUNS):
            ours, theirs = by_strategy(Path(folder), updates, weights), by_numpy(updates, weights)
            ratios.append(theirs / ours)
            rates.append(sites * ARRAYS * VALUES * 4 / 1e6 / float(ours[0]))
    print(f"load {os.getloadavg()[0]:.1f}; {sites} updates of {ARRAYS * VALUES * 4 / 1e6:.0f} MB")
    print(f"FedAvg {statistics.median(rates):.0f} MB/s")
    for kind, of_kind in zip(("wall clock", "processor's time"), np.array(ratios).T, strict=True):
        print(f"{np.median(of_kind):.2f} of numpy's rate by {kind} ({min(of_kind):.2f} to {max(of_kind):.2f})")
    print(", ".join(f"{count} updates: {peak_mb(count):.0f} MB" for count in (3, sites, 64)))


if __name__ == "__main__":
    main()
