"""What Cox models show: hazard ratios in sentences, tables, and a forest plot beside them."""

from __future__ import annotations

from fedage.common.analyses.survival import results as survival_results
from fedage.common.analyses.survival._hazards_text import (
    in_unit,
    per_sd,
    ratio_decimals,
    told_per_sd,
)
from fedage.common.analyses.survival.results import Coefficient, CoxResult
from fedage.common.presentation.blocks import Display, FigureBlock, Folded, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import NONE, Cell, Table, count, interval, number, p_value, words
from fedage.common.presentation.participation import alone
from fedage.common.presentation.wording import listed, shortened
from fedage.common.record.results import Results


def shown(results: Results) -> Display:
    """Everything, of a campaign that asks for follow-up."""
    if survival_results.survival(results) is None:
        return Display()

    def figure() -> str | None:
        from fedage.common.analyses.survival._cox_figure import forest

        return forest(results)

    has_gap = _has_gap(results)
    why = next((model.not_computed for model in _models(results) if model.not_computed), "no Cox model was computed")
    questions = "; so do a gap on de Lange's and on Cole's scale" if has_gap else ""
    first = "Hazard ratio per year of gap, on test patients" if has_gap else "Hazard ratio per unit"
    blocks = (
        FigureBlock(figure, _caption(results), why),
        TitledTable(hazards(results), "Hazard ratios (Cox models)"),
        Paragraph(f"A baseline hazard for each site and one for all sites answer different questions{questions}."),
        Folded(
            "Coefficients and fits",
            (TitledTable(coefficients(results), "Coefficients"), TitledTable(models(results), "Fits")),
        ),
    )
    section = Section("survival", heading(results), blocks, place=41, withheld=tuple(results.steps_of("cox")))
    return Display(
        sentences=tuple(sentences(results)),
        terminal=(_terminal(results), *not_computed(results)),
        first=(TitledTable(first_hazards(results), first),),
        sections=(section,),
    )


def not_computed(results: Results) -> list[str]:
    """Which models are not computed and why, each reason once."""
    models_of: dict[str, list[str]] = {}
    for model in _models(results):
        if model.not_computed:
            models_of.setdefault(model.not_computed.rstrip("."), []).append(model.model)
    return [
        f"{listed(names)} {'is' if len(names) == 1 else 'are'} not computed: {reason}."
        for reason, names in models_of.items()
    ]


def heading(results: Results) -> str:
    """Over what is told of follow-up."""
    return "Gap and follow-up" if results.campaign.estimator or _has_gap(results) else "Follow-up"


def _caption(results: Results) -> str:
    reference = results.reference("hazard_ratio")
    return (
        f"Hazard ratios per unit with 95 % intervals{_per_sd_too(results)}"
        f"{'; gaps in colour' if _has_gap(results) else ''}."
        f"{f' Diamonds mark {reference.words}.' if reference is not None else ''}"
    )


def _has_gap(results: Results) -> bool:
    models = survival_results.models(results)
    return any(item.name.endswith("gap_years") for model in models for item in model.covariates)


def _per_sd_too(results: Results) -> str:
    models = survival_results.models(results)
    if not any(told_per_sd(item) for model in models for item in model.covariates):
        return ""
    return ", or per standard deviation (SD) where the unit is small or large against it"


def sentences(results: Results) -> list[str]:
    """What the models say, for the first screen."""
    survival = survival_results.survival(results)
    if survival is None:
        return []
    estimates = [(model, item) for model in survival.cox for item in model.covariates if in_unit(item)[0] is not None]
    for column in _GAPS:
        # One sentence, for the model that matters most; the table under it has them all.
        for model, item in estimates:
            if item.name == column:
                return [_one_hazard(model, item, only=alone(results, model.sites))]
    said = []
    if estimates:
        first, items = _first(estimates)
        said = [_every_hazard(first, items, only=alone(results, first.sites))]
    why = next((model.not_computed for model in survival.cox if model.not_computed), "no model has a gap as covariate")
    if results.campaign.estimator:
        said.append(f"What the gap has to do with follow-up is not known: {_why(why)}.")
    elif not estimates:
        said.append(
            f"What goes with follow-up is not known: {_why(why if survival.cox else 'no model was asked for')}."
        )
    return said


