"""Features whose mean is large against their SD: exact in 64 bits, refused by name where 32 bits would blur them."""

from __future__ import annotations

from typing import Any

import pytest

from fedage.common.errors import FedAgeError
from fedage.common.estimators.table_ridge import TableRidge, TableRidgeOptions
from tests.common.estimators.test_table_mlp import FEATURES, mlp, prepared, table
from tests.of_estimators import predict_years, weights_from

LARGE = {"mean 1e9, SD 10": (1e9, 10.0), "mean -3e8, SD 1": (-3e8, 1.0), "mean 1e6, SD 0.01": (1e6, 0.01)}
USUAL = {
    "a brain in mm³": (1.2e6, 1.1e5),
    "seconds since 1970": (1.6e9, 9e7),
    "a year": (2021.0, 3.0),
    "mean 1e9, SD 1e6": (1e9, 1e6),
}


def moved(mean: float, sd: float) -> tuple[Any, Any, Any]:
    """Features, the same with one of them moved and scaled, and ages."""
    x, age = table()
    other = x.copy()
    other[:, 0] = mean + sd * (x[:, 0] - 5.0)
    return x, other, age


@pytest.mark.parametrize("place", [*LARGE.values(), *USUAL.values()], ids=[*LARGE, *USUAL])
def test_the_ridge_predicts_the_same_wherever_a_feature_lies(place: tuple[float, float]) -> None:
    x, other, age = moved(*place)
    ridge = TableRidge(TableRidgeOptions(features=tuple(FEATURES), penalty=1.0))
    plain, far = (
        predict_years(ridge, weights_from(ridge, prepared(ridge, values, age)), values) for values in (x, other)
    )
    assert far == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("place", LARGE.values(), ids=LARGE.keys())
def test_the_network_refuses_a_feature_that_it_cannot_tell_apart(place: tuple[float, float]) -> None:
    _, other, age = moved(*place)
    network = mlp(penalty=1.0)
    with pytest.raises(FedAgeError, match=r"^'a': .*subtract a constant.*exclude.*table-ridge"):
        weights_from(network, prepared(network, other, age), seed=1)


@pytest.mark.parametrize("place", USUAL.values(), ids=USUAL.keys())
def test_the_network_takes_usual_units(place: tuple[float, float]) -> None:

    x, other, age = moved(*place)
    network = mlp(penalty=1.0)
    plain, far = (
        predict_years(network, weights_from(network, prepared(network, values, age), seed=1), values, device="cpu")
        for values in (x, other)
    )
    assert far == pytest.approx(plain, abs=0.02)
