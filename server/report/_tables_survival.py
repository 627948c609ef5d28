"""The report's tables about follow-up: Cox models and Kaplan-Meier curves."""

from __future__ import annotations

from fedage.server.report._cells import NONE, Cell, Table, count, interval, number, p_value, percent, words
from fedage.server.report.figure_hazards import implied_hazard_ratio
from fedage.server.results import CoxResult, Results
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
            row = [
                words(model.model),
                words(item.name),
                number(item.hazard_ratio, 3),
                interval(item.ci95_low, item.ci95_high),
                p_value(item.p),
                number(item.hazard_ratio_per_sd, 3),
                count(model.n) if model.n is not None else NONE,
                count(model.events) if model.events is not None else NONE,
                _sites(results, model),
            ]
            if planted is not None:
                row.append(number(implied_hazard_ratio(planted, item.name), 3))
            rows.append(tuple(row))
    return Table("hazards", tuple(headers), tuple(rows), why_empty=_no_model(results))


def _sites(results: Results, model: CoxResult) -> Cell:
    """How many sites a model rests on, and which where it is one of several."""
    if not model.sites:
        return NONE
    cell, only = count(len(model.sites)), alone(results, model.sites)
    return Cell(f"{cell.text} (only {only})", cell.value) if only else cell


def first_hazards(results: Results) -> Table:
    """The first screen's hazard ratios: those of the gaps, or without any all of the first model with a result."""
    full = hazards(results)
    kept = [0, 1, 2, 3, *range(7, len(full.headers))]
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
        final = next((value for value in reversed(group.survival) if value is not None), None)
        median = number(group.median_survival) if group.median_survival is not None else words("not reached")
        rows.append((words(group.name), count(group.n), count(group.events), percent(final), median))
    why = found.not_computed if found is not None and found.not_computed else "No Kaplan-Meier table was computed."
    last = f"without event at {found.table_times[-1]:g} years" if found is not None and found.table_times else "last"
    return Table("groups", ("group", "patients", "events", last, "median, years"), tuple(rows), why_empty=why)
