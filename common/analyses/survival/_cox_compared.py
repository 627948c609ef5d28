"""Hazard ratios of several runs side by side: per year of gap, and of covariates where a run has no gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from fedage.common.analyses.survival import results as survival_results
from fedage.common.analyses.survival._hazards_text import ratio_decimals, told_per_sd
from fedage.common.presentation.blocks import Display, NamedRun, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import NONE, Cell, Table, count, interval, number, words
from fedage.common.record.parts import Number, Part
from fedage.common.record.results import Results

GAPS = {"gap_years": "de Lange", "cole_gap_years": "Cole", "raw_gap_years": "raw"}
"""Gap columns in the order of interest, and the scale whose years they count."""


class HazardRatio(Part):
    """Of a Cox model with a gap among its covariates, per year of that gap."""

    gap: str = Field(description="the gap's column: gap_years (de Lange), cole_gap_years or raw_gap_years")
    model: str = Field(description="the model's name in the campaign file")
    stratified_by_site: bool = Field(description="each site its own baseline hazard, or one for all")
    hazard_ratio: Number = Field(description="per year")
    ci95_low: Number = Field(description="95 % interval")
    ci95_high: Number = Field(description="95 % interval")
    events: int | None = Field(description="events")


class CovariateRatio(Part):
    """Of a covariate that is no gap, per unit and per standard deviation of the run's patients."""

    covariate: str = Field(description="its column")
    model: str = Field(description="the model's name in the campaign file")
    stratified_by_site: bool = Field(description="each site its own baseline hazard, or one for all")
    hazard_ratio: Number = Field(description="per unit")
    ci95_low: Number = Field(description="95 % interval")
    ci95_high: Number = Field(description="95 % interval")
    sd: Number = Field(description="standard deviation of the covariate")
    hazard_ratio_per_sd: Number = Field(description="per standard deviation")
    ci95_per_sd_low: Number = Field(description="95 % interval")
    ci95_per_sd_high: Number = Field(description="95 % interval")
    told_per_sd: bool = Field(description="whether the ratio per unit says little")
    events: int | None = Field(description="events")


def compared(runs: Sequence[NamedRun]) -> Display:
    """The tables, and the gaps' hazard ratios as columns of the comparison's first table."""
    of_gaps, others = hazards(runs), covariates(runs)
    columns = [
        (f"HR per {GAPS[gap]} year", {run.label: _hazard(first_with(hazard_ratios(run.results), gap)) for run in runs})
        for gap in _gaps(runs)
    ]
    note = (
        "A year of gap on de Lange's and on Cole's scale are different units, and a baseline hazard for each site and "
        "one for all answer different questions: compare inside one of them."
    )
    per = "per unit or per standard deviation (SD) of the run's patients"
    sections = [
        Section(
            "survival",
            "Gap and follow-up",
            (TitledTable(of_gaps, "Hazard ratio per year of gap, on test patients"), Paragraph(note)),
            place=41,
        ),
        Section(
            "covariates",
            "Covariates and follow-up",
            (TitledTable(others, f"Hazard ratios of runs without a gap, {per}"),),
            place=42,
        ),
    ]
    return Display(
        terminal=(TitledTable(others, "hazard ratios of covariates, gaps aside"),) if others.rows else (),
        columns=tuple(columns),
        sections=tuple(section for section, table in zip(sections, (of_gaps, others), strict=True) if table.rows),
    )


def figures(results: Results) -> dict[str, Any]:
    """Of one run, for the comparison as a document."""
    return {"hazard_ratios": tuple(hazard_ratios(results)), "covariates": tuple(_covariates(results))}


def missing(results: Results) -> dict[str, str]:
    """Why a run has no hazard ratio, if it has none."""
    return {} if hazard_ratios(results) else {"hazard ratio": _why_no_hazard(results)}


def first_with(ratios: Sequence[HazardRatio], gap: str) -> HazardRatio | None:
    """The first model with this gap, one stratified by site before others."""
    of_gap = [ratio for ratio in ratios if ratio.gap == gap]
    return next((ratio for ratio in of_gap if ratio.stratified_by_site), of_gap[0] if of_gap else None)


def _gaps(runs: Sequence[NamedRun]) -> list[str]:
    """The gap columns that any run has a hazard ratio of."""
    return [gap for gap in GAPS if any(first_with(hazard_ratios(run.results), gap) for run in runs)]


