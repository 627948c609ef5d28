"""The parts of `results.json`, one class an object of the file; every description is the reader's help.

Part (unknown keys refused)
├── what the campaign, the run, the sites and the rounds were
└── Finding (further keys kept): what an analysis found
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

Number = float | None
Counts = dict[str, int | None]


def plain(value: Any) -> Any:
    """Plain JSON-able values: NumPy scalars and arrays unpacked, NaN and infinity as None, all the way down."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


class Part(BaseModel):
    """Base of everything here: frozen, unknown keys refused, NumPy values made plain, NaN and infinity made null."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        return plain(values)


class Finding(Part):
    """Base of what an analysis found: further keys are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")


class CampaignInfo(Part):
    """What was asked."""

    name: str = Field(description="the campaign's name")
    purpose: str = Field(description="what was asked of the sites")
    digest: str = Field(description="SHA-256 of the campaign file's bytes")
    seed: int = Field(description="seed of initialisation and sampling without privacy")
    estimator: str = Field(description="the age estimator; empty for a campaign that only analyses")
    train_on: str = Field(
        default="all", description="whose predicted ages are judged, and who trains: `healthy` or `all`"
    )
    rounds: int | None = Field(
        default=None, description="rounds of training asked for, in each fold; null where a model needs none"
    )
    folds: int | None = Field(default=None, description="folds of cross-fitting; null without")
    minimum_count: int = Field(description="fewest patients behind any released cell")


class RunInfo(Part):
    """When and where it ran, and how it ended."""

    id: str = Field(description="the run")
    started_utc: str = Field(description="ISO 8601, UTC")
    finished_utc: str | None = Field(default=None, description="ISO 8601, UTC; null while running")
    status: Literal["finished", "stopped", "failed"] = Field(description="how it ended")
    reason: str = Field(default="", description="why it stopped or failed")
    environment: Literal["deployment", "simulation"] = Field(description="real sites, or one machine")
    guard: bool = Field(default=True, description="whether the sites' disclosure control was on")


class Withheld(Part):
    """A contribution that a site did not release."""

    step: str = Field(description="registered analysis or message kind")
    reason: str = Field(description="the rule and what it says")


class AgeSummary(Finding):
    """Chronological age at exam of a site's patients."""

    n: int = Field(description="patients")
    mean_years: Number = Field(default=None, description="mean")
    sd_years: Number = Field(default=None, description="standard deviation")


class AuditHead(Part):
    """The last line of a site's audit log that this run saw. The site's log must still lead there."""

    sequence: int = Field(ge=0, description="number of the line")
    hash: str = Field(description="its hash, hexadecimal; it stands for every line before it too")
    time_utc: str = Field(description="by the site's clock")


class SiteRecord(Part):
    """One site: what it brought, what it set aside, what it withheld."""

    name: str = Field(description="the site's name")
    status: Literal["took part", "dropped out", "refused", "absent"] = Field(description="how it took part")
    role: str = Field(
        default="",
        description="what its policy let it do: `training and evaluation`, `evaluation only` …; empty if unknown",
    )
    dropped_out_in_round: int | None = Field(
        default=None, description="round it dropped out in, with folds of the last fold; 0 is after training"
    )
    reason: str = Field(default="", description="why it dropped out, refused or was absent")
    patients: int | None = Field(default=None, description="patients in the cohort; null if withheld or not told")
    minimum_count: int | None = Field(
        default=None, description="fewest patients that it tells of: the larger of the campaign's and its own"
    )
    patients_by_part: Counts = Field(
        default_factory=dict,
        description="train, validation and test; with folds `fold 1`, `fold 2` …; of those trained on and of folds "
        "only who may be trained on",
    )
    held_out_in_folds: int | None = Field(
        default=None,
        ge=0,
        description="in how many folds it holds patients out, a small site in fewer than there are; in the others all "
        "of its patients may train; null without folds, or where the sizes of its parts are withheld",
    )
    excluded: Counts = Field(default_factory=dict, description="patients left out of the cohort, by reason code")
    rejected_files: Counts = Field(default_factory=dict, description="files not read, by reason code")
    rejected_samples: Counts = Field(default_factory=dict, description="images the estimator refused, by reason code")
    age: AgeSummary | None = Field(default=None, description="if released")
    sex: Counts = Field(default_factory=dict, description="male, female and unknown, if released")
    device: str = Field(default="", description="what it computed on")
    fedage_version: str = Field(default="", description="its FedAge version")
    withheld: tuple[Withheld, ...] = Field(default=(), description="contributions that did not leave")
    troubles: tuple[str, ...] = Field(default=(), description="what went wrong, in plain words")
    audit_head: AuditHead | None = Field(default=None, description="of its audit log; null in simulation")


