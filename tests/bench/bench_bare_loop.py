"""A site's training against a bare loop of PyTorch: the same network, loss, augmentation, optimiser and batches.

`train_locally` over samples in memory, and a loop as anybody would write it (tensors made once, a batch indexed, loss,
backward, step), alternating, one epoch each on the CPU, for a 2D and a 3D network.

`PYTHONPATH=. python tests/bench/bench_bare_loop.py [--repeats 10]` prints the medians' ratio, by wall clock and by the
processor's time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedage.client.compute.training import train_locally
from fedage.common import estimators
from fedage.common.campaign.types import Training
from fedage.common.estimators.base import Batch, Samples

WANTED, BATCH = 0.95, 8
NETWORKS: dict[str, tuple[dict[str, Any], str, tuple[int, ...]]] = {
    "chest-ca": ({"image_size": 128, "width": 8}, "image", (1, 128, 128)),
    "brain-sfcn": ({"shape": [32, 32, 32], "spacing_mm": 6.0, "width": 8, "poolings": 3}, "t1w", (1, 32, 32, 32)),
}
"""By estimator its options, its input, and that one's shape."""
PATIENTS = 80


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and processor's time."""
    began, began_cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - began, time.process_time() - began_cpu


def bare(
    phase: Any, weights: Any, kind: str, images: NDArray[np.float32], targets: dict[str, NDArray[np.float64]]
) -> None:
    """One epoch as a script of its own would do it."""
    module = phase.build(seed=0).train()
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    pictures = torch.from_numpy(images)
    columns = {name: torch.from_numpy(column.astype(np.float32)) for name, column in targets.items()}
    generator = torch.Generator().manual_seed(1)
    for rows in torch.randperm(len(images), generator=generator).split(BATCH):
        drawn = {name: column[rows] for name, column in columns.items()}
        batch = phase.training_batch(
            Batch({kind: pictures[rows]}, {kind: torch.ones(len(rows), dtype=torch.bool)}, drawn),
            generator=generator,
        )
        optimiser.zero_grad(set_to_none=True)
        loss = phase.loss(phase.output(module, batch), batch)
        loss.backward()
        optimiser.step()


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    repeats: int = parser.parse_args().repeats
    torch.set_num_threads(1)
    for name, (options, kind, shape) in NETWORKS.items():
        estimator: Any = estimators.make(name, options)
        phase: Any = next(each for each in estimator.phases if hasattr(each, "loss"))
        images = np.random.default_rng(1).normal(size=(PATIENTS, *shape)).astype(np.float32)
        targets = {"age_years": np.linspace(20, 80, PATIENTS)}
        weights = phase.start({}, seed=0)
        training = Training(rounds=1, batch_size=BATCH, learning_rate=1e-3)
        ours = partial(
            train_locally,
            phase,
            weights,
            Samples({kind: images}),
            targets,
            training=training,
            round_number=1,
            rng_seed=1,
            threads=1,
            device="cpu",
        )
        theirs = partial(bare, phase, weights, kind, images, targets)
        ours()  # what a first call allocates
        theirs()
        both = [(timed(ours), timed(theirs)) for _ in range(repeats)]
        seconds = np.median(np.array(both), axis=0)  # (ours and theirs, wall clock and processor)
        by_clock, by_cpu = seconds[1] / seconds[0]
        print(f"{name} {shape}, {PATIENTS} patients, batches of {BATCH}, {repeats} epochs, {seconds[0, 0]:.2f} s each:")
        print(f"  {by_clock:.2f} of the bare loop's rate, {by_cpu:.2f} by the processor's time (wanted {WANTED})")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
