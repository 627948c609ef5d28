"""`breast-4view` on phantom mammograms with other losses, paths and input sizes: MAE in years, pooled.

Run as `PYTHONPATH=. python tests/bench/bench_breast_parts.py [NAME ...]`. The exams of all three hospitals are trained
on together, each way with as many steps at one rate from the same beginning, as the paper compares its parts.
Differences of less than twice the standard error that is printed say nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedage.common.estimators import make
from tests.bench.bench_breast import OPTIONS, Exams, phantoms, train, years_of

NO_GAUSSIAN = {"draws": 0, "kl": 0.0, "triplet": 0.0}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "all losses, both paths, 64 × 32": {},
    "no Gaussian embedding, KL or triplet": NO_GAUSSIAN,
    "cross-entropy alone": {**NO_GAUSSIAN, "mean": 0.0, "variance": 0.0},
    "squared error alone": {**NO_GAUSSIAN, "cross_entropy": 0.0, "mean": 1.0, "variance": 0.0},
    "mean and variance, no cross-entropy": {**NO_GAUSSIAN, "cross_entropy": 0.0},
    "exam path alone": {"local_path": False},
    "local path alone": {"exam_path": False},
    "no density": {"density": 0.0},
    "128 × 64": {"image_height": 128, "image_width": 64},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ways", nargs="*", help="the first words of some of them; all else")
    parser.add_argument("--exams", type=int, default=150, help="trained on of each hospital")
    parser.add_argument("--tested", type=int, default=75, help="reported of each hospital")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    for name, parts in WAYS.items():
        if chosen.ways and not any(name.startswith(way) for way in chosen.ways):
            continue
        began = time.monotonic()
        estimator = make("breast-4view", {**OPTIONS, "width": chosen.width, **parts})
        sites = phantoms(estimator, exams=chosen.exams + chosen.tested, seed=chosen.seed)
        fit = Exams.of([one.at(slice(chosen.exams)) for one in sites.values()])
        test = Exams.of([one.at(slice(chosen.exams, None)) for one in sites.values()])
        # A round an epoch, so that the learning rate falls.
        weights = train(estimator, {"all": fit}, rounds=chosen.epochs, epochs=1, rate=chosen.rate)
        errors = np.abs(years_of(estimator, weights, test) - test.age_years)
        print(
            f"{name:40} {errors.mean():5.2f} ± {errors.std() / np.sqrt(len(errors)):.2f}, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
