"""`table-ridge`: age by ridge regression on a table's features, exact from sums wherever the patients are.

Missing values are replaced by medians, features standardised; see `table_preparation` and `_ridge` for what is solved.
Legend: n patients, p features; t̂ = intercept + Σ coefficient · (x − mean) / SD on the age scale, ŷ in years.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedage.common.estimators._rows import RowEstimator
from fedage.common.estimators.base import (
    PREDICTED_YEARS,
    ROW,
    Arrays,
    Options,
    Phase,
    Predictor,
    Standard,
)
from fedage.common.estimators.ridge import RidgePhase, TableOptions, check_ridge, ridge_arrays, ridge_years

_ROWS = 65536


class TableRidgeOptions(TableOptions):
    """`[estimator.options]` of `table-ridge`."""


class TableRidge(RowEstimator[TableRidgeOptions]):
    """Ridge regression on a table; see the module's docstring."""

    name: ClassVar[str] = "table-ridge"
    title: ClassVar[str] = "Table, ridge regression, exact from sums"
    Options: ClassVar[type[Options]] = TableRidgeOptions
    trained_in_rounds: ClassVar[bool] = False
    prediction_batch: ClassVar[int] = _ROWS

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One exact phase."""
        ridge = RidgePhase(
            self.row_columns,
            lambda result, _before, _seed: ridge_arrays(result),
            scale=self.options.scale,
            penalty=self.options.penalty,
            inner_folds=self.options.inner_folds,
        )
        return (ridge,)

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
