"""`table-ridge`: age by ridge regression on a table's features, exact from sums wherever the patients are.

Missing values are replaced by medians, features standardised; see `table_preparation` and `_ridge` for what is solved.
Legend: n patients, p features; t̂ = intercept + Σ coefficient · (x − mean) / SD on the age scale, ŷ in years.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses._table_sums import standardise
from fedage.common.estimators._table import Model, TableBase, TableOptions, vector
from fedage.common.estimators.base import Options
from fedage.common.statistic import FloatArray

Weights = dict[str, NDArray[Any]]
_ROWS = 65536
_VECTORS = ("medians", "means", "sds", "coefficients")


class WeightsRefused(ValueError):
    """Weights that are not those of this campaign's ridge regression."""


class TableRidgeOptions(TableOptions):
    """`[estimator.options]` of `table-ridge`."""


class TableRidge(TableBase):
    """Ridge regression on a table; see the module's docstring."""

    name: ClassVar[str] = "table-ridge"
    title: ClassVar[str] = "Table, ridge regression, exact from sums"
    Options: ClassVar[type[Options]] = TableRidgeOptions
    exact: ClassVar[bool] = True

    def weights_from(self, result: Mapping[str, Any], *, seed: int = 0) -> Weights:  # noqa: ARG002 - nothing is random
        """The model as float64 arrays: `medians`, `means`, `sds`, `coefficients` (p,), `intercept` (1,)."""
        model: Model = result["model"]
        weights: Weights = {name: vector(model, name) for name in _VECTORS}
        weights["intercept"] = np.array([model["intercept"]], dtype=np.float64)
        return weights

    def predict_years(self, weights: Mapping[str, NDArray[Any]], samples: NDArray[Any]) -> FloatArray:
        """Predicted ages (n,) in years of samples (n, p), raw, NaN where missing.

        Raises
        ------
        WeightsRefused
            If the weights are not those of these features.
        """
        p = len(self.columns)
        shapes = {**dict.fromkeys(_VECTORS, (p,)), "intercept": (1,)}
        if {name: array.shape for name, array in weights.items()} != shapes:
            raise WeightsRefused(f"weights must be {', '.join(shapes)} of {p} features; the campaign's options differ")
        if not all(np.isfinite(array).all() for array in weights.values()) or np.any(weights["sds"] < 0):
            raise WeightsRefused("weights must be finite, and sds not negative")
        ages = np.empty(len(samples))
        for start in range(0, len(samples), _ROWS):
            rows = slice(start, start + _ROWS)
            x = np.asarray(samples[rows], dtype=np.float64)
            known = np.where(np.isfinite(x), x, weights["medians"])
            z = standardise(known, weights["means"], weights["sds"])
            ages[rows] = self._table_options.scale.to_years(weights["intercept"][0] + z @ weights["coefficients"])
        return ages
