"""Predictions stay at the site: kept by campaign, run and fold, and joined to the cohort when an analysis runs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fedage.client.guard import Withheld
from fedage.common.analyses.bias_line import correct_cole, correct_de_lange
from fedage.common.cohort import Cohort
from fedage.common.statistic import FloatArray

SLOPE_BOUNDS = (0.05, 5.0)
INTERCEPT_BOUND_YEARS = 200.0


def keep(folder: Path, *, run: str, predicted_years: FloatArray) -> None:
    """Write a run's predictions (n,) in cohort order; a crash leaves the old file or the new one, never half."""
    target = _file(folder, run)
    partial = target.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.save(stream, predicted_years)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(target)


def with_predictions(cohort: Cohort, folder: Path, *, run: str) -> Cohort:
    """The cohort with `predicted_years` and `raw_gap_years`, or unchanged before there are predictions."""
    path = _file(folder, run)
    if not path.is_file():
        return cohort
    predicted = np.load(path, allow_pickle=False)
    if predicted.shape != (cohort.n,):
        raise Withheld("cohort-changed", "the cohort is no longer the one the predictions were made for")
    return cohort.with_columns(predicted_years=predicted, raw_gap_years=predicted - cohort["age_years"])


def with_correction(cohort: Cohort, *, slope: float, intercept: float) -> Cohort:
    """The cohort with `corrected_years`, `gap_years` (de Lange) and `cole_gap_years`.

    Raises
    ------
    Withheld
        Rule `bias-line` if the line is not one a correction may use.
    """
    if not SLOPE_BOUNDS[0] <= slope <= SLOPE_BOUNDS[1] or not abs(intercept) <= INTERCEPT_BOUND_YEARS:
        raise Withheld("bias-line", "the slope or the intercept of the bias line is out of bounds")
    age, predicted = cohort["age_years"], cohort["predicted_years"]
    corrected = correct_de_lange(predicted, age, slope=slope, intercept=intercept)
    return cohort.with_columns(
        corrected_years=corrected,
        gap_years=corrected - age,
        cole_gap_years=correct_cole(predicted, slope=slope, intercept=intercept) - age,
    )


def _file(folder: Path, run: str) -> Path:
    safe = "".join(c for c in run if c.isalnum() or c in "-_")
    if not safe or safe != run:
        raise Withheld("malformed-request", "a run's name has letters, digits, - and _ only")
    return folder / f"predictions-{run}.npy"