def hazard_ratios(results: Results) -> list[HazardRatio]:
    """Of Cox models with a gap among their covariates."""
    return [
        HazardRatio(
            gap=item.name,
            model=model.model,
            stratified_by_site=model.stratified_by_site,
            hazard_ratio=item.hazard_ratio,
            ci95_low=item.ci95_low,
            ci95_high=item.ci95_high,
            events=model.events,
        )
        for model in survival_results.models(results)
        for item in model.covariates
        if item.name in GAPS and item.hazard_ratio is not None
    ]


def _covariates(results: Results) -> list[CovariateRatio]:
    return [
        CovariateRatio(
            covariate=item.name,
            model=model.model,
            stratified_by_site=model.stratified_by_site,
            hazard_ratio=item.hazard_ratio,
            ci95_low=item.ci95_low,
            ci95_high=item.ci95_high,
            sd=item.sd,
            hazard_ratio_per_sd=item.hazard_ratio_per_sd,
            ci95_per_sd_low=item.ci95_per_sd_low,
            ci95_per_sd_high=item.ci95_per_sd_high,
            told_per_sd=told_per_sd(item),
            events=model.events,
        )
        for model in survival_results.models(results)
        for item in model.covariates
        if item.name not in GAPS
    ]


def _why_no_hazard(results: Results) -> str:
    if survival_results.survival(results) is None:
        return "the campaign asked for no survival analysis"
    reasons = [model.not_computed for model in survival_results.models(results) if model.not_computed]
    return reasons[0] if reasons else "no Cox model has a gap among its covariates"


def hazards(runs: Sequence[NamedRun]) -> Table:
    """Every model with a gap, gap by gap, so that only years of one scale stand under each other."""
    rows = tuple(
        (
            words(GAPS[gap]),
            words(run.label),
            words(ratio.model),
            words("each site its own" if ratio.stratified_by_site else "one for all"),
            number(ratio.hazard_ratio, 3),
            interval(ratio.ci95_low, ratio.ci95_high),
            NONE if ratio.events is None else count(ratio.events),
        )
        for gap in _gaps(runs)
        for run in runs
        for ratio in hazard_ratios(run.results)
        if ratio.gap == gap
    )
    headers = ("gap", "run", "model", "baseline hazard", "hazard ratio per year", "95 % interval", "events")
    return Table("hazards", headers, rows, why_empty="no run has a Cox model with a gap")


def covariates(runs: Sequence[NamedRun]) -> Table:
    """Covariates of Cox models without a gap, each per unit or, where a unit says little in any run, per SD in all."""
    without_gap = [run for run in runs if not hazard_ratios(run.results)]
    ratios = [(run.label, ratio) for run in without_gap for ratio in _covariates(run.results)]
    per_sd = {ratio.covariate for _, ratio in ratios if ratio.told_per_sd}
    names = list(dict.fromkeys(ratio.covariate for _, ratio in ratios))
    rows = tuple(
        (
            words(name),
            words(label),
            words(ratio.model),
            words("each site its own" if ratio.stratified_by_site else "one for all"),
            *_ratio(ratio, per_sd=name in per_sd),
            NONE if ratio.events is None else count(ratio.events),
        )
        for name in names
        for label, ratio in ratios
        if ratio.covariate == name
    )
    headers = ("covariate", "run", "model", "baseline hazard", "hazard ratio", "95 % interval", "per", "events")
    return Table("covariates", headers, rows, why_empty="no run has a Cox model without a gap")


def _ratio(ratio: CovariateRatio, *, per_sd: bool) -> tuple[Cell, Cell, Cell]:
    if not per_sd:
        digits = ratio_decimals(ratio.hazard_ratio, ratio.ci95_low, ratio.ci95_high)
        between = interval(ratio.ci95_low, ratio.ci95_high, digits)
        return number(ratio.hazard_ratio, digits), between, words("unit")
    digits = ratio_decimals(ratio.hazard_ratio_per_sd, ratio.ci95_per_sd_low, ratio.ci95_per_sd_high)
    between = interval(ratio.ci95_per_sd_low, ratio.ci95_per_sd_high, digits)
    unit = "SD" if ratio.sd is None else f"SD, {ratio.sd:.3g}"
    return number(ratio.hazard_ratio_per_sd, digits), between, words(unit)


def _hazard(ratio: HazardRatio | None) -> Cell:
    if ratio is None or ratio.hazard_ratio is None:
        return NONE
    bounds = interval(ratio.ci95_low, ratio.ci95_high).text.replace(" to ", "–")
    return Cell(f"{ratio.hazard_ratio:.3f} ({bounds})", repr(ratio.hazard_ratio))
