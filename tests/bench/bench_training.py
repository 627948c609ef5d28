"""What reading samples from disk costs in training: `PYTHONPATH=. python tests/bench/bench_training.py`.

Each epoch is one round of `train_locally` on the CPU: over the sample file, read ahead batch by batch, and over the
same samples in memory. The two alternate. Peak memory is the most that the process held in an epoch of its own, before
the samples are in memory and after; the pages that the kernel caches of the file are not the process's.

Where others use the machine, the processor's time says more than the wall clock: both ratios are printed.

Two networks: `chest-ca`, and one so small that reading is most of the work, which has ten times the patients.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.samples.rows import RowFile, RowWriter
from fedage.client.compute.training import train_locally
from fedage.common import estimators
from fedage.common.campaign.types import Training
from fedage.common.estimators.base import Samples
from tests.client.test_streaming import Coarse

WANTED, SIDE, MIB = 0.95, 128, 2**20
DTYPE = np.dtype("<f4")


def make(path: Path, *, patients: int) -> None:
    """Random samples, written as the sample cache writes them: on the disk before they are read."""
    rng = np.random.default_rng(1)
    with path.open("wb") as stream:
        rows = RowWriter(stream, dtype=DTYPE, shape=(patients, 1, SIDE, SIDE))
        for _ in range(patients):
            rows.write(rng.normal(size=(1, SIDE, SIDE)))
        rows.end()


def peak_mib(call: Callable[[], object]) -> float:
    """The most memory that the process held during a call, by the kernel's mark, which is set back before it."""
    Path("/proc/self/clear_refs").write_text("5")
    call()
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and processor's time of one call."""
    start, start_cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - start_cpu


def compare(title: str, phase: Any, file: RowFile, *, repeats: int, batch_size: int) -> None:
    """Print a network's lines."""
    patients = len(file)
    ages: NDArray[np.float64] = np.linspace(20, 90, patients)
    weights = phase.start({}, seed=0)

    def epoch(samples: Samples) -> None:
        training = Training(rounds=1, batch_size=batch_size)
        options = {"training": training, "round_number": 1, "rng_seed": 1, "threads": 1, "device": "cpu"}
        train_locally(phase, weights, samples, {"age_years": ages[: len(samples)]}, **options)

    on_disk = Samples({"image": file})
    epoch(Samples({"image": file[: 4 * batch_size]}))  # what a first training allocates once
    of_disk = peak_mib(lambda: epoch(on_disk))
    in_memory = Samples({"image": file[:]})
    of_memory = peak_mib(lambda: epoch(in_memory))
    streamed, plain = [], []
    for _ in range(repeats):
        streamed.append(seconds(lambda: epoch(on_disk)))
        plain.append(seconds(lambda: epoch(in_memory)))
    disk, disk_cpu = map(statistics.median, zip(*streamed, strict=True))
    memory, memory_cpu = map(statistics.median, zip(*plain, strict=True))
    print(f"{title}, {patients} patients, batches of {batch_size}", flush=True)
    print(f"  from disk, read ahead {patients / disk:8.0f} samples/s, peak memory {of_disk:6.0f} MiB")
    print(f"  in memory             {patients / memory:8.0f} samples/s, peak memory {of_memory:6.0f} MiB")
    by_cpu = memory_cpu / disk_cpu
    print(f"  from disk at {memory / disk:.2f} of in memory, {by_cpu:.2f} by CPU time (wanted {WANTED:.2f})")


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=2500)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    patients, repeats = arguments.patients, arguments.repeats
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "samples.npy")
        make(path, patients=patients)
        print(
            f"{patients} samples of {SIDE} × {SIDE}, {path.stat().st_size / MIB:.0f} MiB, medians of {repeats} "
            f"alternating epochs, one thread of torch, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        chest: Any = estimators.make("chest-ca", {"image_size": SIDE, "width": 8})
        small = Coarse(side=SIDE, block=16)
        shape = (patients, 1, SIDE, SIDE)
        few = RowFile(path, dtype=DTYPE, shape=shape, count=patients // 10)
        compare("a linear network", small, RowFile(path, dtype=DTYPE, shape=shape), repeats=5 * repeats, batch_size=16)
        compare("chest-ca of width 8", chest.network, few, repeats=repeats, batch_size=16)
        print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