def _first(estimates: list[tuple[CoxResult, Coefficient]]) -> tuple[CoxResult, list[Coefficient]]:
    first = estimates[0][0]
    return first, [item for model, item in estimates if model is first]


def _every_hazard(model: CoxResult, items: list[Coefficient], *, only: str) -> str:
    """A model without a gap: all its covariates, each with the others held fixed."""
    parts, open_ = [], []
    for item in items:
        ratio, low, high = in_unit(item)
        digits = ratio_decimals(ratio, low, high)
        unit = "standard deviation" if told_per_sd(item) else "unit"
        within = ""
        if low is not None and high is not None:
            within = f" (95 % interval {low:.{digits}f} to {high:.{digits}f})"
            if low <= 1 <= high:
                open_.append(item.name)
        parts.append(f"{ratio:.{digits}f} per {unit} of {item.name}{within}")
    shown = f" The interval of {listed(open_)} includes 1: no association is shown." if open_ else ""
    return f"The Cox model {model.model} ({_fit(model, only)}) finds a hazard ratio of {listed(parts)}.{shown}"


def _fit(model: CoxResult, only: str) -> str:
    how = "each site its own baseline" if model.stratified_by_site else "one baseline for all sites"
    if only:
        how = f"of {only} alone, so nothing is pooled"
    return f"{how}, {model.events} events" if model.events is not None else how


# In the order of what the first screen should say.
_GAPS = {
    "gap_years": "corrected gap",
    "cole_gap_years": "corrected gap on Cole's scale",
    "raw_gap_years": "raw gap",
}


def _one_hazard(model: CoxResult, gap: Coefficient, *, only: str) -> str:
    others = [item.name.removesuffix("_years").replace("_", " ") for item in model.covariates if item is not gap]
    held = f", {' and '.join(others)} held fixed" if others else ""
    said = f"A year of {_GAPS[gap.name]} goes with a hazard ratio of {gap.hazard_ratio:.3f}"
    if gap.ci95_low is None or gap.ci95_high is None:
        return f"{said} ({model.model}: {_fit(model, only)}){held}."
    shown = "" if not gap.ci95_low <= 1 <= gap.ci95_high else " The interval includes 1: no association is shown."
    within = f"95 % interval {gap.ci95_low:.3f} to {gap.ci95_high:.3f}"
    return f"{said} ({within}; {model.model}: {_fit(model, only)}){held}.{shown}"


def _why(reason: str) -> str:
    return (reason or "no site released it").rstrip(".")


def _terminal(results: Results) -> TitledTable:
    """The models as the end of a run shows them."""
    reference = results.reference("hazard_ratio")
    headers = ("model", "covariate", "hazard ratio (95 % interval)", "events")
    rows: list[tuple[Cell, ...]] = []
    for model in _models(results):
        title = f"{model.model}, {'by site' if model.stratified_by_site else 'unstratified'}"
        if only := alone(results, model.sites):
            title = f"{title}; {only} alone, nothing pooled"
        if model.not_computed:
            rows.append((words(title), Cell("-"), Cell("not computed")))
            continue
        for covariate in model.covariates:
            ratio, low, high = covariate.hazard_ratio, covariate.ci95_low, covariate.ci95_high
            decimals = ratio_decimals(ratio, low, high)
            between = f"{_number(low, decimals)} to {_number(high, decimals)}"
            row = [
                Cell(title),
                Cell(covariate.name),
                Cell(f"{_number(ratio, decimals)} ({between}){per_sd(covariate, decimals=decimals)}"),
                Cell("-" if model.events is None else str(model.events)),
            ]
            if reference is not None:
                value = reference.values.get(covariate.name)
                row.append(Cell("" if value is None else f"{value:.{decimals}f}"))
            rows.append(tuple(row))
            title = ""
    beside = (reference.heading,) if reference is not None else ()
    return TitledTable(Table("cox", (*headers, *beside), tuple(rows)), "Cox models")


