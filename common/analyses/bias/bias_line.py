"""The age-bias line ŷ = aΩ + b on held-out healthy patients, and the corrections that use it.

Notation: Ω chronological age, ŷ predicted age, a slope, b intercept; ages in years. Beheshti et al. 2019 and de Lange
et al. 2020 are the same correction; Cole et al. 2018 divides by the slope and needs no age.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass

import numpy as np
from pydantic import Field as Described

from fedage.common.analyses._summed import ages_and_errors
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, OneExchange, Outcome
from fedage.common.analyses.bias.noised_line import NoisedLine
from fedage.common.analyses.columns import (
    MAX_AGE_YEARS,
    MAX_PATIENTS,
    MAX_PREDICTED_YEARS,
    cells_of_predictions,
    in_subset,
    usable,
)
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.analyses.noised_validation import ValidationBounds, noise_note
from fedage.common.analyses.survival import results as survival_results
from fedage.common.campaign.types import Campaign
from fedage.common.presentation.blocks import Display, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import Table, count, number, words
from fedage.common.presentation.participation import hidden_note, pooled_row
from fedage.common.record.parts import AnalysisResult, Number, Part
from fedage.common.record.results import NO_ESTIMATOR, Results
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

REFERENCE_AGE_YEARS = 60.0
"""Ages and predictions are summed as differences to this, so that no digits are lost."""
SMALLEST_SLOPE = 0.05
"""Below this the model hardly sees age, and a correction would be all correction."""

_U = MAX_AGE_YEARS + REFERENCE_AGE_YEARS
_V = MAX_PREDICTED_YEARS + REFERENCE_AGE_YEARS
_LAYOUT = Layout(
    (
        Field("n", lower=0.0, upper=MAX_PATIENTS, whole=True),
        *left_out_fields(),
        Field("age", lower=-_U * MAX_PATIENTS, upper=_U * MAX_PATIENTS),
        Field("age_squared", lower=0.0, upper=_U**2 * MAX_PATIENTS),
        Field("predicted", lower=-_V * MAX_PATIENTS, upper=_V * MAX_PATIENTS),
        Field("age_predicted", lower=-_U * _V * MAX_PATIENTS, upper=_U * _V * MAX_PATIENTS),
        Field("predicted_squared", lower=0.0, upper=_V**2 * MAX_PATIENTS),
    )
)


def correct_de_lange(
    predicted_years: FloatArray, age_years: FloatArray, *, slope: float, intercept: float
) -> FloatArray:
    """Corrected age ŷ + Ω − (aΩ + b), (n,): the prediction less the error that the line expects at this age."""
    return predicted_years + age_years - (slope * age_years + intercept)


def correct_cole(predicted_years: FloatArray, *, slope: float, intercept: float) -> FloatArray:
    """Corrected age (ŷ − b)/a, (n,). Its gap to Ω is de Lange's divided by a."""
    return (predicted_years - intercept) / slope


@dataclass(frozen=True)
class BiasLine(OneExchange):
    """Least squares of predicted on chronological age, healthy patients of one part only.

    Exact from (n, ΣΩ, ΣΩ², Σŷ, ΣΩŷ, Σŷ²), of all sites or of one.

    Result: `n`, `left_out`, `slope`, `intercept_years`, `slope_se`, `intercept_se_years`, `residual_sd_years` (with
    n − 2 degrees of freedom), `mean_age_years`.
    """

    name: str = "bias"
    subset: str = "is_validation"
    _: KW_ONLY
    prediction: str = "predicted_years"
    per_site: bool = True

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        return _LAYOUT

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:  # noqa: ARG002 - one-shot
        chosen = in_subset(cohort, self.subset, healthy_only=True)
        kept, left_out = usable(chosen, ("age_years", self.prediction))
        u, v = kept["age_years"] - REFERENCE_AGE_YEARS, kept[self.prediction] - REFERENCE_AGE_YEARS
        values = {
            "n": kept.n,
            **left_out_values(left_out),
            "age": u.sum(),
            "age_squared": u @ u,
            "predicted": v.sum(),
            "age_predicted": u @ v,
            "predicted_squared": v @ v,
        }
        cells = [Cell(kept.n, "healthy patients the bias line is fitted on")]
        return Statistic.of(_LAYOUT, values, cells + cells_of_predictions(kept[self.prediction]))

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        chosen = in_subset(cohort, self.subset, healthy_only=True)
        return columns_read(chosen, needed=("age_years", self.prediction))

    def summed(self, cohort: Cohort, iterate: Iterate) -> list[Group]:  # noqa: ARG002 - one-shot
        kept, _ = usable(in_subset(cohort, self.subset, healthy_only=True), ("age_years", self.prediction))
        of = "the healthy patients the bias line is fitted on"
        return [ages_and_errors(kept["age_years"], kept[self.prediction], of=of)]

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        n = total.scalar("n")
        if n < 3:
            return NotComputable(f"a bias line needs at least 3 healthy patients with {self.subset} = 1, not {n:.0f}")
        mean_u, mean_v = total.scalar("age") / n, total.scalar("predicted") / n
        s_uu = total.scalar("age_squared") - n * mean_u**2
        s_uv = total.scalar("age_predicted") - n * mean_u * mean_v
        s_vv = total.scalar("predicted_squared") - n * mean_v**2
        if s_uu <= 1e-9 * n:
            return NotComputable(
                "all healthy patients have the same age, so there is no line through their predictions"
            )
        slope = s_uv / s_uu
        if slope <= SMALLEST_SLOPE:
            return NotComputable(
                f"bias line has slope {slope:.3f}, which must be above {SMALLEST_SLOPE}: "
                "the predictions hardly rise with age; train longer"
            )
        residual_variance = max(s_vv - slope * s_uv, 0.0) / (n - 2)
        mean_age = REFERENCE_AGE_YEARS + mean_u
        return Done(
            {
                "n": round(n),
                **left_out_result(total),
                "slope": slope,
                "intercept_years": REFERENCE_AGE_YEARS + mean_v - slope * mean_age,
                "slope_se": float(np.sqrt(residual_variance / s_uu)),
                "intercept_se_years": float(np.sqrt(residual_variance * (1 / n + mean_age**2 / s_uu))),
                "residual_sd_years": float(np.sqrt(residual_variance)),
                "mean_age_years": mean_age,
            }
        )


