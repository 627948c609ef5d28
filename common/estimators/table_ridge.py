"""`table-ridge`: age by ridge regression on a table's features, exact from sums wherever the patients are.

Missing values are replaced by medians, features standardised; see `table_preparation` and `_ridge` for what is solved.
With `start = "stated"` and privacy for each patient, the sums have noise; see `noised_moments`.
Legend: n patients, p features; t̂ = intercept + Σ coefficient · (x − mean) / SD on the age scale, ŷ in years.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedage.common.analyses.exact import SumsNoise
from fedage.common.analyses.preparation.noised_moments import NAME, NoisedMoments
from fedage.common.estimators._rows import RowEstimator
from fedage.common.estimators.base import (
    PREDICTED_YEARS,
    ROW,
    Arrays,
    Conditions,
    Options,
    Phase,
    Predictor,
    Standard,
)
from fedage.common.estimators.ridge import RidgePhase, TableOptions, check_ridge, ridge_arrays, ridge_years
from fedage.common.estimators.stated import check_stated, stated_standard

_ROWS = 65536


class TableRidgeOptions(TableOptions):
    """`[estimator.options]` of `table-ridge`."""

    start: Literal["sums", "stated"] = Field(
        default="sums",
        description='what features are standardised by: sums of patients, or "stated" ranges and age_range_years, for '
        'privacy.mode = "sample"',
    )
    ranges: dict[str, Annotated[tuple[float, float], Field(strict=False)]] = Field(
        default_factory=dict, strict=False, description='with start = "stated": range of each feature, by pattern'
    )
    age_range_years: tuple[float, float] | None = Field(
        default=None, strict=False, description='with start = "stated": youngest and oldest age expected'
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        check_stated(
            is_stated=self.start == "stated",
            ranges=self.ranges,
            age_range_years=self.age_range_years,
            scale=self.scale,
        )
        if self.start == "stated" and "inner_folds" in self.model_fields_set:
            raise ValueError('inner_folds has no effect with start = "stated", where "auto" follows from the noise')
        return self


@dataclass(frozen=True)
class NoisedRidgePhase:
    """The ridge regression from moments with noise."""

    options: TableRidgeOptions
    cohort_columns: tuple[str, ...]
    name: str = NAME

    def analysis(self, conditions: Conditions) -> NoisedMoments:
        """The sums; without noise where it is only looked at."""
        options, ages = self.options, self.options.age_range_years
        assert ages is not None  # else the options would have been refused
        standard = stated_standard(self.cohort_columns, options.ranges, scale=options.scale, age_range_years=ages)
        noise = conditions.noise or SumsNoise(noise_multiplier=0.0, clip_norm=1.0)
        return NoisedMoments(
            self.cohort_columns,
            middles=tuple(standard["means"].tolist()),
            sds=tuple((1 / standard["units"]).tolist()),
            age_middle=float(standard["intercept"][0]),
            age_sd=float(standard["age_sd"][0]),
            clip_norm=noise.clip_norm,
            noise_multiplier=noise.noise_multiplier,
            scale=options.scale,
            penalty=options.penalty,
            healthy_only=conditions.healthy_only,
        )

    def solve(self, result: Mapping[str, Any], before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:  # noqa: ARG002
        """The arrays of the ridge regression."""
        return ridge_arrays(result)

    def columns(self, before: Arrays, *, device: str) -> Predictor | None:  # noqa: ARG002 - of the sites' tables
        """None: they are columns of the sites' tables."""
        return None


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
        if self.options.start == "stated":
            return (NoisedRidgePhase(self.options, self.row_columns),)
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
