"""`age-ensemble`: the weighted mean of several models' predicted ages, its weights exact from sums over the sites.

Each member, for example `breast-4view` with one of five backbones, is a column of the sites' tables with the ages that
it predicts of exams that it was not trained on: held-out or out-of-fold ones, else a member that has learnt its
patients by heart gets all the weight. Weights are not negative and have the sum 1; they minimise the squared error over
the training patients of all sites, see `least_squares_weights`. There is no intercept: a member's bias is left to the
bias line. Mammo-AGE weights five backbones; how, its code does not say, so this is our own design.

A member that a patient lacks is left out of the mean, the others' weights made to have the sum 1 again; in the sums its
median stands for it. A column that the sites could not use has the weight 0.

Legend: K members, n patients, ŷ (n, K) in years.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedage.common.estimators._rows import RowEstimator
from fedage.common.estimators.base import PREDICTED_YEARS, ROW, Arrays, Options, Phase, Predictor, Standard
from fedage.common.estimators.ridge import RidgePhase, vector
from fedage.common.estimators.table import FeatureOptions
from fedage.common.networks.arrays import ModelRefused
from fedage.common.statistics.simplex import MOST_MEMBERS, least_squares_weights
from fedage.common.statistics.statistic import FloatArray

_FIXED = ("age_scale", "age_offset_years", "penalty", "inner_folds")
_VECTORS = ("medians", "means", "sds", "weights")


class AgeEnsembleOptions(FeatureOptions):
    """`[estimator.options]` of `age-ensemble`."""

    features: tuple[str, ...] = Field(
        min_length=1, strict=False, description='columns with the members\' predicted ages, or patterns such as "age_*"'
    )
    age_scale: Literal["log", "linear"] = Field(default="linear", description="stays linear: ages are averaged")
    penalty: Literal["auto"] | float = Field(default=1.0, description="without effect: weights are not shrunk")

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        given = sorted(self.model_fields_set.intersection(_FIXED))
        if given:
            raise ValueError(f"{', '.join(given)} has no effect on a mean of ages; remove it")
        return self


class AgeEnsemble(RowEstimator[AgeEnsembleOptions]):
    """A weighted mean of ages; see the module's docstring."""

    name: ClassVar[str] = "age-ensemble"
    title: ClassVar[str] = "Several models' ages, non-negative weights, exact from sums"
    Options: ClassVar[type[Options]] = AgeEnsembleOptions
    trained_in_rounds: ClassVar[bool] = False
    prediction_batch: ClassVar[int] = 65536

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One exact phase."""
        phase = RidgePhase(
            self.row_columns,
            lambda result, _before, _seed: ensemble_arrays(result),
            scale=self.options.scale,
            penalty=1.0,
            correlations=True,
        )
        return (phase,)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:  # noqa: ARG002 - numpy
        """Weighted means of raw rows, NaN where missing. Raises `ModelRefused`."""
        shape = (len(self.row_columns),)
        if {name: array.shape for name, array in arrays.items()} != dict.fromkeys(_VECTORS, shape):
            raise ModelRefused(f"weights must be {', '.join(_VECTORS)} of {shape[0]} members; the options differ")
        weights = np.asarray(arrays["weights"], dtype=np.float64)
        if not all(np.isfinite(array).all() for array in arrays.values()) or (weights < 0).any() or not weights.any():
            raise ModelRefused("weights must be finite and not negative, and one of them above 0")
        medians = np.asarray(arrays["medians"], dtype=np.float64)
        return lambda samples: {PREDICTED_YEARS: mean_years(np.asarray(samples[ROW]), weights, medians)}

    def standard(self, arrays: Arrays) -> Standard:
        """Medians, means and SDs of the members' ages."""
        medians, means, sds = (np.asarray(arrays[name], dtype=np.float64) for name in ("medians", "means", "sds"))
        return Standard(medians, means, np.divide(1.0, sds, out=np.zeros_like(sds), where=sds > 0))


def ensemble_arrays(result: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """`medians`, `means`, `sds` and `weights`, (K,) each, float64, from a preparation's result.

    G follows from means, SDs and correlations: E[e_k e_l] = cov(ŷ_k − Ω, ŷ_l − Ω) + E[e_k] E[e_l].

    Raises
    ------
    np.linalg.LinAlgError
        If there are more members than can be weighted.
    """
    model = result["model"]
    arrays: dict[str, NDArray[Any]] = {name: vector(model, name) for name in ("medians", "means", "sds")}
    sds, age_sd = arrays["sds"], float(model["age_sd"])
    used = np.flatnonzero(sds > 0)
    if not 1 <= used.size <= MOST_MEMBERS:
        raise np.linalg.LinAlgError(f"{used.size} members can be used; 1 to {MOST_MEMBERS} can be weighted")
    with_age = vector(model, "age_correlations") * sds * age_sd
    covariance = np.array(model["correlations"], dtype=np.float64) * np.outer(sds, sds)
    bias = arrays["means"] - float(model["intercept"])
    products = covariance - with_age[:, None] - with_age[None] + age_sd**2 + np.outer(bias, bias)
    arrays["weights"] = np.zeros(len(sds))
    arrays["weights"][used] = least_squares_weights(products[np.ix_(used, used)])
    return arrays


def mean_years(rows: NDArray[Any], weights: FloatArray, medians: FloatArray) -> FloatArray:
    """Weighted means (n,) of ages (n, K), NaN where missing; of who has no weighted member that of the medians."""
    known = np.isfinite(rows)
    weighed = weights * known
    total = weighed.sum(axis=1)
    years = (weighed * np.where(known, rows, 0.0)).sum(axis=1)
    made: FloatArray = np.where(total > 0, years / np.where(total > 0, total, 1.0), weights @ medians / weights.sum())
    return made
