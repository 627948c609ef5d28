"""How good the predicted ages are: MAE, mean error, RMSE, CS(≤5), Pearson r, and the MAE of predicting the mean.

Notation: Ω chronological age, ŷ predicted age, e = ŷ − Ω, all in years.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

import numpy as np

from fedage.common.analyses._summed import ages_and_errors
from fedage.common.analyses.base import (
    Again,
    Analysis,
    Done,
    Iterate,
    IterateRefused,
    NotComputable,
    Outcome,
    check_iterate,
)
from fedage.common.analyses.columns import (
    MAX_AGE_YEARS,
    MAX_GAP_YEARS,
    MAX_PATIENTS,
    MAX_PREDICTED_YEARS,
    cells_of_predictions,
    within_bounds,
)
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.evaluation import _evaluation_compared, _metrics_shown
from fedage.common.analyses.evaluation._judged import judged, told_count
from fedage.common.analyses.evaluation.noised_errors import NoisedErrors
from fedage.common.analyses.evaluation.results import CS_YEARS, Metrics
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.analyses.noised_validation import ValidationBounds, noise_note
from fedage.common.analyses.of_file import BoolArray, has_predictions
from fedage.common.campaign.types import Campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

REFERENCE_AGE_YEARS = 60.0
"""Ages are summed as differences to this, so that no digits are lost."""


def _count(name: str) -> Field:
    return Field(name, lower=0.0, upper=MAX_PATIENTS, whole=True)


def _sum(name: str, bound: float, *, lower: float | None = None) -> Field:
    return Field(name, lower=-bound * MAX_PATIENTS if lower is None else lower, upper=bound * MAX_PATIENTS)


_MEAN_LAYOUT = Layout((_count("n"), _sum("age", MAX_AGE_YEARS + REFERENCE_AGE_YEARS)))

_AGE = MAX_AGE_YEARS  # |Ω − mean age|
_PREDICTED = MAX_PREDICTED_YEARS + MAX_AGE_YEARS  # |ŷ − mean age|
_FULL_LAYOUT = Layout(
    (
        _count("n"),
        *left_out_fields(),
        _sum("error", MAX_GAP_YEARS),
        _sum("absolute_error", MAX_GAP_YEARS, lower=0.0),
        _sum("squared_error", MAX_GAP_YEARS**2, lower=0.0),
        _count("within_5_low"),
        _count("within_5_high"),
        _sum("age", _AGE),
        _sum("age_squared", _AGE**2, lower=0.0),
        _sum("predicted", _PREDICTED),
        _sum("predicted_squared", _PREDICTED**2, lower=0.0),
        _sum("age_predicted", _AGE * _PREDICTED),
        _sum("from_mean", _AGE, lower=0.0),
        _count("from_mean_n"),
        _count("from_mean_bound_n"),
        _sum("from_site_mean", MAX_AGE_YEARS, lower=0.0),
    )
)


@dataclass(frozen=True)
class Evaluation:
    """Agreement of predicted with chronological age on one part of the patients.

    With `baseline` there are two exchanges: the first finds the mean age of all sites, the second sums everything else
    around it. The last statistic holds all that a result needs, so a site's own result comes from its own statistic
    and the same iterate.

    Σ|Ω − m| around a given m is the only sum that compares patient by patient: with Σ(Ω − m) it gives Σ(m − Ω) of those
    below m. Where fewer than `minimum_count` are on one side they count as if on the other, which leaves |Σ(Ω − m)|:
    known anyway, and a lower bound, so that the mean looks no worse than it is. It is marked as one also where it is
    exact because nobody is on that side: else the mark would tell that somebody is. A site that must not answer for
    this m at all (`spared`) leaves it out, and its patients are not among those the mean is judged by.

    Result: `n`, `left_out` (a value missing or out of range), `mean_age_years`, `mae_years`, `mean_error_years`,
    `rmse_years`, `cs_5` (fraction with |e| ≤ 5 years, both ends included and nothing rounded;
    None where sites tell bounds only), its bounds `cs_5_low` and `cs_5_high`, `pearson_r` (None
    where one of the two does not vary), `mae_of_mean_years` (of predicting the mean age of all sites for everybody;
    None where no site tells it or without `baseline`), `mae_of_mean_n` (of how many patients), `mae_of_mean_at_least`
    (whether it is a lower bound)
    and `mae_of_site_mean_years` (of predicting each site's own mean).

    Parameters
    ----------
    name
        The registered step.
    subset
        Column that is 1 for the patients to evaluate on.
    prediction
        Column with the predicted age in years.
    healthy_only
        Take only patients who count as healthy.
    baseline
        Whether predicting the mean age is evaluated too. One step of a campaign is enough: it is the same for raw and
        corrected ages, and asking for several parts' sums around several means would be several thresholds.
    minimum_count
        Fewest patients on either side of the mean and with errors on either side of 5 years, unless there are none.
    """

    same_sites: ClassVar[bool] = False

    name: str
    subset: str
    prediction: str = "predicted_years"
    _: KW_ONLY
    healthy_only: bool = False
    baseline: bool = True
    minimum_count: int = 1
    per_site: bool = True

    def first(self) -> Iterate:
        return {}

    def check(self, iterate: Iterate) -> None:
        if not iterate:
            return
        check_iterate(iterate, {"mean_age": ()} if self.baseline else {}, bound=MAX_AGE_YEARS)
        if iterate["mean_age"] < 0:
            raise IterateRefused("iterate mean_age must be an age of 0 to 130 years")

    def thresholds(self, iterate: Iterate) -> dict[str, float]:
        return {"age_years": float(iterate["mean_age"])} if iterate else {}

    def compared(self, cohort: Cohort) -> Cohort:
        return self._evaluated(cohort)[0]

    def layout(self, iterate: Iterate) -> Layout:
        return _MEAN_LAYOUT if self._finds_mean(iterate) else _FULL_LAYOUT

    def spared(self, statistic: Statistic) -> Statistic:
        """The statistic without what the threshold made of it."""
        kept = {field.name: statistic[field.name] for field in statistic.layout.fields}
        blank = {name: np.zeros(()) for name in ("from_mean", "from_mean_n", "from_mean_bound_n")}
        return replace(statistic, vector=statistic.layout.flatten({**kept, **blank}))

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept, left_out = self._evaluated(cohort)
        age, predicted = kept["age_years"], kept[self.prediction]
        error = predicted - age
        cells = [Cell(kept.n, "patients evaluated")]
        if self._finds_mean(iterate):
            return Statistic.of(_MEAN_LAYOUT, {"n": kept.n, "age": (age - REFERENCE_AGE_YEARS).sum()}, cells)
        # Corrected ages follow from the predicted ones by a line that is known.
        cells += cells_of_predictions(kept.columns.get("predicted_years", predicted))
        mean = _around(iterate)
        u, v = age - mean, predicted - mean
        values = {
            "n": kept.n,
            **left_out_values(left_out),
            "error": error.sum(),
            "absolute_error": np.abs(error).sum(),
            "squared_error": error @ error,
            **self._within_5(error),
            "age": u.sum(),
            "age_squared": u @ u,
            "predicted": v.sum(),
            "predicted_squared": v @ v,
            "age_predicted": u @ v,
            "from_mean": 0.0,
            "from_mean_n": 0,
            "from_mean_bound_n": 0,
            "from_site_mean": np.abs(age - age.mean()).sum() if kept.n else 0.0,
        }
        if self.baseline:
            values |= self._from_mean(u)
        return Statistic.of(_FULL_LAYOUT, values, cells)

    def without_kinks(self, vector: FloatArray) -> FloatArray:
        """A site's sums (v,) with what follows from n, Σe and Σe² in place of Σ|e| and the errors within 5 years.

        Σ|e| as of normal errors with this mean μ and standard deviation σ: n (σ √(2/π) exp(−μ²/2σ²) + μ erf(μ/σ√2)).
        """
        values = {field.name: _FULL_LAYOUT.block(vector, field.name) for field in _FULL_LAYOUT.fields}
        n = max(float(values["n"]), 1.0)
        mean = float(values["error"]) / n
        sd = math.sqrt(max(float(values["squared_error"]) / n - mean**2, 1e-12))
        z = mean / sd
        absolute = sd * math.sqrt(2 / math.pi) * math.exp(-z * z / 2) + mean * math.erf(z / math.sqrt(2))
        blank = {"absolute_error": n * absolute, "within_5_low": 0.0, "within_5_high": float(values["n"])}
        return _FULL_LAYOUT.flatten({**values, **blank})

    def summed(self, cohort: Cohort, iterate: Iterate) -> list[Group]:
        kept, _ = self._evaluated(cohort)
        if self._finds_mean(iterate):
            return []
        return [ages_and_errors(kept["age_years"], kept[self.prediction], of="the patients evaluated")]

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - the same for all
        return columns_read(self._evaluated(cohort)[0], needed=("age_years", self.prediction))

    def _finds_mean(self, iterate: Iterate) -> bool:
        return self.baseline and not iterate

    def _within_5(self, error: FloatArray) -> dict[str, float]:
        """Bounds of how many errors (n,) are within 5 years."""
        within = int(np.count_nonzero(np.abs(error) <= CS_YEARS))
        low, high = told_count(within, of=error.size, minimum_count=self.minimum_count)
        return {"within_5_low": low, "within_5_high": high}

    def _from_mean(self, u: FloatArray) -> dict[str, float]:
        """Σ|u| (n,), or |Σu| where few or none are on one side: of none the two are the same."""
        bound = self.minimum_count > 1 and min(np.count_nonzero(u < 0), np.count_nonzero(u > 0)) < self.minimum_count
        return {
            "from_mean": float(abs(u.sum()) if bound else np.abs(u).sum()),
            "from_mean_n": u.size,
            "from_mean_bound_n": u.size if bound else 0,
        }

    def _evaluated(self, cohort: Cohort) -> tuple[Cohort, int]:
        return judged(cohort, subset=self.subset, healthy_only=self.healthy_only, prediction=self.prediction)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        n = total.scalar("n")
        if n < 1:
            return NotComputable(f"no patient with {self.subset} = 1, an age and {self.prediction}")
        if self._finds_mean(iterate):
            return Again({"mean_age": np.asarray(REFERENCE_AGE_YEARS + total.scalar("age") / n)})
        mean_u, mean_v = total.scalar("age") / n, total.scalar("predicted") / n
        var_u = total.scalar("age_squared") / n - mean_u**2
        var_v = total.scalar("predicted_squared") / n - mean_v**2
        covariance = total.scalar("age_predicted") / n - mean_u * mean_v
        varies = min(var_u, var_v) > 1e-12
        judged = total.scalar("from_mean_n")
        low_is_high = total.scalar("within_5_high") - total.scalar("within_5_low") < 0.5
        return Done(
            {
                "n": round(n),
                **left_out_result(total),
                "mean_age_years": _around(iterate) + mean_u,
                "mae_years": total.scalar("absolute_error") / n,
                "mean_error_years": total.scalar("error") / n,
                "rmse_years": float(np.sqrt(total.scalar("squared_error") / n)),
                "cs_5": total.scalar("within_5_low") / n if low_is_high else None,
                "cs_5_low": total.scalar("within_5_low") / n,
                "cs_5_high": total.scalar("within_5_high") / n,
                "pearson_r": float(covariance / np.sqrt(var_u * var_v)) if varies else None,
                **_calibration(covariance, var_v, age=_around(iterate) + mean_u, predicted=_around(iterate) + mean_v),
                "mae_of_mean_years": total.scalar("from_mean") / judged if judged >= 1 else None,
                "mae_of_mean_n": round(judged),
                "mae_of_mean_at_least": total.scalar("from_mean_bound_n") > 0.5,
                "mae_of_site_mean_years": total.scalar("from_site_mean") / n,
            }
        )


def _calibration(covariance: float, variance: float, *, age: float, predicted: float) -> dict[str, float | None]:
    """The line Ω = intercept + slope · ŷ, from moments of both: 0 and 1 where predictions need no rescaling."""
    if variance <= 1e-12:
        return {"calibration_slope": None, "calibration_intercept_years": None}
    slope = covariance / variance
    return {"calibration_slope": slope, "calibration_intercept_years": age - slope * predicted}


def _around(iterate: Iterate) -> float:
    """What ages are summed around: the mean age of all sites where it is known."""
    return float(iterate["mean_age"]) if iterate else REFERENCE_AGE_YEARS


TEST, VALIDATION, CORRECTED = "evaluation:test", "evaluation:validation", "evaluation:test-corrected"


_WORDS = {
    TEST: "the error of the predicted age",
    VALIDATION: "the error on validation patients",
    CORRECTED: "the error of the corrected age",
}


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    minimum, healthy = campaign.cell_minimum, campaign.cohort.train_on == "healthy"
    if has_predictions(campaign):
        yield Step(Evaluation(TEST, "is_test", healthy_only=healthy, minimum_count=minimum), ("predicted_years",))
    if campaign.estimator is not None:
        for name, part, column in (
            (VALIDATION, "is_validation", "predicted_years"),
            (CORRECTED, "is_test", "corrected_years"),
        ):
            analysis: Analysis = Evaluation(
                name, part, column, healthy_only=healthy, baseline=False, minimum_count=minimum
            )
            if name == VALIDATION and campaign.noises_validation:
                analysis = NoisedErrors(name, part, ValidationBounds.of(campaign), healthy_only=healthy)
            yield Step(analysis, (column,))


def _sets(campaign: Campaign, cohort: Cohort) -> Iterator[BoolArray]:
    part: BoolArray = cohort["is_test"] == 1
    yield part
    if campaign.estimator is not None or campaign.cohort.train_on == "healthy":
        yield part & (cohort["healthy"] == 1)
    if "predicted_years" in cohort.columns:
        gap = np.abs(cohort["predicted_years"] - cohort["age_years"])
        yield part & within_bounds(cohort, ("age_years", "predicted_years")) & (gap <= MAX_GAP_YEARS)


ANALYSIS = Definition(
    name="evaluation",
    result=Metrics,
    steps=_steps,
    words=lambda step: _WORDS.get(step, step),
    sets=_sets,
    notes=noise_note,
    shown=_metrics_shown.shown,
    compared=_evaluation_compared.compared,
    figures=_evaluation_compared.figures,
    missing=_evaluation_compared.missing,
    place=10,
)
