"""`table-ridge`: age by ridge regression on a table's features, exact from sums wherever the patients are.

Missing values are replaced by medians, features standardised; see `table_preparation` and `_ridge` for what is solved.
Legend: n patients, p features; t̂ = intercept + Σ coefficient · (x − mean) / SD on the age scale, ŷ in years.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses._age_scale import AgeScale
from fedage.common.analyses._table_sums import standardise
from fedage.common.estimators._table import ROW_INPUT, Model, RidgePhase, TableOptions, vector
from fedage.common.estimators.base import (
    PREDICTED_YEARS,
    ROW,
    Arrays,
    Estimator,
    Input,
    Options,
    Output,
    Phase,
    Predictor,
    Standard,
)
from fedage.common.networks.arrays import ModelRefused
from fedage.common.statistic import FloatArray

_ROWS = 65536
_VECTORS = ("medians", "means", "sds", "coefficients")


class TableRidgeOptions(TableOptions):
    """`[estimator.options]` of `table-ridge`."""


class TableRidge(Estimator):
    """Ridge regression on a table; see the module's docstring."""

    name: ClassVar[str] = "table-ridge"
    title: ClassVar[str] = "Table, ridge regression, exact from sums"
    Options: ClassVar[type[Options]] = TableRidgeOptions
    trained_in_rounds: ClassVar[bool] = False
    prediction_batch: ClassVar[int] = _ROWS
    inputs: tuple[Input, ...] = (ROW_INPUT,)

    def __init__(self, options: TableRidgeOptions, features: tuple[str, ...] | None = None) -> None:
        self.options: TableRidgeOptions = options
        self._features = features

    def for_table(self, columns: Sequence[str]) -> Self:
        """A copy that knows its features by name. Raises `FeaturesMissing`."""
        return type(self)(self.options, self.options.resolve(columns))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Predicted age, within the bounds of its scale."""
        return (self.options.age_output,)

    @property
    def row_columns(self) -> tuple[str, ...]:
        """The features' columns, and the sex's."""
        return self.options.row_columns(self._features)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """A row (p,)."""
        return {ROW: (len(self.row_columns),)}

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One exact phase."""
        return (RidgePhase(self.row_columns, self.options, lambda result, _before, _seed: ridge_arrays(result)),)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:  # noqa: ARG002 - numpy
        """Predicted ages of raw rows, NaN where missing. Raises `ModelRefused`."""
        check_ridge(arrays, len(self.row_columns))
        scale = self.options.scale
        return lambda samples: {PREDICTED_YEARS: ridge_years(arrays, np.asarray(samples[ROW]), scale)}

    def standard(self, arrays: Arrays) -> Standard:
        """Means and SDs of the model."""
        sds = np.asarray(arrays["sds"], dtype=np.float64)
        return Standard(
            medians=np.asarray(arrays["medians"], dtype=np.float64),
            means=np.asarray(arrays["means"], dtype=np.float64),
            units=np.divide(1.0, sds, out=np.zeros_like(sds), where=sds > 0),
        )


def ridge_arrays(result: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """A preparation's ridge regression as float64 arrays: `medians`, `means`, `sds`, `coefficients` (p,) and
    `intercept` (1,).
    """
    model: Model = result["model"]
    arrays: dict[str, NDArray[Any]] = {name: vector(model, name) for name in _VECTORS}
    arrays["intercept"] = np.array([model["intercept"]], dtype=np.float64)
    return arrays


def check_ridge(arrays: Arrays, p: int) -> None:
    """Refuse arrays that are not those of a ridge regression on p features.

    Raises
    ------
    ModelRefused
    """
    shapes = {**dict.fromkeys(_VECTORS, (p,)), "intercept": (1,)}
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise ModelRefused(f"weights must be {', '.join(shapes)} of {p} features; the campaign's options differ")
    if not all(np.isfinite(array).all() for array in arrays.values()) or np.any(arrays["sds"] < 0):
        raise ModelRefused("weights must be finite, and sds not negative")


def ridge_years(arrays: Arrays, rows: NDArray[Any], scale: AgeScale) -> FloatArray:
    """Predicted ages (n,) in years of raw rows (n, p), NaN where missing."""
    x = np.asarray(rows, dtype=np.float64)
    known = np.where(np.isfinite(x), x, arrays["medians"])
    z = standardise(known, arrays["means"], arrays["sds"])
    years: FloatArray = scale.to_years(arrays["intercept"][0] + z @ arrays["coefficients"])
    return years
