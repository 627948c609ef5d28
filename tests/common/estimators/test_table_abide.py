"""Both table estimators on real measurements of ten real hospitals (ABIDE I controls): what a campaign may expect.

Skipped where the data are not beside the repository. The figures of three seeds take minutes: `pytest -m slow -s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedage.common.analyses.preparation.table_preparation import INNER_PLACE
from fedage.common.campaign.types import Training
from fedage.common.estimators.table_mlp import TableMLP, TableMLPOptions
from fedage.common.estimators.table_ridge import TableRidge, TableRidgeOptions
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray
from tests import of_estimators
from tests.of_estimators import predict_years, train_locally, weights_from

DATA = Path(__file__).parents[3] / "../shared/data/abide1/abide1-freesurfer.csv"
pytestmark = pytest.mark.skipif(not DATA.is_file(), reason="../shared/data/abide1 is not beside the repository")

FOLDS, SEEDS, MINIMUM = 5, (0, 1, 2), 10
OTHER = ("FILE_ID", "SITE", "AGE_AT_SCAN", "SEX", "FIQ", "DX_GROUP")
OPTIONS: dict[str, Any] = {"features": ["*"], "exclude": ["FIQ"], "age_offset_years": -3.0}
# One full batch of plain gradient a round: federated averaging then is gradient descent on all patients.
TRAINING = Training(
    rounds=60,
    local_epochs=1,
    batch_size=4096,
    optimiser="sgd",
    learning_rate=0.2,
    final_learning_rate_fraction=0.1,
)


@dataclass(frozen=True)
class Controls:
    """Raw features (n, p), ages and sites (n,) of the controls."""

    names: tuple[str, ...]
    x: FloatArray
    age: FloatArray
    site: np.ndarray

    @property
    def place(self) -> FloatArray:
        """Where each patient's hash might lie."""
        return np.random.default_rng(11).random(len(self.age))

    def cohorts(self, train: np.ndarray, *, pooled: bool = False) -> dict[str, Cohort]:
        everybody = np.zeros(len(self.age), dtype=int) if pooled else self.site
        found = {}
        for site in np.unique(everybody):
            rows = everybody == site
            columns = {f"feature:{name}": self.x[rows, j] for j, name in enumerate(self.names)}
            columns |= {"age_years": self.age[rows], "is_train": train[rows].astype(float)}
            columns[INNER_PLACE] = self.place[rows]
            found[str(site)] = Cohort(columns)
        return found


@pytest.fixture(scope="module")
def controls() -> Controls:
    table = pd.read_csv(DATA)
    table = table[table.DX_GROUP == -1]
    names = TableRidgeOptions.model_validate(OPTIONS).resolve([name for name in table.columns if name not in OTHER])
    x = table[list(names)].to_numpy(dtype=float)
    return Controls(names, x, table.AGE_AT_SCAN.to_numpy(dtype=float), table.SITE.to_numpy())


def ridge(controls: Controls, **options: Any) -> TableRidge:
    return TableRidge(TableRidgeOptions.model_validate({**OPTIONS, **options}), controls.names)


def prepared(estimator: TableRidge | TableMLP, sites: Mapping[str, Cohort]) -> dict[str, Any]:
    return of_estimators.prepared(estimator, sites, minimum_count=MINIMUM)


def in_training(controls: Controls, seed: int, fold: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).permutation(len(controls.age)) % FOLDS != fold)


def test_one_fold_is_the_pooled_closed_form(controls: Controls) -> None:
    train = in_training(controls, seed=0, fold=0)
    federated = ridge(controls, penalty=450.0)
    weights = weights_from(federated, prepared(federated, controls.cohorts(train)))
    x, t = controls.x[train], np.log(controls.age[train] - 3)
    z = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    # The dual form: another formula, another matrix.
    beta = z.T @ np.linalg.solve(z @ z.T + 450.0 * np.eye(len(z)), t - t.mean())
    np.testing.assert_allclose(weights["coefficients"], beta, atol=1e-10)
    held_out = (controls.x[~train] - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    expected = np.exp(t.mean() + held_out @ beta) + 3
    np.testing.assert_allclose(predict_years(federated, weights, controls.x[~train]), expected, atol=1e-8)


def averaged(estimator: TableMLP, start: Mapping[str, Any], controls: Controls, groups: list[Any], seed: int) -> Any:
    """Plain federated averaging; with one group it is the pooled run."""
    weights = dict(start)
    for number in range(1, TRAINING.rounds + 1):
        updates = [
            train_locally(
                estimator,
                weights,
                controls.x[rows],
                controls.age[rows],
                training=TRAINING,
                round_number=number,
                rng_seed=seed * 10**6 + number * 100 + k,
                threads=1,
                device="cpu",
            )
            for k, rows in enumerate(groups)
        ]
        n = sum(update.n for update in updates)
        weights = {
            name: sum(update.n / n * update.weights[name].astype(np.float64) for update in updates).astype(np.float32)
            for name in weights
        }
    return weights


@pytest.mark.slow
def test_five_folds_three_seeds(controls: Controls) -> None:
    age, sites = controls.age, np.unique(controls.site)
    ways = ("pooled mean", "site's mean", "ridge", "mlp", "mlp pooled")
    predicted = {way: np.zeros((len(SEEDS), len(age))) for way in ways}
    for s, seed in enumerate(SEEDS):
        for fold in range(FOLDS):
            train = in_training(controls, seed, fold)
            held_out = ~train
            exact = ridge(controls)
            result = prepared(exact, controls.cohorts(train))
            predicted["ridge"][s, held_out] = predict_years(exact, weights_from(exact, result), controls.x[held_out])
            same = ridge(controls, penalty=result["penalty"])
            pooled = weights_from(same, prepared(same, controls.cohorts(train, pooled=True)))
            again = predict_years(same, pooled, controls.x[held_out])
            np.testing.assert_allclose(predicted["ridge"][s, held_out], again, atol=1e-8)

            network = TableMLP(TableMLPOptions.model_validate(OPTIONS), controls.names)
            start = weights_from(network, result, seed=seed)
            apart = [np.flatnonzero(train & (controls.site == site)) for site in sites]
            for way, groups in (("mlp", apart), ("mlp pooled", [np.flatnonzero(train)])):
                weights = averaged(network, start, controls, groups, seed * FOLDS + fold)
                predicted[way][s, held_out] = predict_years(network, weights, controls.x[held_out], device="cpu")
            predicted["pooled mean"][s, held_out] = age[train].mean()
            for site in sites:
                here = controls.site == site
                predicted["site's mean"][s, held_out & here] = age[train & here].mean()
    mae = {way: np.abs(values - age).mean() for way, values in predicted.items()}
    by_site = {
        way: {site: np.abs(values - age)[:, controls.site == site].mean() for site in sites}
        for way, values in predicted.items()
    }
    print()
    print(pd.DataFrame(by_site).assign(n=[int((controls.site == site).sum()) for site in sites]).round(2))
    print(
        {
            way: (round(float(mae[way]), 3), np.abs(values - age).mean(axis=1).round(3))
            for way, values in predicted.items()
        }
    )
    assert mae["ridge"] <= 2.61
    assert mae["mlp"] <= 1.05 * mae["mlp pooled"]
    assert mae["mlp"] <= 1.005 * mae["ridge"]
    for way in ("ridge", "mlp"):
        assert all(by_site[way][site] < by_site["pooled mean"][site] for site in sites)
