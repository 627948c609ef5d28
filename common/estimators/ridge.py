"""An exact phase that any estimator can have: standardisation and ridge regression of age on columns, and its model.

The columns are those of a row of the sites' tables, or are computed by the model of the phases before, for example an
embedding. See `table_preparation` and `_ridge` for what is solved. Public to other packages.

Legend: n patients, p columns; t̂ = intercept + Σ coefficient · (x − mean) / SD on the age scale, ŷ in years.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.preparation.age_scale import AgeScale as AgeScale
from fedage.common.analyses.preparation.table_preparation import NAME, TablePreparation
from fedage.common.analyses.preparation.table_sums import standardise
from fedage.common.estimators.base import ROW, Arrays, Conditions, Input, Predictor
from fedage.common.estimators.table import FEATURE as FEATURE
from fedage.common.estimators.table import TableOptions as TableOptions
from fedage.common.networks.arrays import ModelRefused
from fedage.common.statistics.statistic import FloatArray

PREPARATION = NAME
"""The registered step whose result makes a table's model."""
ROW_INPUT = Input(name=ROW, rank=1)
Model = Mapping[str, Any]
"""The `model` of a preparation's result."""
_VECTORS = ("medians", "means", "sds", "coefficients")


@dataclass(frozen=True)
class RidgePhase:
    """Medians, means, SDs and the ridge regression of age on columns of the cohort, as `TablePreparation` finds them.

    Parameters
    ----------
    cohort_columns
        The columns, in the model's order.
    finish
        The whole model from the analysis' result, the model before and the seed.
    scale
        Of age.
    penalty, inner_folds
        λ on standardised columns, or "auto": by cross-validation over so many inner folds.
    products
        Whether a ridge regression is solved; else means and SDs only.
    correlations
        Whether the result has correlations, for another solution than the ridge.
    computed
        What computes the columns from the model before; None where they are in the sites' tables.
    by_site
        Whether the result has a discriminant of the sites, where the file names them (`site_moments`).
    """

    cohort_columns: tuple[str, ...]
    finish: Callable[[Mapping[str, Any], Arrays, int], dict[str, NDArray[Any]]]
    _: KW_ONLY
    scale: AgeScale = field(default_factory=AgeScale)
    penalty: Literal["auto"] | float = "auto"
    inner_folds: int = 5
    products: bool = True
    correlations: bool = False
    computed: Callable[[Arrays, str], Predictor] | None = None
    by_site: bool = False
    name: str = PREPARATION

    def analysis(self, conditions: Conditions) -> TablePreparation:
        """The sums."""
        return TablePreparation(
            self.cohort_columns,
            self.scale,
            penalty=self.penalty,
            folds=self.inner_folds,
            products=self.products,
            correlations=self.correlations,
            minimum_count=conditions.minimum_count,
            healthy_only=conditions.healthy_only,
            cross_fitted=conditions.cross_fitted,
            influence=conditions.influence,
            sites=conditions.sites if self.by_site else (),
            site=conditions.site,
            name=self.name,
        )

    def solve(self, result: Mapping[str, Any], before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:
        """The whole model after this phase."""
        return self.finish(result, before, seed)

    def columns(self, before: Arrays, *, device: str) -> Predictor | None:
        """What computes the columns."""
        return None if self.computed is None else self.computed(before, device)


def vector(model: Model, name: str) -> NDArray[np.float64]:
    """One of a model's arrays."""
    return np.array(model[name], dtype=np.float64)


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
