"""Patients with features for tests of the preparation of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedage.common.analyses.base import Done, Outcome
from fedage.common.analyses.preparation.table_preparation import INNER_PLACE
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray

P, N = 7, 90


COLUMNS = tuple(f"feature:f{j}" for j in range(P))


def patients(seed: int = 0, n: int = N) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    age = rng.uniform(6, 60, n)
    x = rng.normal(size=(n, P)) * 10.0 ** np.arange(-3, 4) + 1000 * rng.random(P)
    x[:, 0] -= 2e-3 * np.log(age)
    x[:, 5] += 300 * np.log(age)
    return x, age


def cohort(x: FloatArray, age: FloatArray, **extra: FloatArray) -> Cohort:
    features = {name: x[:, j] for j, name in enumerate(COLUMNS)}
    own = {"age_years": age, "is_train": np.ones(len(age)), INNER_PLACE: place(age)}
    return Cohort({**own, **features, **extra})


def place(age: FloatArray) -> FloatArray:
    """Somewhere in [0, 1) that is the patient's own."""
    return np.nan_to_num(age) * 7919.17 % 1.0


def result(outcome: Outcome) -> Mapping[str, Any]:
    assert isinstance(outcome, Done), outcome
    return outcome.result


def closed_form(x: FloatArray, age: FloatArray, penalty: float) -> tuple[FloatArray, float]:
    """Ridge by least squares on the rows themselves, augmented by √λ I."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    t = np.log(age)
    rows = np.vstack([z, np.sqrt(penalty) * np.eye(x.shape[1])])
    beta = np.linalg.lstsq(rows, np.concatenate([t - t.mean(), np.zeros(x.shape[1])]), rcond=None)[0]
    return beta, float(t.mean())