BIAS = "bias"


class FittedLine(AnalysisResult):
    """Predicted age = slope · chronological age + intercept, on held-out healthy patients."""

    slope: Number = Described(description="a")
    intercept_years: Number = Described(description="b")
    n: int = Described(description="healthy patients it is fitted on")
    residual_sd_years: Number = Described(default=None, description="spread around the line")
    slope_noise_sd: Number = Described(
        default=None, description="SD of the slope by the noise of differential privacy; null without"
    )


class Bias(Part):
    """The age-bias correction.

    With folds the lines here are fitted on the out-of-fold predictions of all healthy patients and are for reading
    only: the patients of a fold are corrected by a line that is fitted without them.
    """

    method: str = Described(default="linear", description="form of the correction")
    scope: str = Described(default="site", description="one line a site, or one for all")
    scale: str = Described(default="de-lange", description="which gap the survival analysis uses")
    lines: dict[str, FittedLine] = Described(default_factory=dict, description="by site")
    overall: FittedLine | None = Described(default=None, description="over all sites")
    not_computed: str = Described(default="", description="why there is none")


def correction_of(results: Results) -> Bias:
    """The age-bias correction."""
    step = results.analyses.get("bias")
    if step is None:
        return Bias(not_computed="" if results.campaign.estimator else NO_ESTIMATOR)
    return Bias(
        **step.about,
        lines={site: line for site, line in step.by_site.items() if isinstance(line, FittedLine)},
        overall=step.result if isinstance(step.result, FittedLine) else None,
        not_computed=step.not_computed,
    )


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    if campaign.estimator is not None:
        about = {"method": campaign.bias.method, "scope": campaign.bias.scope, "scale": campaign.bias.scale}
        line: Analysis = BiasLine(BIAS, "is_validation")
        if campaign.noises_validation:
            line = NoisedLine(BIAS, "is_validation", ValidationBounds.of(campaign))
        yield Step(line, ("predicted_years",), about)


def _shown(results: Results) -> Display:
    if not results.campaign.estimator:
        return Display()
    lines = TitledTable(bias_lines(results), "Bias lines: predicted age = slope × chronological age + intercept")
    blocks = (lines, Paragraph(_note(results)))
    section = Section("gap", "Age bias and its correction", blocks, place=22, reasons_once=True)
    return Display(sections=(section,))


def _note(results: Results) -> str:
    bias = correction_of(results)
    how = f"({bias.method}, scope {bias.scope})"
    scale = {"de-lange": "de Lange's", "cole": "Cole's"}.get(bias.scale, bias.scale)
    split = f" High and low gap are split on {scale} scale." if survival_results.survival(results) else ""
    if results.campaign.bundle and bias.scope == "pooled":
        return (
            f"For reading only: fitted on all healthy patients {how}. Ages are corrected by the line that the "
            f"validated model brings, which nobody here was used for.{split}"
        )
    if results.campaign.folds:
        predictions = "predictions" if results.campaign.bundle else "out-of-fold predictions"
        return (
            f"For reading only: fitted on the {predictions} of all healthy patients {how}. The patients of "
            f"each fold are corrected by a line that is fitted without them.{split}"
        )
    return f"Fitted on held-out healthy patients {how}; no patient reported here was used.{split}"


def bias_lines(results: Results) -> Table:
    """The lines that correct the age bias."""
    bias = correction_of(results)
    everyone = [(words(site), line) for site, line in sorted(bias.lines.items())]
    if bias.overall is not None:
        everyone += pooled_row(results, BIAS, list(bias.lines), bias.overall)
    rows = tuple(
        (
            site,
            count(line.n),
            number(line.slope, 3),
            number(line.intercept_years),
            number(line.residual_sd_years),
        )
        for site, line in everyone
    )
    headers = ("site", "healthy patients", "slope", "intercept, years", "residual SD, years")
    why = bias.not_computed or "No site released a bias line."
    return Table("bias", headers, rows, note=hidden_note(results), why_empty=why)


ANALYSIS = Definition(
    name=BIAS,
    result=FittedLine,
    steps=_steps,
    words=lambda step: "the bias line",  # noqa: ARG005 - there is one
    notes=noise_note,
    shown=_shown,
    place=20,
)
