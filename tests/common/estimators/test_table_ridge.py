"""Options and features of table estimators, and the ridge regression's model and predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedage.common.estimators.table import FeaturesMissing
from fedage.common.estimators.table_ridge import TableRidge, TableRidgeOptions
from fedage.common.networks.arrays import ModelRefused
from fedage.common.statistics.cohort import Cohort
from tests.of_estimators import predict_years, prepared, weights_from

COLUMNS = ("FIQ", "Left-Hippocampus", "lh_a_ThickAvg", "lh_a_ThickStd", "rh_a_ThickAvg")


def options(**values: Any) -> TableRidgeOptions:
    return TableRidgeOptions.model_validate({"features": ["*"], **values})


def test_features_by_name_pattern_and_exclusion() -> None:
    assert options(features=["*_ThickAvg"]).resolve(COLUMNS) == ("lh_a_ThickAvg", "rh_a_ThickAvg")
    assert options(features=["rh_*", "FIQ"]).resolve(COLUMNS) == ("FIQ", "rh_a_ThickAvg")
    assert options(exclude=["FIQ", "lh_*"]).resolve(COLUMNS) == ("Left-Hippocampus", "rh_a_ThickAvg")


@pytest.mark.parametrize("wanted", ["hippocampus", "*_Volume"])
def test_a_feature_that_is_not_there_is_named_with_those_that_are(wanted: str) -> None:
    with pytest.raises(FeaturesMissing, match=r"Left-Hippocampus") as raised:
        options(features=[wanted]).resolve(COLUMNS)
    assert wanted in str(raised.value)


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(FeaturesMissing, match="exclude"):
        options(exclude=["*"]).resolve(COLUMNS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": []},
        {"penalty": 0.0},
        {"penalty": "best"},
        {"penalty": 3.0, "inner_folds": 4},
        {"age_scale": "linear", "age_offset_years": 1.0},
        {"lambda": 1.0},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        options(**wrong)


def test_columns_need_no_table_when_features_are_plain_names() -> None:
    ridge = TableRidge(options(features=["b", "a"], add_sex=True))
    assert ridge.row_columns == ("feature:a", "feature:b", "is_male")
    assert ridge.shapes() == {"row": (3,)}
    with pytest.raises(RuntimeError, match="for_table"):
        _ = TableRidge(options()).row_columns


def test_predictions_by_hand() -> None:
    ridge = TableRidge(options(features=["a", "b", "c"], age_offset_years=1.0))
    weights = {
        "medians": np.array([2.0, 0.0, 5.0]),
        "means": np.array([1.0, 0.0, 5.0]),
        "sds": np.array([2.0, 0.5, 0.0]),
        "coefficients": np.array([0.2, -0.1, 7.0]),
        "intercept": np.array([np.log(21.0)]),
    }
    samples = np.array([[1.0, 0.0, 9.0], [3.0, np.nan, np.nan], [np.inf, 0.5, 5.0], [1e9, 0.0, 5.0]])
    expected = np.exp(np.log(21.0) + np.array([0.0, 0.2, 0.2 * 0.5 - 0.1])) - 1.0
    predicted = predict_years(ridge, weights, samples)
    np.testing.assert_allclose(predicted[:3], expected, rtol=1e-14)
    assert predicted[3] == pytest.approx(130.0)


def test_weights_of_other_options_are_refused() -> None:
    ridge = TableRidge(options(features=["a", "b"]))
    good = {name: np.ones(2) for name in ("medians", "means", "sds", "coefficients")} | {"intercept": np.ones(1)}
    predict_years(ridge, good, np.zeros((1, 2)))
    for wrong in ({**good, "means": np.ones(3)}, {**good, "sds": -np.ones(2)}, {**good, "extra": np.ones(2)}):
        with pytest.raises(ModelRefused):
            predict_years(ridge, wrong, np.zeros((1, 2)))
    with pytest.raises(ModelRefused, match="finite"):
        predict_years(ridge, {**good, "medians": np.array([0.0, np.nan])}, np.zeros((1, 2)))


def test_a_linear_truth_is_found_across_sites() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    male = rng.integers(0, 2, 200).astype(float)
    age = 40 + 3 * x[:, 0] - 2 * x[:, 1] + 5 * male
    sites = {}
    for name, rows in {"a": slice(0, 60), "b": slice(60, 200)}.items():
        columns = {"age_years": age[rows], "is_male": male[rows], "is_train": np.ones(age[rows].size)}
        sites[name] = Cohort(columns | {f"feature:{f}": x[rows, j] for j, f in enumerate("abc")})
    ridge = TableRidge(options(features=["a", "b", "c"], age_scale="linear", add_sex=True, penalty=1e-6))
    weights = weights_from(ridge, prepared(ridge, sites, minimum_count=10))
    np.testing.assert_allclose(predict_years(ridge, weights, np.column_stack([x, male])), age, atol=1e-6)
