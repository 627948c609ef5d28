"""What the steps of a record say together, by subject, for tables and sentences that need several steps at once."""

from __future__ import annotations

from pydantic import Field

from fedage.common.analyses.evaluation.metrics import Metrics
from fedage.common.analyses.groups.result import Difference, GroupDifferenceResult
from fedage.common.analyses.survival.cox import CoxResult
from fedage.common.analyses.survival.kaplan_meier import Curves
from fedage.common.analyses.survival.table_grid import GridCost
from fedage.common.record.parts import AnalysisResult, Number, Part
from fedage.common.record.results import NO_ESTIMATOR, Results, StepResult

_FITTED = "the bias line is fitted on these patients"
_FOLDS = "with folds every patient is a test patient, so no others are left"
_ONE_GROUP = "it has patients of one group only, so it adds nothing to the difference"


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


class Survival(Part):
    """What the gap, or other columns, have to do with follow-up."""

    cox: tuple[CoxResult, ...] = Field(default=(), description="the file's models")
    kaplan_meier: Curves | None = Field(default=None, description="curves of the groups")


class SiteDifference(AnalysisResult):
    """One site's own comparison, without covariates."""

    n_group: int | None = Field(default=None, description="patients in the group of interest")
    n_reference: int | None = Field(default=None, description="patients in the reference group")
    unadjusted: Difference | None = Field(default=None, description="difference of the site's two means")
    auc: Number = Field(default=None, description="ROC AUC of the gap for the group, exact")
    auc_ci95_low: Number = Field(default=None, description="lower end of its 95 % interval (DeLong, on the logit)")
    auc_ci95_high: Number = Field(default=None, description="upper end of its 95 % interval")
    not_computed: str = Field(default="", description="why there is none")


class GroupDifference(GroupDifferenceResult):
    """The same with each site beside it."""

    by_site: dict[str, SiteDifference] = Field(default_factory=dict, description="each site on its own")
    not_computed: str = Field(default="", description="why there is no result")


class Groups(Part):
    """Two groups of patients compared by their gap, sites held fixed."""

    column: str = Field(description="column that tells the groups")
    equals: float = Field(description="its value for the group of interest")
    reference: float = Field(description="its value for the reference group")
    covariates: tuple[str, ...] = Field(default=(), description="columns held fixed beside the site")
    corrected: GroupDifference = Field(
        default_factory=GroupDifference,
        description="by the corrected gap; without an estimator by the gap that the sites' tables imply or bring: "
        "`gap` names the column",
    )
    raw: GroupDifference | None = Field(default=None, description="by the raw gap; null without an estimator")


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


def asked_age(results: Results) -> bool:
    """Whether predicted ages are told of: of the campaign's model, or as the sites' tables bring them."""
    return bool(results.campaign.estimator) or evaluation(results).test.raw.overall is not None


def _evaluated(results: Results, name: str) -> Evaluated:
    step = results.analyses.get(name)
    if step is None:
        return Evaluated(not_computed="" if results.campaign.estimator else NO_ESTIMATOR)
    return Evaluated(
        overall=step.result if isinstance(step.result, Metrics) else None,
        by_site={site: found for site, found in step.by_site.items() if isinstance(found, Metrics)},
        not_computed=step.not_computed,
    )


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


def models(results: Results) -> tuple[CoxResult, ...]:
    """The Cox models that the campaign asks for."""
    found = survival(results)
    return () if found is None else found.cox


def curves(results: Results) -> Curves | None:
    """The survival curves; None if the campaign asked for none."""
    found = survival(results)
    return None if found is None else found.kaplan_meier


def _cox(step: StepResult) -> CoxResult:
    found = step.result if isinstance(step.result, CoxResult) else CoxResult.model_validate(step.about)
    return found.model_copy(update={"sites": step.sites, "not_computed": step.not_computed})


def _curves(step: StepResult, costs: tuple[GridCost, ...]) -> Curves:
    found = step.result if isinstance(step.result, Curves) else Curves.model_validate(step.about)
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


def _own_difference(found: AnalysisResult) -> SiteDifference:
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
