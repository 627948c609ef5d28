"""Which analyses a campaign file implies, by name and in order. Both sides derive them; nothing else is answered."""

from __future__ import annotations

from fedage.common.analyses import registry
from fedage.common.analyses._columns import TwoGroups
from fedage.common.analyses._survival import with_start
from fedage.common.analyses.agreement import agreed, rule_of
from fedage.common.analyses.base import Analysis
from fedage.common.analyses.bias_line import BiasLine
from fedage.common.analyses.binned import GapByAge, PredictedByAge, age_edges
from fedage.common.analyses.cox_by_site import CoxBySite
from fedage.common.analyses.cox_pooled import CoxPooled
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.error_curve import ErrorCurve
from fedage.common.analyses.evaluation import Evaluation
from fedage.common.analyses.group_difference import GroupDifference
from fedage.common.analyses.kaplan_meier import KaplanMeier
from fedage.common.analyses.planted import Attenuation
from fedage.common.analyses.table_grid import TableGrid
from fedage.common.campaign.types import Campaign, CoxModel, Survival

TEST, VALIDATION, CORRECTED = "evaluation:test", "evaluation:validation", "evaluation:test-corrected"
BIAS, TABLE_GRID, KAPLAN_MEIER, ATTENUATION = "bias", "table-grid", "kaplan-meier", "attenuation"
PREDICTED_BY_AGE, GAP_RAW, GAP_CORRECTED = "predicted-by-age", "gap-by-age:raw", "gap-by-age:corrected"
ERROR_CURVE_RAW, ERROR_CURVE_CORRECTED = "error-curve:test", "error-curve:test-corrected"
GROUPS, GROUPS_RAW = "groups:gap", "groups:raw-gap"
COX = "cox:"
"""Names of registered steps; a Cox model's is this prefix and its name in the file."""

_BINARY = ("healthy", "is_male")
"""Strata columns whose values are known beforehand, as an unstratified model needs them."""


_CORRECTED = ("corrected_years", "gap_years", "cole_gap_years")
"""Columns that are there once ages are corrected."""


def definitions(campaign: Campaign) -> list[Definition]:
    """The analyses that a campaign may have steps of: FedAge's own, and those that the file asks for by a table.

    What is asked for so and is not installed here is left out: the file's check says so.
    """
    asked = campaign.analyses.asked_for()
    found = [each for each in registry.own().values() if each.options is None or each.name in asked]
    others = (registry.definition_of(name) for name in asked if name not in registry.own())
    return registry.in_order([*found, *(each for each in others if each is not None)])


def steps_of(campaign: Campaign, name: str) -> dict[str, Step]:
    """The steps of one analysis, by their names."""
    return _steps(campaign).get(name, {})


def analysis_of_steps(campaign: Campaign) -> dict[str, Definition]:
    """The analysis that each step belongs to, those that cannot be computed among them."""
    by_name = {each.name: each for each in definitions(campaign)}
    found = {step: by_name[name] for name, steps in _steps(campaign).items() for step in steps}
    return found | {step: each for each in by_name.values() for step in each.left_out(campaign)}


def stages(campaign: Campaign) -> tuple[tuple[Analysis, ...], ...]:
    """The analyses after prediction, and those after bias correction."""
    first, second = _named_by_file(campaign)
    late = {analysis.name for analysis in second}
    for steps in _steps(campaign).values():
        for name, step in steps.items():
            if any(need in late or need in _CORRECTED for need in step.needs):
                late.add(name)
                second = (*second, step.analysis)
            else:
                first = (*first, step.analysis)
    return first, second


def _steps(campaign: Campaign) -> dict[str, dict[str, Step]]:
    """The steps of each analysis that has a file of its own, in an order in which what a step needs is before it."""
    there: dict[str, Analysis] = {analysis.name: analysis for stage in _named_by_file(campaign) for analysis in stage}
    found: dict[str, dict[str, Step]] = {}
    for definition in definitions(campaign):
        own = {step.analysis.name: step for step in definition.steps(campaign, there)}
        if taken := own.keys() & there.keys():
            raise ValueError(f"analysis {definition.name}: step {min(taken)} is another analysis' already")
        there |= {name: step.analysis for name, step in own.items()}
        found[definition.name] = own
    return found


