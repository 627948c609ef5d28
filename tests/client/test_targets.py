"""Columns that an estimator learns from, as a site has them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedage.client.compute.model import targets_of
from fedage.client.disclosure.guard import Withheld
from fedage.common.estimators import make
from fedage.common.estimators.base import AGE, Estimator, Target
from fedage.common.statistics.cohort import Cohort

ROWS = np.arange(40)


def estimator_with(target: Target) -> Estimator:
    estimator = make("breast-4view", {"density_column": "birads"})
    estimator.targets = (AGE, target)
    return estimator


def of(values: list[float] | None, target: Target) -> np.ndarray:
    columns = {"age_years": np.linspace(40, 70, 40)}
    if values is not None:
        columns["birads"] = np.array(values)
    return targets_of(estimator_with(target), Cohort(columns), ROWS, minimum_count=5)["birads"]


DENSITY = Target(column="birads", optional=True, values=(1.0, 2.0, 3.0, 4.0))


def test_the_estimator_asks_for_its_density_so() -> None:
    targets = make("breast-4view", {"density_column": "birads"}).targets
    assert targets == (AGE, DENSITY)
    assert make("breast-4view", {"density": 0.0}).targets == (AGE,)


@pytest.mark.parametrize(
    "values", [[1.0, 2.0, 3.0, 4.0] * 10, [np.nan] * 20 + [1.0, 3.0] * 10, [2.0] * 20 + [4.0] * 20]
)
def test_values_that_are_allowed_are_learnt_from(values: list[float]) -> None:
    np.testing.assert_array_equal(of(values, DENSITY), values)


def test_a_site_without_the_column_knows_nothing_of_it() -> None:
    assert np.isnan(of(None, DENSITY)).all()
    with pytest.raises(Withheld, match="no column 'birads'"):
        of(None, dataclasses.replace(DENSITY, optional=False))


@pytest.mark.parametrize("odd", [0.0, 5.0, 2.5, -1.0, -9999.0])
def test_a_code_that_is_none_is_refused_and_not_read_as_another(odd: float) -> None:
    with pytest.raises(Withheld, match="values other than 1, 2, 3, 4; map them") as refused:
        of([1.0, 2.0, 3.0, 4.0] * 9 + [1.0, 2.0, 3.0, odd], DENSITY)
    assert refused.value.rule == "column-values"


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ([1.0] + [2.0] * 20 + [3.0] * 19, {2.0: 0, 3.0: 0}),  # with 1 goes 3, and one class teaches nothing
        ([1.0] * 4 + [4.0] * 3 + [2.0] * 20 + [3.0] * 13, {2.0: 20, 3.0: 13}),
        ([1.0] * 2 + [4.0] * 6 + [2.0] * 20 + [3.0] * 12, {2.0: 20, 3.0: 12}),  # 2 alone would be few unknown
        ([1.0] * 3 + [np.nan] * 7 + [2.0] * 15 + [3.0] * 15, {2.0: 15, 3.0: 15}),
        ([1.0] * 5 + [2.0] * 15 + [3.0] * 15 + [4.0] * 5, {1.0: 5, 2.0: 15, 3.0: 15, 4.0: 5}),
    ],
)
def test_nobody_has_a_class_of_a_few(values: list[float], left: dict[float, int]) -> None:
    found = of(values, DENSITY)
    for value, count in left.items():
        assert np.count_nonzero(found == value) == count
    known = int(np.isfinite(found).sum())
    assert known == sum(left.values())
    assert known in (0, 40) or 40 - known >= 5


def test_numbers_have_no_classes() -> None:
    lung_volumes = Target(column="birads", optional=True)
    values = np.linspace(2, 6, 40).tolist()
    np.testing.assert_array_equal(of(values, lung_volumes), values)
