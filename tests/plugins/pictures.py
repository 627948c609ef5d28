"""Campaigns of the trial package's estimators, and sites in memory with small pictures whose disc grows with age."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.common.estimators.base import Samples
from fedage.common.statistics.cohort import Cohort
from tests.machinery import MemorySite

HEAD = """
[campaign]
name = "trial"
purpose = "Try an estimator that another package brought"
seed = 3
sites = ["a", "b", "c"]
wait_s = 1
approval_wait_s = 1
[privacy]
minimum_count = 5
[estimator]
name = "{name}"
"""
TABLE = HEAD + '[estimator.options]\nfeatures = ["*"]\n[table]\nage = "age"\n'
TRAINED = (
    HEAD + "[training]\nquorum = 2\nround_deadline_s = 1\nlearning_rate = 0.01\nrounds = {rounds}\nlocal_epochs = 3\n"
)
SIDE = 16


def cohort_of(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    age = rng.uniform(40, 80, count)
    return {"age_years": age, "is_male": np.arange(count) % 2.0}


def pictures(age: np.ndarray, seed: int) -> np.ndarray:
    """(n, 1, S, S): a disc that grows with age, of mean 0 and SD 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE] - (SIDE - 1) / 2
    radius = 2 + (age - 40) / 10
    disc = 1 / (1 + np.exp(2 * (np.hypot(x, y)[None] - radius[:, None, None])))
    noisy = disc + 0.05 * rng.normal(size=disc.shape)
    scaled = (noisy - noisy.mean(axis=(1, 2), keepdims=True)) / noisy.std(axis=(1, 2), keepdims=True)
    return scaled[:, None].astype(np.float32)


def site_with(name: str, folder: Path, columns: dict[str, np.ndarray], samples: Samples, seed: int) -> MemorySite:
    unit = np.random.default_rng(1000 + seed).random(len(columns["age_years"]))
    return MemorySite(name, SiteCohort(cohort=Cohort(columns), samples=samples), folder / "sites", unit=unit)
