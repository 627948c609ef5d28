"""`trial-pls`: partial least squares with one component on a table, exact from sums, and no ridge regression.

Legend: p features standardised as z, R (p, p) their correlations, r (p,) theirs with age; w = r,
ŷ = mean + SD · b · z·w with b = w·r / wᵀRw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fedage.common.estimators.base import (
    PREDICTED_YEARS,
    ROW,
    Arrays,
    Estimator,
    Input,
    Options,
    Phase,
    Predictor,
    Samples,
    Standard,
)
from fedage.common.estimators.ridge import AgeScale, RidgePhase, TableOptions
from fedage.common.networks.arrays import ModelRefused


class PartialLeastSquares(Estimator):
    """One component; see the module's docstring."""

    name: ClassVar[str] = "trial-pls"
    title: ClassVar[str] = "Table, partial least squares with one component"
    Options: ClassVar[type[Options]] = TableOptions
    trained_in_rounds: ClassVar[bool] = False
    prediction_batch: ClassVar[int] = 4096
    inputs: tuple[Input, ...] = (Input(name=ROW, rank=1),)

    def __init__(self, options: TableOptions, features: tuple[str, ...] | None = None) -> None:
        self.options: TableOptions = options
        self._features = features

    def for_table(self, columns: Sequence[str]) -> Self:
        return type(self)(self.options, self.options.resolve(columns))

    @property
    def row_columns(self) -> tuple[str, ...]:
        return self.options.row_columns(self._features)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {ROW: (len(self.row_columns),)}

    @property
    def phases(self) -> tuple[Phase, ...]:
        solved = RidgePhase(
            self.row_columns,
            lambda result, _before, _seed: component(result),
            scale=AgeScale("linear"),
            penalty=1.0,
            correlations=True,
            name="components",
        )
        return (solved,)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        p = len(self.row_columns)
        shapes = {"medians": (p,), "means": (p,), "sds": (p,), "weights": (p,), "line": (2,)}
        if {name: array.shape for name, array in arrays.items()} != shapes:
            raise ModelRefused("the arrays are not those of one component")

        def predict(samples: Samples) -> dict[str, NDArray[np.float64]]:
            x = np.asarray(samples[ROW], dtype=np.float64)
            known = np.where(np.isfinite(x), x, arrays["medians"])
            z = (known - arrays["means"]) * self.standard(arrays).units
            return {PREDICTED_YEARS: arrays["line"][0] + arrays["line"][1] * (z @ arrays["weights"])}

        return predict

    def standard(self, arrays: Arrays) -> Standard:
        sds = np.asarray(arrays["sds"], dtype=np.float64)
        return Standard(
            medians=np.asarray(arrays["medians"]),
            means=np.asarray(arrays["means"]),
            units=np.divide(1.0, sds, out=np.zeros_like(sds), where=sds > 0),
        )


def component(result: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The model from the sums' correlations."""
    model = result["model"]
    r, inner = np.array(model["age_correlations"]), np.array(model["correlations"])
    weights = r / np.linalg.norm(r)
    slope = float(weights @ r) / float(weights @ inner @ weights)
    return {
        **{name: np.array(model[name], dtype=np.float64) for name in ("medians", "means", "sds")},
        "weights": weights,
        "line": np.array([model["intercept"], model["age_sd"] * slope]),
    }
