"""Cox's model: stratified by site (`cox_by_site`), or with one baseline hazard for all sites (`cox_pooled`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fedage.common.analyses.agreement import agreed, rule_of
from fedage.common.analyses.base import Analysis
from fedage.common.analyses.columns import TwoGroups
from fedage.common.analyses.definition import Definition, LeftOut, Step
from fedage.common.analyses.of_file import COX, BoolArray, beside, computed, followed_with, levels_of, why_not
from fedage.common.analyses.survival import _cox_compared, _cox_shown
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from fedage.common.analyses.survival.follow_up import with_start
from fedage.common.analyses.survival.results import CoxResult
from fedage.common.analyses.survival.table_grid import TABLE_GRID, TableGrid
from fedage.common.campaign.types import Campaign, CoxModel, Survival
from fedage.common.statistics.cohort import Cohort

NAME = "cox"


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:
    survival = campaign.survival
    models = computed(survival) if survival is not None else []
    grid = steps.get(TABLE_GRID)
    for k, model in enumerate(models):
        if survival is None:
            return
        others, about = beside(campaign, models[:k]), _about(survival, model)
        if model.by_site:
            yield Step(agreed(_by_site(survival, model, others), campaign), ("gap_years",), about)
        else:
            analysis = _pooled(campaign, survival, model, grid if isinstance(grid, TableGrid) else None, others)
            yield Step(analysis, (TABLE_GRID,), about)


def _by_site(survival: Survival, model: CoxModel, others: tuple[str | TwoGroups, ...]) -> CoxBySite:
    return CoxBySite(
        f"{COX}{model.name}",
        model.covariates,
        time=survival.time,
        event=survival.event,
        strata=survival.strata,
        ties=survival.ties,
        time_grid_years=survival.time_grid_years,
        beside=others,
    )


def _pooled(
    campaign: Campaign, survival: Survival, model: CoxModel, grid: TableGrid | None, others: tuple[str | TwoGroups, ...]
) -> CoxPooled:
    return CoxPooled(
        f"{COX}{model.name}",
        model.covariates,
        with_start(survival.table_times_years),
        time=survival.time,
        event=survival.event,
        strata=survival.strata,
        levels=levels_of(survival),
        ties=survival.ties,
        minimum_count=1 if campaign.privacy.secure_aggregation else campaign.cell_minimum,
        grid=grid,
        influence=None if campaign.privacy.secure_aggregation else rule_of(campaign),
        beside=others,
    )


def _about(survival: Survival, model: CoxModel) -> dict[str, object]:
    return {"model": model.name, "stratified_by_site": model.by_site, "ties": survival.ties}


def _left_out(campaign: Campaign) -> dict[str, LeftOut]:
    survival = campaign.survival
    return {
        f"{COX}{model.name}": LeftOut(reason, _about(survival, model))
        for model in (survival.models if survival is not None else ())
        if survival is not None and (reason := why_not(survival, model))
    }


def _columns(campaign: Campaign) -> Iterator[str]:
    survival = campaign.survival
    if survival is not None:
        yield from (survival.time, survival.event, *survival.strata)
        for model in survival.models:
            yield from model.covariates


def _sets(campaign: Campaign, cohort: Cohort) -> Iterator[BoolArray]:
    survival = campaign.survival
    for model in survival.models if survival is not None else ():
        if survival is not None and model.by_site:
            yield followed_with(cohort, campaign, (*model.covariates, *survival.strata))


ANALYSIS = Definition(
    name=NAME,
    subject="a survival analysis",
    result=CoxResult,
    steps=_steps,
    words=lambda step: f"the Cox model {step.removeprefix(COX)}",
    builds_on=(TABLE_GRID,),
    columns=_columns,
    sets=_sets,
    left_out=_left_out,
    shown=_cox_shown.shown,
    compared=_cox_compared.compared,
    figures=_cox_compared.figures,
    missing=_cox_compared.missing,
    place=41,
)