class Round(Part):
    """One round of training. Validation figures are those of the model after it."""

    number: int = Field(ge=1, description="from 1, in each fold again")
    fold: int | None = Field(default=None, ge=1, description="from 1; null without folds")
    seconds: Number = Field(default=None, description="wall time")
    train_loss: Number = Field(default=None, description="mean of the sites' losses, weighted by their patients")
    validation_mae_years: Number = Field(
        default=None,
        description="of the averaged model, all sites; where sites control disclosure, of normal errors with the mean "
        "and standard deviation that they tell",
    )
    validation_mae_years_by_site: dict[str, Number] = Field(default_factory=dict, description="the same by site")
    sites: tuple[str, ...] = Field(default=(), description="sites whose update counted")
    update_norm: Number = Field(default=None, description="L2 norm of the averaged update")


class Metrics(Finding):
    """Agreement of predicted with chronological age."""

    n: int = Field(description="patients")
    mae_years: Number = Field(description="mean absolute error")
    cs_5: Number = Field(default=None, description="fraction with an absolute error of at most 5 years")
    cs_5_low: Number = Field(default=None, description="lower bound of cs_5; sites tell no count of few patients")
    cs_5_high: Number = Field(default=None, description="upper bound of cs_5")
    pearson_r: Number = Field(default=None, description="Pearson correlation; null where one does not vary")
    mean_error_years: Number = Field(default=None, description="mean of predicted minus chronological")
    rmse_years: Number = Field(default=None, description="root mean squared error")
    mae_of_mean_years: Number = Field(default=None, description="MAE of predicting the mean age of all sites")
    mae_of_mean_at_least: bool = Field(
        default=False,
        description="whether that is a lower bound: at a site, fewer than the minimum count or nobody is younger, or "
        "older, than that mean, and who is there counts as if on the other side",
    )
    mae_of_site_mean_years: Number = Field(default=None, description="MAE of predicting each site's own mean age")


class Evaluated(Part):
    """One evaluation, over all sites and at each."""

    overall: Metrics | None = Field(default=None, description="all sites together")
    by_site: dict[str, Metrics] = Field(default_factory=dict, description="each site that released it")
    not_computed: str = Field(default="", description="why there is none")


class EvaluatedPart(Part):
    """Evaluations on one part of the patients. Corrected figures flatter any model: the raw ones are primary."""

    raw: Evaluated = Field(default=Evaluated(), description="as predicted")
    corrected: Evaluated = Field(default=Evaluated(), description="after age-bias correction")


class Evaluation(Part):
    """How good the predicted ages are."""

    test: EvaluatedPart = Field(default=EvaluatedPart(), description="patients neither trained on nor corrected with")
    validation: EvaluatedPart = Field(
        default=EvaluatedPart(), description="patients the bias line is fitted on; none with folds"
    )


class BiasLine(Finding):
    """Predicted age = slope · chronological age + intercept, on held-out healthy patients."""

    slope: Number = Field(description="a")
    intercept_years: Number = Field(description="b")
    n: int = Field(description="healthy patients it is fitted on")
    residual_sd_years: Number = Field(default=None, description="spread around the line")


class Bias(Part):
    """The age-bias correction.

    With folds the lines here are fitted on the out-of-fold predictions of all healthy patients and are for reading
    only: the patients of a fold are corrected by a line that is fitted without them.
    """

    method: str = Field(default="linear", description="form of the correction")
    scope: str = Field(default="site", description="one line a site, or one for all")
    scale: str = Field(default="de-lange", description="which gap the survival analysis uses")
    lines: dict[str, BiasLine] = Field(default_factory=dict, description="by site")
    overall: BiasLine | None = Field(default=None, description="over all sites")
    not_computed: str = Field(default="", description="why there is none")


class PredictedByAge(Finding):
    """Counts of patients by bins of chronological (rows) and predicted age (columns)."""

    n: int | None = Field(default=None, description="patients")
    edges_years: tuple[float, ...] = Field(description="b + 1 edges, for both ages; the outermost bins are open")
    counts: tuple[tuple[int, ...], ...] = Field(description="b rows of b counts; small cells are withheld and count 0")
    withheld: int | None = Field(default=None, description="patients in withheld cells")