def _named_by_file(campaign: Campaign) -> tuple[tuple[Analysis, ...], tuple[Analysis, ...]]:
    """The analyses after prediction, and those after bias correction.

    Survival is computed on test patients only: the bias line was fitted on others.
    """
    edges = age_edges(campaign.cohort.age_min_years, campaign.cohort.age_max_years)
    minimum, rule = campaign.cell_minimum, rule_of(campaign)
    healthy = campaign.cohort.train_on == "healthy"
    if campaign.estimator is None:
        told: tuple[Analysis, ...] = ()
        if campaign.table and campaign.table.predicted:
            told = (
                Evaluation(TEST, "is_test", healthy_only=healthy, minimum_count=minimum),
                PredictedByAge(PREDICTED_BY_AGE, edges, minimum_count=minimum),
                GapByAge(GAP_RAW, "raw_gap_years", edges, minimum_count=minimum, influence=rule),
                ErrorCurve(ERROR_CURVE_RAW, minimum_count=minimum, healthy_only=healthy),
            )
        return told, (*_survival(campaign), *_groups(campaign))
    predicted: tuple[Analysis, ...] = (
        Evaluation(TEST, "is_test", healthy_only=healthy, minimum_count=minimum),
        Evaluation(VALIDATION, "is_validation", healthy_only=healthy, baseline=False, minimum_count=minimum),
        BiasLine(BIAS, "is_validation"),
        PredictedByAge(PREDICTED_BY_AGE, edges, minimum_count=minimum),
        ErrorCurve(ERROR_CURVE_RAW, minimum_count=minimum, healthy_only=healthy),
    )
    corrected: tuple[Analysis, ...] = (
        Evaluation(
            CORRECTED, "is_test", "corrected_years", healthy_only=healthy, baseline=False, minimum_count=minimum
        ),
        GapByAge(GAP_RAW, "raw_gap_years", edges, minimum_count=minimum, influence=rule),
        GapByAge(GAP_CORRECTED, "gap_years", edges, minimum_count=minimum, influence=rule),
        ErrorCurve(ERROR_CURVE_CORRECTED, prediction="corrected_years", minimum_count=minimum, healthy_only=healthy),
        *_survival(campaign),
        *_groups(campaign),
    )
    return predicted, corrected


def registered(campaign: Campaign) -> dict[str, Analysis]:
    """Every analysis of the campaign by its name."""
    return {analysis.name: analysis for stage in stages(campaign) for analysis in stage}


def left_out(campaign: Campaign) -> dict[str, str]:
    """What the file asks for and does not allow to compute: name of the analysis to the reason."""
    of_definitions = {step: why for each in definitions(campaign) for step, why in each.left_out(campaign).items()}
    survival = campaign.survival
    if survival is None:
        return of_definitions
    reasons = {f"{COX}{model.name}": _why_not(survival, model) for model in survival.models}
    if not survival.table_times_years:
        reasons[KAPLAN_MEIER] = _NO_TABLES
    return {name: reason for name, reason in reasons.items() if reason} | of_definitions


_NO_TABLES = "needs times at which tables may leave a site; set survival.table_times_years"


def _why_not(survival: Survival, model: CoxModel) -> str:
    if model.by_site:
        return ""
    if not survival.table_times_years:
        return _NO_TABLES
    unknown = [column for column in survival.strata if column not in _BINARY]
    if unknown:
        return (
            f"an unstratified model cannot know the levels of strata {', '.join(unknown)} "
            f"(it knows those of {', '.join(_BINARY)}); set by_site = true or drop the strata"
        )
    return ""


def _survival(campaign: Campaign) -> tuple[Analysis, ...]:
    survival = campaign.survival
    if survival is None:
        return ()
    models = _computed(survival)
    grid = _table_grid(campaign, survival, models) if survival.table_times_years else None
    analyses: list[Analysis] = [grid] if grid else []
    analyses += [
        _cox(campaign, survival, model, grid, beside=_beside(campaign, models[:k])) for k, model in enumerate(models)
    ]
    if grid:
        analyses.append(
            KaplanMeier(
                KAPLAN_MEIER,
                with_start(survival.table_times_years),
                gap=curves_by(campaign),
                split_gap_at="zero" if survival.curves_by else survival.split_gap_at,
                time=survival.time,
                event=survival.event,
                minimum_count=campaign.cell_minimum,
                grid=grid,
            )
        )
    if campaign.planted:
        analyses.append(
            Attenuation(
                campaign.planted.hazard_ratio_per_year,
                true_gap=campaign.planted.true_gap,
                time=survival.time,
                event=survival.event,
            )
        )
    return tuple(analyses)


def _computed(survival: Survival) -> list[CoxModel]:
    """The models that the file allows to compute."""
    return [model for model in survival.models if not _why_not(survival, model)]


