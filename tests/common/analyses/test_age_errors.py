"""Errors by sex and by year of age, in months, with a percentage whose floor is stated."""

from __future__ import annotations

import numpy as np
import pytest

from fedage.common.analyses.base import Done, run_locally
from fedage.common.analyses.evaluation.age_errors import AgeErrors, ErrorsByGroup
from fedage.common.statistics.cohort import Cohort

EDGES = (0.0, 1.0, 2.0, 3.0)


def cohort(age, predicted, male) -> Cohort:
    age = np.asarray(age, dtype=float)
    return Cohort(
        {
            "age_years": age,
            "predicted_years": np.asarray(predicted, dtype=float),
            "is_male": np.asarray(male, dtype=float),
            "is_test": np.ones(len(age)),
        }
    )


def found(analysis, *cohorts):
    outcome = run_locally(analysis, {str(k): one for k, one in enumerate(cohorts)})
    assert isinstance(outcome, Done), outcome
    return AgeErrors.model_validate(outcome.result)


def groups(result) -> dict:
    return {one.group: one for one in result.groups}


def test_by_hand():
    analysis = ErrorsByGroup(EDGES, unit="months", mape_floor_years=0.5)
    result = groups(found(analysis, cohort([0.25, 1.5], [0.5, 1.0], [1, 0]), cohort([2.0], [2.5], [1])))
    assert result["all"].mae == pytest.approx(12 * (0.25 + 0.5 + 0.5) / 3)
    assert result["all"].mape == pytest.approx((0.25 / 0.5 + 0.5 / 1.5 + 0.25) / 3)
    assert result["male"].mean_error == pytest.approx(12 * 0.375)
    assert (result["female"].n, result["0-1"].n, result["2-3"].mae) == (1, 1, pytest.approx(6.0))


@pytest.mark.parametrize("floor", [0.1, 1.0, 5.0])
def test_younger_than_the_floor_counts_as_the_floor(floor):
    rng = np.random.default_rng(3)
    age = rng.uniform(0, 3, 60)
    predicted = np.clip(age + rng.normal(0, 0.3, 60), 0, None)
    result = groups(found(ErrorsByGroup(EDGES, mape_floor_years=floor), cohort(age, predicted, age > 1)))
    assert result["all"].mape == pytest.approx(np.mean(np.abs(predicted - age) / np.maximum(age, floor)))


@pytest.mark.parametrize(("men", "women", "unknown"), [(40, 5, 0), (30, 30, 4), (0, 40, 0), (25, 25, 12)])
def test_no_sex_is_told_that_gives_few_away_by_subtraction(men, women, unknown):
    n = men + women + unknown
    age = np.random.default_rng(1).uniform(0, 3, n)
    sex = np.concatenate([np.ones(men), np.zeros(women), np.full(unknown, np.nan)])
    result = groups(found(ErrorsByGroup(EDGES, minimum_count=10), cohort(age, age + 0.1, sex)))
    told = {sex: result[sex].n for sex in ("male", "female") if sex in result}
    hidden = n - sum(told.values())
    assert hidden == 0 or hidden >= 10
    assert all(count >= 10 for count in told.values())


@pytest.mark.parametrize("few", [1, 3, 9])
def test_bins_of_few_are_withheld_with_another_one(few):
    age = np.concatenate([np.full(few, 0.5), np.full(20, 1.5), np.full(30, 2.5)]) + np.linspace(0, 0.01, few + 50)
    result = found(ErrorsByGroup(EDGES, minimum_count=10), cohort(age, age + 0.1, age > 2))
    assert {one.group for one in result.groups if "-" in one.group} == {"2-3"}
    assert result.withheld == few + 20
