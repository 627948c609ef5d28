"""Several threads of one agent in one campaign: what they keep account of comes out as if they had taken turns."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from fedage.client.compute import predictions
from fedage.client.consent.accounts.thresholds import MOST_VALUES, Thresholds
from fedage.client.disclosure.guard import Withheld
from fedage.common.analyses.evaluation.metrics import Evaluation
from fedage.common.analyses.preparation.table_preparation import MOST_ITERATES, TablePreparation
from fedage.common.statistics.cohort import Cohort

THREADS, MINIMUM = 8, 5
TEST = Evaluation("evaluation:test", "is_test")


def at_once(ask: Callable[[int], None]) -> list[str]:
    """What each of `THREADS` threads that begin together gets: "answered", or the rule that refuses it."""
    together = Barrier(THREADS)

    def one(number: int) -> str:
        together.wait(timeout=30)
        try:
            ask(number)
        except Withheld as refusal:
            return refusal.rule
        return "answered"

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(THREADS)))


def cohort(n: int = 60, *, seed: int = 0) -> Cohort:
    age = np.sort(np.random.default_rng(seed).uniform(40, 80, n))
    ones = np.ones(n)
    return Cohort({"age_years": age, "predicted_years": age + 1, "is_test": ones, "is_train": ones, "feature:f": age})


def account(folder: Path) -> Thresholds:
    return Thresholds(folder, run="r1", minimum_count=MINIMUM)


@pytest.mark.parametrize("seed", range(5))
def test_of_values_one_patient_apart_one_is_answered(tmp_path: Path, seed: int) -> None:
    patients = cohort(seed=seed)
    ages = patients["age_years"]
    values = [float(ages[k : k + 2].mean()) for k in range(20, 20 + THREADS)]
    told = at_once(lambda k: account(tmp_path).require(TEST, patients, {"mean_age": np.asarray(values[k])}))
    answered = [value for value, answer in zip(values, told, strict=True) if answer == "answered"]
    assert 1 <= len(answered) <= 2
    assert set(told) == {"answered", "iterate"}
    counts = [np.count_nonzero((ages > low) & (ages < high)) for low in answered for high in answered if low < high]
    assert all(count >= MINIMUM for count in counts)


def test_of_groups_of_patients_one_is_compared_and_of_values_a_few(tmp_path: Path) -> None:
    patients = cohort()
    parts = [patients.with_columns(is_test=(np.arange(60) % THREADS != k).astype(float)) for k in range(THREADS)]
    told = at_once(lambda k: account(tmp_path).require(TEST, parts[k], {"mean_age": np.asarray(60.0)}))
    assert sorted(told) == ["answered"] + ["iterate"] * (THREADS - 1)

    (tmp_path / "values").mkdir()
    means = np.linspace(41, 79, THREADS)
    told = at_once(lambda k: account(tmp_path / "values").require(TEST, patients, {"mean_age": means[k]}))
    assert told.count("answered") <= MOST_VALUES


def test_a_run_has_one_line_and_a_preparation_few_centres(tmp_path: Path) -> None:
    told = at_once(lambda k: account(tmp_path).require_line(slope=0.9, intercept=float(k)))
    assert sorted(told) == ["answered"] + ["bias-line"] * (THREADS - 1)

    analysis, patients = TablePreparation(("feature:f",), penalty=1.0), cohort()

    def centre(value: float) -> dict[str, np.ndarray]:
        return {"centre": np.full(1, value), "spread": np.ones(1), "error": np.ones(1)}

    told = at_once(lambda k: account(tmp_path).require_counted(analysis, patients, centre(k)))
    told += at_once(lambda k: account(tmp_path).require_counted(analysis, patients, centre(100 + k)))
    assert told.count("answered") == MOST_ITERATES
    again = at_once(lambda k: account(tmp_path).require_counted(analysis, patients, centre(k)))
    assert again == told[:THREADS], "an iterate that was answered stays answered"


@pytest.mark.parametrize("same_model", [True, False])
def test_predictions_are_one_models_and_whole(tmp_path: Path, same_model: bool) -> None:
    n = 20_000
    patients = Cohort({"age_years": np.full(n, 60.0)})

    def predict(k: int) -> None:
        model = "m" if same_model else f"m{k}"
        if not predictions.are_kept(tmp_path, run="r1", model=model, snapshot="s"):
            made = np.full(n, 0.0 if same_model else float(k))
            predictions.keep(tmp_path, run="r1", columns={"predicted_years": made}, model=model, snapshot="s")
        read = predictions.with_predictions(patients, tmp_path, run="r1", snapshot="s")["predicted_years"]
        assert np.all(read == read[0])
        assert same_model or read[0] == k

    told = at_once(predict)
    assert told.count("answered") == (THREADS if same_model else 1)
    assert set(told) <= {"answered", "already-predicted"}
    assert [path.name for path in tmp_path.iterdir()] == ["predictions-r1.npz"]
