"""The campaign's model at a site: columns predicted for some of its patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.compute.own_statistics import TooFewForStatistics, with_own_statistics
from fedage.client.compute.training import predict_columns
from fedage.client.disclosure.guard import Withheld
from fedage.client.site.cancel import should_stop
from fedage.common.analyses.base import Analysis
from fedage.common.campaign import Campaign
from fedage.common.estimators import EstimatorRefused
from fedage.common.estimators.base import (
    AGE,
    COMPUTED,
    PREDICTED_YEARS,
    Arrays,
    Estimator,
    ExactPhase,
    Output,
    Predictor,
    RoundsPhase,
    Samples,
)
from fedage.common.estimators.configure import PhaseRefused, configured, exact_analyses, phases_of
from fedage.common.estimators.outcomes import LearnsOutcome
from fedage.common.networks.arrays import ModelRefused, Weights
from fedage.common.protocol.messages import RequestRefused
from fedage.common.statistics.cohort import Cohort, UnusableColumn
from fedage.common.statistics.influence import differing
from fedage.common.statistics.statistic import FloatArray

_LARGEST = float(np.finfo(np.float32).max)


class Hardware(Protocol):
    """What a site computes on."""

    @property
    def device(self) -> str:
        """`auto`, `cpu` or `cuda`."""

    @property
    def threads(self) -> int:
        """CPU threads a training may use."""


def estimator_of(campaign: Campaign, site_cohort: SiteCohort) -> Estimator:
    """The campaign's estimator for this site's data.

    Raises
    ------
    RequestRefused
        Rule `no-estimator` in a campaign that only analyses; `estimator-phases` for one whose phases cannot be run.
    """
    try:
        estimator = configured(campaign, site_cohort.features)
        if estimator is not None:
            phases_of(estimator)
    except (PhaseRefused, EstimatorRefused) as refused:
        raise RequestRefused("estimator-phases", str(refused)) from None
    if estimator is None:
        raise RequestRefused("no-estimator", "the approved campaign file has no estimator")
    return estimator


def exact_sums_of(campaign: Campaign, site_cohort: SiteCohort) -> dict[str, Analysis]:
    """The analyses of the estimator's exact phases by name; none in a campaign that only analyses.

    Raises
    ------
    RequestRefused
        Rule `estimator-phases` for sums that cannot be held to the influence rule, or phases that cannot be run.
    """
    try:
        return exact_analyses(campaign, site_cohort.features)
    except (PhaseRefused, EstimatorRefused) as refused:
        raise RequestRefused("estimator-phases", str(refused)) from None


def predict(
    hardware: Hardware, estimator: Estimator, site_cohort: SiteCohort, weights: Arrays, *, rows: NDArray[np.intp]
) -> dict[str, FloatArray]:
    """The columns that the finished model predicts, (n,) in cohort order, NaN for the patients not in `rows`.

    Each is cut to the bounds that the estimator states, and a prediction that is no number counts as the upper one:
    analyses leave implausible values out, and a model made so that one patient's is implausible would tell of that
    patient by subtraction.

    Raises
    ------
    RequestRefused
        Rule `model` for weights that are not those of the campaign's model; `outputs` for columns that are not those
        which the estimator states.
    PredictionStopped
        If the message is cancelled.
    """
    made = _predicted(
        hardware, estimator, site_cohort, lambda: estimator.predictor(weights, device=hardware.device), rows=rows
    )
    return _bounded(made, estimator.outputs, cohort=site_cohort.cohort, rows=rows)


def predict_in_training(
    hardware: Hardware,
    estimator: Estimator,
    phase: RoundsPhase,
    site_cohort: SiteCohort,
    weights: Arrays,
    *,
    rows: NDArray[np.intp],
) -> FloatArray | None:
    """Ages (n,) predicted by a model in training, as `predict`; None in a phase that predicts no age yet."""

    def predictor() -> Predictor | None:
        return phase.predictor(weights, device=hardware.device)

    made = _predicted(hardware, estimator, site_cohort, predictor, rows=rows)
    if made is None:
        return None
    age = tuple(output for output in estimator.outputs if output.column == PREDICTED_YEARS)
    of_age = {name: column for name, column in made.items() if name == PREDICTED_YEARS}
    return _bounded(of_age, age, cohort=site_cohort.cohort, rows=rows)[PREDICTED_YEARS]


def columns_of(
    hardware: Hardware, estimator: Estimator, phase: ExactPhase, site_cohort: SiteCohort, before: Arrays
) -> dict[str, FloatArray]:
    """The columns (n,) that the model before computes for an exact phase's sums, of all patients; maybe none.

    Values are cut to what float32 holds; one that is no number counts as missing.

    Raises
    ------
    RequestRefused
        As `predict`.
    """
    rows = np.arange(site_cohort.cohort.n)
    made = (
        _predicted(hardware, estimator, site_cohort, lambda: phase.columns(before, device=hardware.device), rows=rows)
        or {}
    )
    if others := sorted(name for name in made if not name.startswith(COMPUTED)):
        raise RequestRefused(
            "outputs", f"phase {phase.name!r} computes {others[0]!r}; begin its name with {COMPUTED!r}"
        )
    return {name: np.clip(column, -_LARGEST, _LARGEST) for name, column in made.items()}


def statistics_of_site(
    hardware: Hardware, estimator: Estimator, site_cohort: SiteCohort, weights: Arrays, *, rows: NDArray[np.intp]
) -> Weights:
    """The finished model with the means and variances of these patients in its batch normalisation.

    Raises
    ------
    RequestRefused
        Rule `norm-layers` for too few; `model` as `predict`.
    """
    last = phases_of(estimator)[-1]
    assert isinstance(last, RoundsPhase)
    try:
        return with_own_statistics(
            last,
            weights,
            samples_of(site_cohort, rows),
            batch_size=estimator.prediction_batch,
            device=hardware.device,
            threads=hardware.threads,
            should_stop=should_stop,
        )
    except TooFewForStatistics as refused:
        raise RequestRefused("norm-layers", str(refused)) from None
    except ModelRefused as refused:
        raise RequestRefused("model", str(refused)) from None


def targets_of(
    estimator: Estimator, cohort: Cohort, rows: NDArray[np.intp], *, minimum_count: int
) -> dict[str, FloatArray]:
    """What is learnt from, (rows,) by column, NaN where it is not known.

    Attack: a diagnosis that two of a site's patients have shows in the update whom the loss tells apart, and the head
    of a class that one patient has learns from that patient alone. Rule: a target other than age that fewer than the
    minimum count know, do not know, or differ in counts as unknown for all of the site; of classes (density A to D) the
    rarest count as unknown until as many do. Residual risk: an update tells of the patients behind it; only
    differential privacy bounds that.

    Raises
    ------
    Withheld
        Rule `missing-column`, or `column-values` for values that the estimator does not know.
    """
    columns: dict[str, FloatArray] = {}
    for target in dict.fromkeys((AGE, *estimator.targets)):
        column = target.column
        if column not in cohort.columns and not target.optional:
            raise Withheld("missing-column", f"this site has no column {column!r}, which the estimator learns from")
        values = cohort[column][rows] if column in cohort.columns else np.full(rows.size, np.nan)
        if target.values and not np.isin(values[np.isfinite(values)], target.values).all():
            allowed = ", ".join(f"{value:g}" for value in target.values)
            raise Withheld(
                "column-values",
                f"this site's column {column!r}, which the estimator learns from, has values other than {allowed}; "
                "map them in site.toml, leave out what they do not cover, and index once more",
            )
        if column != "age_years":
            values = _without_rare_classes(values, minimum_count=minimum_count) if target.values else values
            known = int(np.count_nonzero(np.isfinite(values)))
            unknown = values.size - known
            if known < minimum_count or 0 < unknown < minimum_count or 0 < differing(values) < minimum_count:
                values = np.full(rows.size, np.nan)
        columns[column] = values
    return columns if not isinstance(estimator, LearnsOutcome) else _with_outcome(estimator, columns, minimum_count)


def _with_outcome(
    estimator: LearnsOutcome, columns: dict[str, FloatArray], minimum_count: int
) -> dict[str, FloatArray]:
    try:
        return {**columns, **estimator.learnt(columns, minimum_count=minimum_count)}
    except UnusableColumn as unusable:
        raise Withheld("column-values", str(unusable)) from None


def _without_rare_classes(values: FloatArray, *, minimum_count: int) -> FloatArray:
    """Classes (n,) without those that few have, and the next rarest until nobody or enough are unknown for it."""
    classes, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    rarest_first = np.argsort(counts, kind="stable")
    unknown = values.size - int(counts.sum())
    dropped: list[float] = []
    for place in rarest_first:
        is_rare = counts[place] < minimum_count
        if not is_rare and not (dropped and unknown < minimum_count):
            break
        dropped.append(float(classes[place]))
        unknown += int(counts[place])
    if dropped and classes.size - len(dropped) < 2:
        return np.full(values.shape, np.nan)  # one class teaches nothing
    return np.where(np.isin(values, dropped), np.nan, values)


def samples_of(site_cohort: SiteCohort, rows: NDArray[np.intp]) -> Samples:
    """The samples of some patients, nothing read yet.

    Raises
    ------
    Withheld
        Rule `no-samples` at a site without them.
    """
    if site_cohort.samples is None:
        raise Withheld("no-samples", "this site has no samples for the campaign's estimator")
    return site_cohort.samples.of(rows)


def _predicted(
    hardware: Hardware,
    estimator: Estimator,
    site_cohort: SiteCohort,
    make: Callable[[], Predictor | None],
    *,
    rows: NDArray[np.intp],
) -> dict[str, FloatArray] | None:
    """Columns (n,) as they are predicted, NaN for those not in `rows`; None where there is no predictor."""
    try:
        predictor = make()
        if predictor is None:
            return None
        if not rows.size:
            return {}
        made = predict_columns(
            predictor,
            samples_of(site_cohort, rows),
            batch_size=estimator.prediction_batch,
            device=hardware.device,
            threads=hardware.threads,
            should_stop=should_stop,
        )
    except (ModelRefused, PhaseRefused) as refused:
        raise RequestRefused("model", str(refused)) from None
    columns = {}
    for name, values in made.items():
        if values.shape != rows.shape:
            raise RequestRefused("outputs", f"column {name!r} that the estimator predicts is not one number a patient")
        columns[name] = np.full(site_cohort.cohort.n, np.nan)
        columns[name][rows] = values
    return columns


def _bounded(
    made: Mapping[str, FloatArray] | None, outputs: tuple[Output, ...], *, cohort: Cohort, rows: NDArray[np.intp]
) -> dict[str, FloatArray]:
    """The columns that an estimator states, within their bounds."""
    if not rows.size:
        return {output.column: np.full(cohort.n, np.nan) for output in outputs}
    stated = {output.column for output in outputs}
    if made is None or set(made) != stated or PREDICTED_YEARS not in stated:
        raise RequestRefused(
            "outputs",
            f"the estimator predicts the columns {sorted(made or ())} and states {sorted(stated)}; they must be the "
            f"same, {PREDICTED_YEARS} among them",
        )
    if taken := sorted(stated & set(cohort.columns) - {PREDICTED_YEARS}):
        raise RequestRefused("outputs", f"the estimator predicts a column that the cohort has: {taken[0]!r}")
    bounded = {}
    for output in outputs:
        values = np.full(cohort.n, np.nan)
        values[rows] = np.clip(np.nan_to_num(made[output.column][rows], nan=output.upper), output.lower, output.upper)
        bounded[output.column] = values
    return bounded
