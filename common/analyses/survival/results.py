"""What the survival analyses find, typed, and what a record says of them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator
from pydantic import Field as Described

from fedage.common.record.parts import AnalysisResult, Number, Part
from fedage.common.record.results import Results, StepResult


class Coefficient(AnalysisResult):
    """One covariate of a Cox model. Intervals `ci95 = [low, high]` and `ci95_per_sd` are taken apart."""

    name: str = Described(description="column")
    coef: Number = Described(description="log hazard ratio per unit")
    se: Number = Described(description="standard error")
    z: Number = Described(default=None, description="coef / se")
    p: Number = Described(default=None, description="two-sided Wald p")
    hazard_ratio: Number = Described(description="per unit")
    ci95_low: Number = Described(description="of the hazard ratio per unit")
    ci95_high: Number = Described(description="of the hazard ratio per unit")
    sd: Number = Described(default=None, description="standard deviation of the covariate")
    hazard_ratio_per_sd: Number = Described(default=None, description="per standard deviation")
    ci95_per_sd_low: Number = Described(default=None, description="of the hazard ratio per standard deviation")
    ci95_per_sd_high: Number = Described(default=None, description="of the hazard ratio per standard deviation")

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


class CoxResult(AnalysisResult):
    """One Cox model."""

    model: str = Described(description="its name in the campaign file")
    stratified_by_site: bool = Described(default=True, description="each site its own baseline hazard, or one for all")
    ties: str = Described(default="efron", description="how tied event times are treated")
    n: int | None = Described(default=None, description="patients")
    events: int | None = Described(default=None, description="events")
    sites: tuple[str, ...] = Described(default=(), description="sites whose sums it rests on")
    log_likelihood: Number = Described(default=None, description="at the estimate")
    null_log_likelihood: Number = Described(default=None, description="at zero")
    concordance: Number = Described(default=None, description="within sites only, if computed")
    covariates: tuple[Coefficient, ...] = Described(default=(), description="in the order of the file")
    merged_table_times: int = Described(
        default=0, description="table times of the file that are not common to the sites"
    )
    likelihood: str = Described(default="", description="what an unstratified model rests on")
    follow_up_ends_years: Number = Described(
        default=None, description="of an unstratified model; later events are not in it"
    )
    withheld_columns: tuple[str, ...] = Described(
        default=(),
        description="covariates left out at all sites, as at one at least too few patients differ in them, or one "
        "makes up too much of a sum",
    )
    not_computed: str = Described(default="", description="why there is no result")


class SurvivalCurve(AnalysisResult):
    """Survival estimate of one group, Kaplan-Meier or actuarial; one value for each common table time."""

    name: str = Described(description="the group, e.g. `high gap`")
    n: int | None = Described(default=None, description="patients")
    events: int | None = Described(default=None, description="events")
    survival: tuple[Number, ...] = Described(
        description="fraction without the event; null where nobody is at risk or the point is refused"
    )
    ci95_low: tuple[Number, ...] = Described(default=(), description="lower end of its 95 % interval")
    ci95_high: tuple[Number, ...] = Described(default=(), description="upper end of its 95 % interval")
    bound_low: tuple[Number, ...] = Described(
        default=(), description="lowest value that grouping times between table times leaves open; null beyond the data"
    )
    bound_high: tuple[Number, ...] = Described(default=(), description="highest such value")
    refused: tuple[str, ...] = Described(default=(), description="why a point is not given; empty if it is")
    at_risk: tuple[int | None, ...] = Described(default=(), description="patients at risk after the table time before")
    events_at: tuple[int | None, ...] = Described(default=(), description="events since the table time before")
    remaining: tuple[int | None, ...] = Described(
        default=(), description="patients followed up to the table time without an event"
    )
    median_survival: Number = Described(default=None, description="median in years; null if not reached, or not exact")
    median_between: tuple[float, float] | None = Described(
        default=None, description="table times in years between which the median lies, where it is not exact"
    )


class LogRank(AnalysisResult):
    """Log-rank test of the two groups."""

    chi2: Number = Described(description="Mantel's χ²")
    df: int = Described(default=1, description="degrees of freedom")
    p: Number = Described(description="its p")
    p_bounds: tuple[float, float] | None = Described(
        default=None, description="smallest and largest p that grouping times between table times leaves open"
    )


class Curves(AnalysisResult):
    """High against low gap, or the two groups of another column, or all patients."""

    column: str | None = Described(default=None, description="what the groups are made by; null for one curve of all")
    sites: tuple[str, ...] = Described(default=(), description="sites whose sums it rests on")
    table_times: tuple[float, ...] = Described(
        default=(), description="years, rising: those of the file on which the sites agreed; the curves end at the last"
    )
    asked_times: tuple[float, ...] = Described(default=(), description="table times of the file, in years")
    groups: tuple[SurvivalCurve, ...] = Described(default=(), description="low gap, or 0 of the column, first")
    split_years: Number = Described(default=None, description="gap above which it is high")
    log_rank: LogRank | None = Described(default=None, description="null without two groups and events, or if refused")
    log_rank_refused: str = Described(default="", description="why the test is not given; empty if it is")
    merged_table_times: int = Described(
        default=0, description="table times of the file that are not common to the sites"
    )
    held_back: tuple[GridCost, ...] = Described(default=(), description="which sites cost how much resolution")
    not_computed: str = Described(default="", description="why there is no result")

    @property
    def is_grouped(self) -> bool:
        """Whether a point leaves anything open: somebody censored between table times, or table times merged."""
        return bool(self.merged_table_times) or any(
            low is not None and high is not None and high - low > 1e-9
            for group in self.groups
            for low, high in zip(group.bound_low, group.bound_high, strict=True)
        )


class GridCost(AnalysisResult):
    """Sites that make an interval between table times longer for all, or end the curves."""

    sites: tuple[str, ...] = Described(description="which")
    from_years: Number = Described(description="where the interval begins")
    to_years: Number = Described(default=None, description="where they let it end; null if nowhere: the curves end")
    others_to_years: Number = Described(default=None, description="where the other sites could end it")


class GridResult(AnalysisResult):
    """The times between which every cell of every site's table is empty or large enough."""

    table_times: tuple[float, ...] = Described(description="years, rising: those of the file on which the sites agreed")
    asked_times: tuple[float, ...] = Described(default=(), description="table times of the file, in years")


class Survival(Part):
    """What the gap, or other columns, have to do with follow-up."""

    cox: tuple[CoxResult, ...] = Field(default=(), description="the file's models")
    kaplan_meier: Curves | None = Field(default=None, description="curves of the groups")


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
    all_of = survival(results)
    return () if all_of is None else all_of.cox


def curves(results: Results) -> Curves | None:
    """The survival curves; None if the campaign asked for none."""
    all_of = survival(results)
    return None if all_of is None else all_of.kaplan_meier


def _cox(step: StepResult) -> CoxResult:
    cox = step.result if isinstance(step.result, CoxResult) else CoxResult.model_validate(step.about)
    return cox.model_copy(update={"sites": step.sites, "not_computed": step.not_computed})


def _curves(step: StepResult, costs: tuple[GridCost, ...]) -> Curves:
    curves_result = step.result if isinstance(step.result, Curves) else Curves.model_validate(step.about)
    return curves_result.model_copy(update={"sites": step.sites, "not_computed": step.not_computed, "held_back": costs})
