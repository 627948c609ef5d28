"""What the steps of a record say together, by subject, for tables and sentences that need several steps at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedage.common.record.groups import GroupDifference, GroupDifferenceResult, Groups, SiteDifference
from fedage.common.record.parts import (
    Bias,
    BiasLine,
    CoxResult,
    ErrorCurve,
    Evaluated,
    EvaluatedPart,
    Evaluation,
    Figures,
    Finding,
    GapByAge,
    GridCost,
    KaplanMeier,
    Metrics,
    PredictedByAge,
    Survival,
)

if TYPE_CHECKING:
    from fedage.common.record.results import Results, StepResult

_NO_ESTIMATOR = "the campaign has no estimator, so it predicts no age"
_FITTED = "the bias line is fitted on these patients"
_FOLDS = "with folds every patient is a test patient, so no others are left"
_ONE_GROUP = "it has patients of one group only, so it adds nothing to the difference"


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
        return Evaluated(not_computed="" if results.campaign.estimator else _NO_ESTIMATOR)
    return Evaluated(
        overall=step.result if isinstance(step.result, Metrics) else None,
        by_site={site: found for site, found in step.by_site.items() if isinstance(found, Metrics)},
        not_computed=step.not_computed,
    )


def bias(results: Results) -> Bias:
    """The age-bias correction."""
    step = results.analyses.get("bias")
    if step is None:
        return Bias(not_computed="" if results.campaign.estimator else _NO_ESTIMATOR)
    return Bias(
        **step.about,
        lines={site: found for site, found in step.by_site.items() if isinstance(found, BiasLine)},
        overall=step.result if isinstance(step.result, BiasLine) else None,
        not_computed=step.not_computed,
    )


def figures(results: Results) -> Figures:
    """What the figures draw."""
    steps = {
        "predicted_by_age": "predicted-by-age",
        "gap_by_age_raw": "gap-by-age:raw",
        "gap_by_age_corrected": "gap-by-age:corrected",
        "error_curve_raw": "error-curve:test",
        "error_curve_corrected": "error-curve:test-corrected",
    }
    missing, found = {}, {}
    for key, name in steps.items():
        step = results.analyses.get(name)
        if step is not None and isinstance(step.result, PredictedByAge | GapByAge | ErrorCurve):
            found[key] = step.result
        elif step is not None:
            missing[key] = step.not_computed
        elif not results.campaign.estimator:
            missing[key] = _NO_ESTIMATOR
    return Figures.model_validate({**found, "not_computed": missing})


def survival(results: Results) -> Survival | None:
    """Cox models and curves; None if the campaign asked for none."""
    models, curves = results.steps_of("cox"), results.analyses.get("kaplan-meier")
    if not models and curves is None:
        return None
    grid = results.analyses.get("table-grid")
    costs = tuple(GridCost.model_validate(cost.model_dump()) for cost in grid.costs) if grid is not None else ()
    return Survival(
        cox=tuple(_cox(step) for step in models.values()),
        kaplan_meier=None if curves is None else _curves(curves, costs),
    )


def _cox(step: StepResult) -> CoxResult:
    found = step.result if isinstance(step.result, CoxResult) else CoxResult.model_validate(step.about)
    return found.model_copy(update={"sites": step.sites, "not_computed": step.not_computed})


def _curves(step: StepResult, costs: tuple[GridCost, ...]) -> KaplanMeier:
    found = step.result if isinstance(step.result, KaplanMeier) else KaplanMeier.model_validate(step.about)
    return found.model_copy(update={"sites": step.sites, "not_computed": step.not_computed, "held_back": costs})


def groups(results: Results) -> Groups | None:
    """Two groups compared by their gaps; None if the campaign compares none."""
    step, raw = results.analyses.get("groups:gap"), results.analyses.get("groups:raw-gap")
    if step is None:
        return None
    return Groups(
        **step.about,
        corrected=_difference(results, "groups:gap", step),
        raw=None if raw is None else _difference(results, "groups:raw-gap", raw),
    )


def _difference(results: Results, name: str, step: StepResult) -> GroupDifference:
    reasons = {
        site.name: SiteDifference(not_computed=item.reason)
        for site in results.sites
        for item in site.withheld
        if item.step == name
    }
    reasons |= {site: SiteDifference(not_computed=_ONE_GROUP) for site in step.sites}
    by_site = reasons | {site: _own_difference(found) for site, found in step.by_site.items()}
    found = step.result.model_dump() if isinstance(step.result, GroupDifferenceResult) else {}
    return GroupDifference.model_validate(
        {**found, "by_site": dict(sorted(by_site.items())), "not_computed": step.not_computed}
    )


def _own_difference(found: Finding) -> SiteDifference:
    if not isinstance(found, GroupDifferenceResult):
        return SiteDifference()
    return SiteDifference(
        n_group=found.n_group,
        n_reference=found.n_reference,
        unadjusted=found.unadjusted,
        auc=found.auc_within_sites,
        auc_ci95_low=found.auc_within_sites_ci95_low,
        auc_ci95_high=found.auc_within_sites_ci95_high,
        not_computed=found.not_computed,
    )
