"""What reading samples costs beside a plain memory map: `python tests/bench/bench_samples.py [--patients 300]`.

Chest radiographs of 512 × 512 pixels become samples of `chest-ca` (256 × 256). The first epoch makes them: every file
is decoded and preprocessed. Any later epoch opens the cache again, as each round does, and reads shuffled batches into
tensors. The plain reading opens one `.npy` file of the same size as a memory map and reads the same rows. Later epochs
and plain readings alternate.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_index import radiograph

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.samples.cache import SampleCache
from fedage.client.cohort.store.query import Selection, select
from fedage.client.cohort.store.store import CohortStore
from fedage.common import estimators
from fedage.common.estimators.base import Rows

WANTED, BATCH, SIDE = 0.8, 16, 512


def make(folder: Path, *, patients: int) -> None:
    """One radiograph a patient."""
    rng = np.random.default_rng(1)
    for number in range(patients):
        ds = radiograph()
        ds.PatientID = f"MRN-{number}"
        ds.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.1{number:06d}"
        ds.Rows = ds.Columns = SIDE
        ds.PixelData = rng.integers(0, 4096, (SIDE, SIDE), dtype=np.uint16).tobytes()
        ds.save_as(folder / f"{number:06d}.dcm", enforce_file_format=True)


def read(samples: Rows) -> None:
    """One shuffled epoch into tensors, as training reads."""
    order = np.random.default_rng(2).permutation(len(samples))
    for start in range(0, len(order), BATCH):
        torch.from_numpy(np.array(samples[order[start : start + BATCH]], dtype=np.float32))


def seconds(call: Callable[[], object]) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    estimator = estimators.make("chest-ca", {"image_size": 256})
    with tempfile.TemporaryDirectory() as scratch:
        data, plain_file = Path(scratch, "data"), Path(scratch, "plain.npy")
        data.mkdir()
        make(data, patients=arguments.patients)
        with CohortStore.open(Path(scratch, "home")) as store:
            index_folder(store, data)
            selection: Selection = select(store, modalities=("DX",), age_min_years=0, age_max_years=130)
        cache = SampleCache(Path(scratch, "cache"), root=data)

        def epoch() -> None:
            read(cache.build(selection, estimator).samples.arrays["image"])

        def plain() -> None:
            read(np.load(plain_file, mmap_mode="r"))

        first = seconds(epoch)
        np.save(plain_file, cache.build(selection, estimator).samples["image"])
        later, plainly = [], []
        for _ in range(arguments.repeats):
            later.append(seconds(epoch))
            plainly.append(seconds(plain))
        megabytes = plain_file.stat().st_size / 1e6
    second, mapped = statistics.median(later), statistics.median(plainly)
    print(f"{arguments.patients} samples, {megabytes:.0f} MB, medians of {arguments.repeats} alternating epochs")
    print(f"first epoch, samples made    {first:8.3f} s  {arguments.patients / first:8.0f} samples/s")
    print(f"second epoch, from the cache {second:8.3f} s  {megabytes / second:8.0f} MB/s")
    print(f"plain memory map             {mapped:8.3f} s  {megabytes / mapped:8.0f} MB/s")
    print(f"second epoch reads at {mapped / second:.0%} of plain memory-mapped reading (wanted {WANTED:.0%})")


if __name__ == "__main__":
    main()
