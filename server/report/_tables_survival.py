"""The report's tables about follow-up: Cox models and Kaplan-Meier curves."""

from __future__ import annotations

from fedage.common.presentation.cells import NONE, Cell, Table, count, interval, number, p_value, percent, words
from fedage.common.presentation.svg import shortened
from fedage.server import curves_in_words
from fedage.server.hazards_in_words import ratio_decimals, told_per_sd
from fedage.server.report.figure_hazards import implied_hazard_ratio
from fedage.server.results import Coefficient, CoxResult, KaplanMeier, Results, SurvivalCurve
from fedage.server.withheld_in_words import alone


def hazards(results: Results) -> Table:
    """The hazard-ratio table: every covariate of every model."""
    planted = results.planted
    headers = ["model", "covariate", "hazard ratio per unit", "95 % interval", "p", "HR per SD"]
    headers += ["patients", "events", "sites"]
    if planted is not None:
        headers.append("planted truth implies")
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
            if planted is not None:
                row.append(number(implied_hazard_ratio(planted, item.name), decimals))
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
    full, found = hazards(results), _models(results)
    has_gap = any(item.name.endswith("gap_years") for model in found for item in model.covariates)
    per_sd = [5] if not has_gap and any(told_per_sd(item) for model in found for item in model.covariates) else []
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
    return results.survival.cox if results.survival is not None else ()


def _no_model(results: Results) -> str:
    if results.survival is None:
        return "The campaign asked for no survival analysis."
    why = next((model.not_computed for model in results.survival.cox if model.not_computed), "")
    return f"Not computed: {why}" if why else "The campaign lists no Cox model."


def survival_groups(results: Results) -> Table:
    """The curves in numbers."""
    found = results.survival.kaplan_meier if results.survival is not None else None
    rows = []
    for group in found.groups if found is not None else ():
        exact = group.median_survival is not None
        median = number(group.median_survival) if exact else words(curves_in_words.median(group))
        rows.append((words(group.name), count(group.n), count(group.events), _last_point(found, group), median))
    why = found.not_computed if found is not None and found.not_computed else "No Kaplan-Meier table was computed."
    last = f"without event at {found.table_times[-1]:g} years" if found is not None and found.table_times else "last"
    return Table("groups", ("group", "patients", "events", last, "median, years"), tuple(rows), why_empty=why)


def _last_point(found: KaplanMeier | None, group: SurvivalCurve) -> Cell:
    """The value at the last table time, or at the last one at which there is one."""
    times = found.table_times if found is not None else ()
    shown = [(time, value) for time, value in zip(times, group.survival, strict=False) if value is not None]
    if not shown:
        return words("refused") if any(group.refused) else NONE
    time, value = shown[-1]
    cell = percent(value)
    return cell if time == times[-1] else Cell(f"{cell.text} at {time:g} years", cell.value)


def survival_points(results: Results) -> Table:
    """Every point of the curves with its interval and what grouping leaves open."""
    found = results.survival.kaplan_meier if results.survival is not None else None
    headers = ("group", "years", "at risk before", "events", "without event", "95 % interval", "left open by grouping")
    rows: list[tuple[Cell, ...]] = []
    for group in found.groups if found is not None else ():
        for at, time in enumerate(found.table_times if found is not None else ()):
            value = group.survival[at]
            refused = at < len(group.refused) and bool(group.refused[at])
            rows.append(
                (
                    words(group.name),
                    number(time, 2),
                    _count_at(group.at_risk, at),
                    _count_at(group.events_at, at),
                    words("refused") if refused else percent(value) if value is not None else NONE,
                    _span(group.ci95_low, group.ci95_high, at),
                    _span(group.bound_low, group.bound_high, at),
                )
            )
    why = found.not_computed if found is not None and found.not_computed else "No Kaplan-Meier table was computed."
    return Table("points", headers, tuple(rows), why_empty=why)


def _count_at(counts: tuple[int | None, ...], at: int) -> Cell:
    value = counts[at] if at < len(counts) else None
    return count(value) if value is not None else NONE


def _span(low: tuple[float | None, ...], high: tuple[float | None, ...], at: int) -> Cell:
    if at >= min(len(low), len(high)) or low[at] is None or high[at] is None:
        return NONE
    return interval(low[at], high[at])