def _number(value: float | None, decimals: int = 3) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def hazards(results: Results) -> Table:
    """The hazard-ratio table: every covariate of every model."""
    reference = results.reference("hazard_ratio")
    headers = ["model", "covariate", "hazard ratio per unit", "95 % interval", "p", "HR per SD"]
    headers += ["patients", "events", "sites"]
    if reference is not None:
        headers.append(reference.heading)
    rows: list[tuple[Cell, ...]] = []
    for model in _models(results):
        if not model.covariates:
            rows.append((words(model.model), words(f"not computed: {model.not_computed or 'no result'}")))
        for item in model.covariates:
            decimals = ratio_decimals(item.hazard_ratio, item.ci95_low, item.ci95_high)
            row = [
                words(model.model),
                words(item.name),
                number(item.hazard_ratio, decimals),
                interval(item.ci95_low, item.ci95_high, decimals),
                p_value(item.p),
                _per_sd(item),
                count(model.n) if model.n is not None else NONE,
                count(model.events) if model.events is not None else NONE,
                _sites(results, model),
            ]
            if reference is not None:
                row.append(number(reference.values.get(item.name), decimals))
            rows.append(tuple(row))
    return Table("hazards", tuple(headers), tuple(rows), why_empty=_no_model(results))


def _per_sd(item: Coefficient) -> Cell:
    """The ratio per SD, and its interval where the one per unit says little."""
    ratio, low, high = item.hazard_ratio_per_sd, item.ci95_per_sd_low, item.ci95_per_sd_high
    if not told_per_sd(item) or ratio is None or low is None or high is None:
        return number(ratio, 3)
    digits = ratio_decimals(ratio, low, high)
    return Cell(f"{ratio:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})", repr(float(ratio)))


def _sites(results: Results, model: CoxResult) -> Cell:
    """How many sites a model rests on, and which where it is one of several."""
    if not model.sites:
        return NONE
    cell, only = count(len(model.sites)), alone(results, model.sites)
    return Cell(f"{cell.text} (only {shortened(only, most=20)})", cell.value) if only else cell


def first_hazards(results: Results) -> Table:
    """The first screen's hazard ratios: those of the gaps, or without any all of the first model with a result."""
    full, cox_models = hazards(results), _models(results)
    has_gap = any(item.name.endswith("gap_years") for model in cox_models for item in model.covariates)
    per_sd = [5] if not has_gap and any(told_per_sd(item) for model in cox_models for item in model.covariates) else []
    kept = [0, 1, 2, 3, *per_sd, *range(7, len(full.headers))]
    rows = [tuple(row[k] for k in kept) for row in full.rows if len(row) > 2]
    gaps = tuple(row for row in rows if row[1].text.endswith("gap_years"))
    headers = tuple(full.headers[k].replace("per unit", "per year" if gaps else "per unit") for k in kept)
    if gaps:
        return Table("gap-hazards", headers, gaps)
    first = tuple(row for row in rows if row[0] == rows[0][0])
    return Table("first-hazards", headers, first, why_empty=_no_model(results))


def models(results: Results) -> Table:
    """How each Cox model was fitted."""
    rows = tuple(
        (
            words(model.model),
            words("each site its own" if model.stratified_by_site else "one for all sites"),
            words(model.ties),
            number(model.log_likelihood, 3),
            number(model.null_log_likelihood, 3),
            number(model.concordance, 3),
            words(", ".join(model.sites)),
        )
        for model in _models(results)
        if model.covariates
    )
    headers = ("model", "baseline hazard", "ties", "log-likelihood", "null", "concordance within sites", "sites")
    return Table("models", headers, rows, why_empty=_no_model(results))


def coefficients(results: Results) -> Table:
    """Log hazard ratios and what they rest on."""
    rows = tuple(
        (
            words(model.model),
            words(item.name),
            number(item.coef, 5),
            number(item.se, 5),
            number(item.z),
            number(item.sd, 3),
        )
        for model in _models(results)
        for item in model.covariates
    )
    headers = ("model", "covariate", "coefficient", "standard error", "z", "SD of the covariate")
    return Table("coefficients", headers, rows, why_empty=_no_model(results))


def _models(results: Results) -> tuple[CoxResult, ...]:
    return survival_results.models(results)


def _no_model(results: Results) -> str:
    if survival_results.survival(results) is None:
        return "The campaign asked for no survival analysis."
    why = next((model.not_computed for model in survival_results.models(results) if model.not_computed), "")
    return f"Not computed: {why}" if why else "The campaign lists no Cox model."
