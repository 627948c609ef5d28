"""The campaign's models on one table of all patients: lifelines for follow-up, numpy and scipy for the rest.

Nothing here comes from FedAge's analyses, so that a fault in them cannot hide in its own check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import logrank_test
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_PRECISION = 1e-12
"""Where lifelines' Newton steps end. With its default of 1e-7 a coefficient is off by up to 1e-6."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A least-squares line. Slope without unit, intercept and residual SD (n − 2 degrees of freedom) in years."""

    slope: float
    intercept_years: float
    residual_sd_years: float


def errors(predicted_years: FloatArray, age_years: FloatArray) -> dict[str, float]:
    """Agreement of predicted with chronological age (n,): `mae_years`, `rmse_years`, `mean_error_years`, `pearson_r`.

    `pearson_r` is left out where one of the two does not vary.
    """
    error = predicted_years - age_years
    told = {
        "mae_years": float(np.abs(error).mean()),
        "rmse_years": float(np.sqrt((error**2).mean())),
        "mean_error_years": float(error.mean()),
    }
    if np.ptp(predicted_years) > 0 and np.ptp(age_years) > 0:
        told["pearson_r"] = float(np.corrcoef(predicted_years, age_years)[0, 1])
    return told


def line(predicted_years: FloatArray, age_years: FloatArray) -> Line:
    """Predicted age (n,) as a line of chronological age (n,)."""
    design = np.column_stack([age_years, np.ones_like(age_years)])
    (slope, intercept), *_ = np.linalg.lstsq(design, predicted_years, rcond=None)
    rest = predicted_years - design @ np.array([slope, intercept])
    sd = float(np.sqrt(rest @ rest / (len(rest) - 2))) if len(rest) > 2 else float("nan")
    return Line(slope=float(slope), intercept_years=float(intercept), residual_sd_years=sd)


def cox(
    patients: pd.DataFrame, covariates: Sequence[str], *, time: str, event: str, strata: Sequence[str]
) -> dict[str, float]:
    """Cox's model with Efron's rule for ties: `coef of X` and `se of X` of every covariate, and `log_likelihood`."""
    columns = list(dict.fromkeys([*covariates, time, event, *strata]))
    fitter = CoxPHFitter()
    fitter.fit(patients[columns], time, event, strata=list(strata) or None, fit_options={"precision": _PRECISION})
    told = {"log_likelihood": float(fitter.log_likelihood_)}
    for name in covariates:
        told[f"coef of {name}"] = float(fitter.params_[name])
        told[f"se of {name}"] = float(fitter.standard_errors_[name])
    return told


def survival_at(time: FloatArray, event: FloatArray, at: Sequence[float]) -> list[float]:
    """Kaplan-Meier estimate of the fraction without the event at each of the times `at`; times (n,), events (n,)."""
    curve = KaplanMeierFitter().fit(time, event).survival_function_at_times(list(at))
    return [float(value) for value in curve]


def log_rank(time: FloatArray, event: FloatArray, is_second: NDArray[np.bool_], *, end: float) -> float:
    """χ² of the log-rank test of two groups, followed up to the time `end` at most."""
    first = ~is_second
    found = logrank_test(time[first], time[is_second], event[first], event[is_second], t_0=end)
    return float(found.test_statistic)


def difference(y: FloatArray, is_group: FloatArray, covariates: FloatArray, site: Sequence[str]) -> tuple[float, float]:
    """Group difference of y (n,) and its standard error by least squares, an intercept a site, covariates (n, k)."""
    dummies = pd.get_dummies(pd.Series(list(site))).to_numpy(dtype=np.float64)
    design = np.column_stack([is_group, covariates, dummies])
    beta, *_ = np.linalg.lstsq(design, y, rcond=None)
    rest = y - design @ beta
    variance = rest @ rest / (len(y) - design.shape[1])
    return float(beta[0]), float(np.sqrt(variance * np.linalg.pinv(design.T @ design)[0, 0]))


def ridge(x: FloatArray, target: FloatArray, penalty: float) -> tuple[FloatArray, float]:
    """Slopes (p,) on raw columns x (n, p) and the intercept: |t − Zβ|² + penalty·|β|² with standardised columns Z."""
    mean, sd = x.mean(axis=0), x.std(axis=0)
    varies = sd > 0
    z = (x[:, varies] - mean[varies]) / sd[varies]
    slopes = np.zeros(x.shape[1])
    slopes[varies] = (
        np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (target - target.mean())) / sd[varies]
    )
    return slopes, float(target.mean() - slopes @ mean)