class GapByAge(Finding):
    """Predicted minus chronological age by bins of chronological age."""

    n: int | None = Field(default=None, description="patients")
    edges_years: tuple[float, ...] = Field(description="b + 1 edges; the outermost bins are open")
    counts: tuple[int, ...] = Field(description="patients by bin; small bins are withheld and count 0")
    mean_years: tuple[Number, ...] = Field(description="mean gap by bin")
    sd_years: tuple[Number, ...] = Field(description="standard deviation of the gap by bin")
    withheld: int | None = Field(default=None, description="patients in withheld bins")


class ErrorCurve(Finding):
    """CS(t): the fraction of patients with an absolute error of at most t years, without small cells.

    A site joins neighbouring cells of t until each holds enough patients, so the curve lies between two bounds.
    """

    n: int | None = Field(default=None, description="patients")
    thresholds_years: tuple[float, ...] = Field(description="t, rising")
    cs: tuple[Number, ...] = Field(description="CS(t), errors inside a joined cell taken as normal")
    cs_low: tuple[Number, ...] = Field(description="lower bound of CS(t)")
    cs_high: tuple[Number, ...] = Field(description="upper bound of CS(t)")
    largest_width: Number = Field(default=None, description="largest difference of the bounds; 0 if the curve is exact")


class Figures(Part):
    """What the figures draw, all from test patients of all sites."""

    predicted_by_age: PredictedByAge | None = Field(default=None, description="heat map")
    gap_by_age_raw: GapByAge | None = Field(default=None, description="before correction")
    gap_by_age_corrected: GapByAge | None = Field(default=None, description="after correction")
    error_curve_raw: ErrorCurve | None = Field(default=None, description="cumulative score curve, as predicted")
    error_curve_corrected: ErrorCurve | None = Field(default=None, description="the same after correction")
    not_computed: dict[str, str] = Field(default_factory=dict, description="why a figure is missing, by its key here")


