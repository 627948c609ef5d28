"""What evaluations find, typed, and what a record says of them together."""

from __future__ import annotations

from pydantic import Field

from fedage.common.record.parts import AnalysisResult, Number, Part
from fedage.common.record.results import NO_ESTIMATOR, Results

CS_YEARS = 5.0


class Metrics(AnalysisResult):
    """Agreement of predicted with chronological age."""

    n: int = Field(description="patients")
    mae_years: Number = Field(description="mean absolute error")
    cs_5: Number = Field(default=None, description="fraction with an absolute error of at most 5 years")
    cs_5_low: Number = Field(default=None, description="lower bound of cs_5; sites tell no count of few patients")
    cs_5_high: Number = Field(default=None, description="upper bound of cs_5")
    pearson_r: Number = Field(default=None, description="Pearson correlation; null where one does not vary")
    calibration_slope: Number = Field(
        default=None, description="b of chronological = a + b · predicted age, least squares; 1 if well calibrated"
    )
    calibration_intercept_years: Number = Field(default=None, description="a of that line; 0 if well calibrated")
    mean_error_years: Number = Field(default=None, description="mean of predicted minus chronological")
    rmse_years: Number = Field(default=None, description="root mean squared error")
    mae_of_mean_years: Number = Field(default=None, description="MAE of predicting the mean age of all sites")
    mae_of_mean_at_least: bool = Field(
        default=False,
        description="whether that is a lower bound: at a site, fewer than the minimum count or nobody is younger, or "
        "older, than that mean, and who is there counts as if on the other side",
    )
    mae_of_site_mean_years: Number = Field(default=None, description="MAE of predicting each site's own mean age")
    noise_sd_years: Number = Field(
        default=None, description="SD of mae_years by the noise of differential privacy; null without"
    )
    largest_error_years: Number = Field(
        default=None, description="with that noise: errors beyond count as this; null without"
    )


class CumulativeScores(AnalysisResult):
    """CS(t): the fraction of patients with an absolute error of at most t years, without small cells.

    A site joins neighbouring cells of t until each holds enough patients, so the curve lies between two bounds.
    """

    n: int | None = Field(default=None, description="patients")
    thresholds_years: tuple[float, ...] = Field(description="t, rising")
    cs: tuple[Number, ...] = Field(description="CS(t), errors inside a joined cell taken as normal")
    cs_low: tuple[Number, ...] = Field(description="lower bound of CS(t)")
    cs_high: tuple[Number, ...] = Field(description="upper bound of CS(t)")
    largest_width: Number = Field(default=None, description="largest difference of the bounds; 0 if the curve is exact")


TEST, CORRECTED = "error-curve:test", "error-curve:test-corrected"


class CountsByAge(AnalysisResult):
    """Counts of patients by bins of chronological (rows) and predicted age (columns)."""

    n: int | None = Field(default=None, description="patients")
    edges_years: tuple[float, ...] = Field(description="b + 1 edges, for both ages; the outermost bins are open")
    counts: tuple[tuple[int, ...], ...] = Field(description="b rows of b counts; small cells are withheld and count 0")
    withheld: int | None = Field(default=None, description="patients in withheld cells")


def cells_are_drawn(grid: CountsByAge) -> bool:
    """Whether the counts by cell are near enough to complete to be drawn."""
    return withheld_share(grid) <= MOST_WITHHELD


_FITTED = "the bias line is fitted on these patients"


_FOLDS = "with folds every patient is a test patient, so no others are left"


class Evaluated(Part):
    """One evaluation, over all sites and at each."""

    overall: Metrics | None = Field(default=None, description="all sites together")
    by_site: dict[str, Metrics] = Field(default_factory=dict, description="each site that released it")
    not_computed: str = Field(default="", description="why there is none")


class EvaluatedPart(Part):
    """Evaluations on one part of the patients. Corrected figures flatter any model: the raw ones are primary."""

    raw: Evaluated = Field(default_factory=Evaluated, description="as predicted")
    corrected: Evaluated = Field(default_factory=Evaluated, description="after age-bias correction")


class Evaluation(Part):
    """How good the predicted ages are."""

    test: EvaluatedPart = Field(
        default_factory=EvaluatedPart, description="patients neither trained on nor corrected with"
    )
    validation: EvaluatedPart = Field(
        default_factory=EvaluatedPart, description="patients the bias line is fitted on; none with folds"
    )


def evaluation(results: Results) -> Evaluation:
    """How good the predicted ages are."""
    folds = results.campaign.folds is not None
    return Evaluation(
        test=EvaluatedPart(
            raw=_evaluated(results, "evaluation:test"), corrected=_evaluated(results, "evaluation:test-corrected")
        ),
        validation=EvaluatedPart(
            raw=Evaluated(not_computed=_FOLDS) if folds else _evaluated(results, "evaluation:validation"),
            corrected=Evaluated(not_computed=_FOLDS if folds else _FITTED),
        ),
    )


def _evaluated(results: Results, name: str) -> Evaluated:
    step = results.analyses.get(name)
    if step is None:
        return Evaluated(not_computed="" if results.campaign.estimator else NO_ESTIMATOR)
    return Evaluated(
        overall=step.result if isinstance(step.result, Metrics) else None,
        by_site={site: metrics for site, metrics in step.by_site.items() if isinstance(metrics, Metrics)},
        not_computed=step.not_computed,
    )


MOST_WITHHELD = 0.1
"""Largest share of patients in withheld cells with which the counts by cell are drawn."""


def withheld_share(grid: CountsByAge) -> float:
    """The share of patients who are in withheld cells."""
    shown, withheld = sum(map(sum, grid.counts)), grid.withheld or 0
    return withheld / (shown + withheld) if shown + withheld else 0.0