def _beside(campaign: Campaign, earlier: list[CoxModel]) -> tuple[str | TwoGroups, ...]:
    """The columns whose products, or sums by whose values, leave for the other models and comparisons of the file.

    Covariates of earlier models only: of two columns that nearly repeat each other the later one is left out. What
    tells groups and strata cannot be left out, so it counts as earlier.
    """
    columns: list[str | TwoGroups] = [column for model in earlier for column in model.covariates]
    if campaign.survival is not None:
        columns += campaign.survival.strata
    if (groups := campaign.groups) is not None:
        columns.append(TwoGroups(groups.column, groups.equals, groups.reference))
    return tuple(dict.fromkeys(columns))


def _table_grid(campaign: Campaign, survival: Survival, models: list[CoxModel]) -> TableGrid:
    """The intervals that the curves and the models with one baseline hazard share."""
    gap, pooled = curves_by(campaign), [model for model in models if not model.by_site]
    strata = ((survival.strata, _levels(survival)),) if pooled else ()
    columns = [gap] if gap else []
    columns += [column for model in pooled for column in (*model.covariates, *survival.strata)]
    return TableGrid(
        TABLE_GRID,
        with_start(survival.table_times_years),
        gap=gap,
        split_gap_at="zero" if survival.curves_by else survival.split_gap_at,
        strata=strata,
        needed=tuple(dict.fromkeys(columns)),
        time=survival.time,
        event=survival.event,
        minimum_count=campaign.cell_minimum,
        smallest_site=survival.curves_from_patients,
    )


def _levels(survival: Survival) -> tuple[tuple[float, ...], ...]:
    return tuple((0.0, 1.0) for _ in survival.strata)


def curves_by(campaign: Campaign) -> str | None:
    """The column that makes the groups of the Kaplan-Meier curves; None for a campaign with neither one nor a gap."""
    survival, gap = campaign.survival, _gap(campaign)
    if survival is None:
        return None
    has_gap = campaign.estimator is not None or any(gap in model.covariates for model in survival.models)
    return survival.curves_by or (gap if has_gap else None)


def _gap(campaign: Campaign) -> str:
    return "gap_years" if campaign.bias.scale == "de-lange" else "cole_gap_years"


def tells_raw_gap(campaign: Campaign) -> bool:
    """Whether the sites' tables hold predicted ages, so that gaps come from them and not from a column of gaps."""
    return campaign.estimator is None and bool(campaign.table and campaign.table.predicted)


def compared_gap(campaign: Campaign) -> str:
    """The column of gaps that groups are compared by."""
    return "raw_gap_years" if tells_raw_gap(campaign) else _gap(campaign)


def _groups(campaign: Campaign) -> tuple[Analysis, ...]:
    """The comparison on the gap that survival uses, and on the raw one where a model of this campaign predicts.

    Ages that a table already predicts have no bias line: their gap is the raw one.
    """
    groups = campaign.groups
    if groups is None:
        return ()
    gaps = {GROUPS: compared_gap(campaign)}
    if campaign.estimator is not None:
        gaps[GROUPS_RAW] = "raw_gap_years"
    models = _computed(campaign.survival) if campaign.survival else []
    differences = (
        GroupDifference(
            name,
            groups.column,
            equals=groups.equals,
            reference=groups.reference,
            gap=gap,
            covariates=groups.covariates,
            minimum_count=campaign.cell_minimum,
            beside=_beside(campaign, models),
        )
        for name, gap in gaps.items()
    )
    return tuple(agreed(difference, campaign) for difference in differences)


def _cox(
    campaign: Campaign,
    survival: Survival,
    model: CoxModel,
    grid: TableGrid | None,
    *,
    beside: tuple[str | TwoGroups, ...],
) -> Analysis:
    name = f"{COX}{model.name}"
    if model.by_site:
        by_site = CoxBySite(
            name,
            model.covariates,
            time=survival.time,
            event=survival.event,
            strata=survival.strata,
            ties=survival.ties,
            time_grid_years=survival.time_grid_years,
            beside=beside,
        )
        return agreed(by_site, campaign)
    return CoxPooled(
        name,
        model.covariates,
        with_start(survival.table_times_years),
        time=survival.time,
        event=survival.event,
        strata=survival.strata,
        levels=_levels(survival),
        ties=survival.ties,
        minimum_count=campaign.cell_minimum,
        grid=grid,
        influence=rule_of(campaign),
        beside=beside,
    )