class Coefficient(Finding):
    """One covariate of a Cox model. Intervals `ci95 = [low, high]` and `ci95_per_sd` are taken apart."""

    name: str = Field(description="column")
    coef: Number = Field(description="log hazard ratio per unit")
    se: Number = Field(description="standard error")
    z: Number = Field(default=None, description="coef / se")
    p: Number = Field(default=None, description="two-sided Wald p")
    hazard_ratio: Number = Field(description="per unit")
    ci95_low: Number = Field(description="of the hazard ratio per unit")
    ci95_high: Number = Field(description="of the hazard ratio per unit")
    sd: Number = Field(default=None, description="standard deviation of the covariate")
    hazard_ratio_per_sd: Number = Field(default=None, description="per standard deviation")
    ci95_per_sd_low: Number = Field(default=None, description="of the hazard ratio per standard deviation")
    ci95_per_sd_high: Number = Field(default=None, description="of the hazard ratio per standard deviation")

    @model_validator(mode="before")
    @classmethod
    def _intervals(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        plain_values = dict(values)
        for name in ("ci95", "ci95_per_sd"):
            if name in plain_values:
                plain_values[f"{name}_low"], plain_values[f"{name}_high"] = plain_values.pop(name)
        return plain_values


class CoxResult(Finding):
    """One Cox model."""

    model: str = Field(description="its name in the campaign file")
    stratified_by_site: bool = Field(default=True, description="each site its own baseline hazard, or one for all")
    ties: str = Field(default="efron", description="how tied event times are treated")
    n: int | None = Field(default=None, description="patients")
    events: int | None = Field(default=None, description="events")
    sites: tuple[str, ...] = Field(default=(), description="sites whose sums it rests on")
    log_likelihood: Number = Field(default=None, description="at the estimate")
    null_log_likelihood: Number = Field(default=None, description="at zero")
    concordance: Number = Field(default=None, description="within sites only, if computed")
    covariates: tuple[Coefficient, ...] = Field(default=(), description="in the order of the file")
    merged_table_times: int = Field(default=0, description="table times of the file that are not common to the sites")
    likelihood: str = Field(default="", description="what an unstratified model rests on")
    follow_up_ends_years: Number = Field(
        default=None, description="of an unstratified model; later events are not in it"
    )
    withheld_columns: tuple[str, ...] = Field(
        default=(),
        description="covariates left out at all sites, as at one at least too few patients differ in them, or one "
        "makes up too much of a sum",
    )
    not_computed: str = Field(default="", description="why there is no result")


class SurvivalCurve(Finding):
    """Survival estimate of one group, Kaplan-Meier or actuarial; one value for each common table time."""

    name: str = Field(description="the group, e.g. `high gap`")
    n: int | None = Field(default=None, description="patients")
    events: int | None = Field(default=None, description="events")
    survival: tuple[Number, ...] = Field(
        description="fraction without the event; null where nobody is at risk or the point is refused"
    )
    ci95_low: tuple[Number, ...] = Field(default=(), description="lower end of its 95 % interval")
    ci95_high: tuple[Number, ...] = Field(default=(), description="upper end of its 95 % interval")
    bound_low: tuple[Number, ...] = Field(
        default=(), description="lowest value that grouping times between table times leaves open; null beyond the data"
    )
    bound_high: tuple[Number, ...] = Field(default=(), description="highest such value")
    refused: tuple[str, ...] = Field(default=(), description="why a point is not given; empty if it is")
    at_risk: tuple[int | None, ...] = Field(default=(), description="patients at risk after the table time before")
    events_at: tuple[int | None, ...] = Field(default=(), description="events since the table time before")
    remaining: tuple[int | None, ...] = Field(
        default=(), description="patients followed up to the table time without an event"
    )
    median_survival: Number = Field(default=None, description="median in years; null if not reached, or not exact")
    median_between: tuple[float, float] | None = Field(
        default=None, description="table times in years between which the median lies, where it is not exact"
    )


class GridCost(Finding):
    """Sites that make an interval between table times longer for all, or end the curves."""

    sites: tuple[str, ...] = Field(description="which")
    from_years: Number = Field(description="where the interval begins")
    to_years: Number = Field(default=None, description="where they let it end; null if nowhere: the curves end")
    others_to_years: Number = Field(default=None, description="where the other sites could end it")


class LogRank(Finding):
    """Log-rank test of the two groups."""

    chi2: Number = Field(description="Mantel's χ²")
    df: int = Field(default=1, description="degrees of freedom")
    p: Number = Field(description="its p")


class KaplanMeier(Finding):
    """High against low gap, or the two groups of another column, or all patients."""

    column: str | None = Field(default=None, description="what the groups are made by; null for one curve of all")
    sites: tuple[str, ...] = Field(default=(), description="sites whose sums it rests on")
    table_times: tuple[float, ...] = Field(
        default=(), description="years, rising: those of the file on which the sites agreed; the curves end at the last"
    )
    asked_times: tuple[float, ...] = Field(default=(), description="table times of the file, in years")
    groups: tuple[SurvivalCurve, ...] = Field(default=(), description="low gap, or 0 of the column, first")
    split_years: Number = Field(default=None, description="gap above which it is high")
    log_rank: LogRank | None = Field(default=None, description="null without two groups and events, or if refused")
    log_rank_refused: str = Field(default="", description="why the test is not given; empty if it is")
    merged_table_times: int = Field(default=0, description="table times of the file that are not common to the sites")
    held_back: tuple[GridCost, ...] = Field(default=(), description="which sites cost how much resolution")
    not_computed: str = Field(default="", description="why there is no result")


class Survival(Part):
    """What the gap, or other columns, have to do with follow-up."""

    cox: tuple[CoxResult, ...] = Field(default=(), description="the file's models")
    kaplan_meier: KaplanMeier | None = Field(default=None, description="curves of the groups")


class Check(Part):
    """One comparison of what was found with what the planted truth implies."""

    what: str = Field(description="in words")
    found: Number = Field(default=None, description="the run's number")
    against: Number = Field(default=None, description="what it is held against")
    ratio: Number = Field(default=None, description="found / against, where that is the measure")
    wanted: str = Field(default="", description="what would be right, in words")
    holds: bool | None = Field(default=None, description="whether it is; null if it cannot be said")


class PlantedTruth(Finding):
    """The truth behind phantoms and what it implies for an honest estimate."""

    hazard_ratio_per_year: float = Field(description="of the true gap")
    gap_sd_years: float = Field(description="standard deviation of the true gap")
    irreducible_mae_years: Number = Field(default=None, description="of the best possible reader, all sites")
    irreducible_mae_years_by_site: dict[str, Number] = Field(default_factory=dict, description="the same by site")
    attenuation: dict[str, Number] = Field(
        default_factory=dict, description="by gap column: λ = Cov(ĝ, g)/Var(ĝ), age held fixed"
    )
    expected_hazard_ratio: dict[str, Number] = Field(
        default_factory=dict, description="by gap column: planted hazard ratio to the power λ (1 for the true gap)"
    )
    checks: tuple[Check, ...] = Field(default=(), description="the verdicts")
