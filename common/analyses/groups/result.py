"""What the comparison of two groups finds, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator
from pydantic import Field as Described

from fedage.common.record.parts import AnalysisResult, Number, Part
from fedage.common.record.results import Results, StepResult


class Difference(AnalysisResult):
    """The gap of the group of interest minus that of the reference, from one linear regression."""

    difference_years: Number = Described(description="group of interest minus reference")
    se_years: Number = Described(default=None, description="standard error; null without degrees of freedom")
    ci95_low: Number = Described(default=None, description="lower end of its 95 % interval, years")
    ci95_high: Number = Described(default=None, description="upper end of its 95 % interval, years")
    t: Number = Described(default=None, description="difference / standard error")
    df: int | None = Described(default=None, description="degrees of freedom: patients − sites − columns")
    p: Number = Described(default=None, description="two-sided p of t")
    cohens_d: Number = Described(default=None, description="difference over the residual standard deviation")
    residual_sd_years: Number = Described(default=None, description="what sites, group and covariates leave")


class Roc(Part):
    """Points of the ROC curve, all pairs of patients, with rates rising; inside joined cells gaps taken as normal."""

    false_positive: tuple[float, ...] = Described(description="fraction of the reference above a gap")
    true_positive: tuple[float, ...] = Described(description="fraction of the group of interest above it")


class GroupDifferenceResult(AnalysisResult):
    """One gap compared between the groups, over all sites with both or at one."""

    column: str = Described(default="", description="column that tells the groups")
    equals: Number = Described(default=None, description="its value for the group of interest")
    reference: Number = Described(default=None, description="its value for the reference group")
    covariates: tuple[str, ...] = Described(default=(), description="columns asked to be held fixed beside the site")
    gap: str = Described(default="", description="column compared")
    n_group: int | None = Described(
        default=None, description="patients in the group of interest, sites with both groups"
    )
    n_reference: int | None = Described(
        default=None, description="patients in the reference group, sites with both groups"
    )
    left_out: int | None = Described(
        default=None, description="patients of either group with a missing or impossible value"
    )
    left_out_few_sites: int = Described(
        default=0, description="sites that left out some more, fewer than their minimum count, and do not say how many"
    )
    withheld_columns: tuple[str, ...] = Described(
        default=(),
        description="covariates left out at all sites, as at one at least too few patients differ in them, or one "
        "makes up too much of a sum",
    )
    one_group_only: int | None = Described(
        default=None, description="patients at sites without the other group; not used"
    )
    adjusted: Difference | None = Described(default=None, description="sites and covariates held fixed")
    not_adjusted: str = Described(default="", description="why there is no adjusted difference")
    unadjusted: Difference | None = Described(default=None, description="sites held fixed only")
    auc: Number = Described(
        default=None,
        description="ROC AUC of the gap for the group, all pairs of patients; null where the bounds below are wider "
        "apart than its 95 % interval",
    )
    auc_ci95_low: Number = Described(
        default=None, description="lower end of its 95 % interval: chance alone (DeLong, on the logit)"
    )
    auc_ci95_high: Number = Described(default=None, description="upper end of its 95 % interval")
    auc_low: Number = Described(
        default=None, description="what the AUC cannot be below, whatever lies inside joined cells"
    )
    auc_high: Number = Described(default=None, description="what the AUC cannot be above")
    auc_refused: str = Described(default="", description="why the AUC of all pairs is not given")
    auc_within_sites: Number = Described(default=None, description="the same from pairs of one site only, exact")
    auc_within_sites_ci95_low: Number = Described(default=None, description="lower end of its 95 % interval")
    auc_within_sites_ci95_high: Number = Described(default=None, description="upper end of its 95 % interval")
    roc: Roc | None = Described(default=None, description="curve behind the AUC of all pairs")
    not_computed: str = Described(default="", description="why a site has none, in records of version 1")

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, values: Any) -> Any:
        """Differences as parts of their own, intervals taken apart."""
        if not isinstance(values, Mapping) or "difference_years" not in values:
            return values
        moved = ("difference_years", "se_years", "ci95", "t", "df", "p", "cohens_d", "residual_sd_years")
        kept = {key: value for key, value in values.items() if key not in moved}
        for name in ("auc", "auc_within_sites"):
            kept[f"{name}_ci95_low"], kept[f"{name}_ci95_high"] = kept.pop(f"{name}_ci95") or (None, None)
        adjusted, unadjusted = (_taken_apart(each) for each in (values, values["unadjusted"]))
        return {**kept, "adjusted": adjusted, "unadjusted": unadjusted}


def _taken_apart(values: Mapping[str, Any]) -> dict[str, Any] | None:
    if values["difference_years"] is None:
        return None
    low, high = values["ci95"] or (None, None)
    kept = ("difference_years", "se_years", "t", "df", "p", "cohens_d", "residual_sd_years")
    return {**{key: values[key] for key in kept}, "ci95_low": low, "ci95_high": high}


_ONE_GROUP = "it has patients of one group only, so it adds nothing to the difference"


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
    by_site = reasons | {site: _own_difference(own) for site, own in step.by_site.items()}
    own = step.result.model_dump() if isinstance(step.result, GroupDifferenceResult) else {}
    return GroupDifference.model_validate(
        {**own, "by_site": dict(sorted(by_site.items())), "not_computed": step.not_computed}
    )


def _own_difference(own: AnalysisResult) -> SiteDifference:
    if not isinstance(own, GroupDifferenceResult):
        return SiteDifference()
    return SiteDifference(
        n_group=own.n_group,
        n_reference=own.n_reference,
        unadjusted=own.unadjusted,
        auc=own.auc_within_sites,
        auc_ci95_low=own.auc_within_sites_ci95_low,
        auc_ci95_high=own.auc_within_sites_ci95_high,
        not_computed=own.not_computed,
    )
