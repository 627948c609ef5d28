"""The report's tables, straight from the record."""

from __future__ import annotations

from collections import Counter

from fedage.server.report._cells import (
    NONE,
    Cell,
    Table,
    count,
    interval,
    number,
    p_value,
    percent,
    reasons,
    words,
)
from fedage.server.report.figure_hazards import implied_hazard_ratio
from fedage.server.results import CoxResult, Evaluated, Metrics, Results, SiteRecord


def sites(results: Results) -> Table:
    """What each site brought and what it set aside."""
    folds = tuple(f"fold {number}" for number in range(1, (results.campaign.folds or 0) + 1))
    parts = folds or _PARTS
    rows = tuple(
        (
            words(site.name),
            words(_status(site)),
            count(site.patients),
            *(count(site.patients_by_part[part]) if part in site.patients_by_part else NONE for part in parts),
            reasons(site.excluded),
            reasons(site.rejected_files),
            reasons(site.rejected_samples),
            words(site.device),
        )
        for site in results.sites
    )
    headers = ("site", "status", "patients", *parts, "patients excluded", "files rejected", "images refused", "device")
    return Table("sites", headers, rows, why_empty="No site answered the offer of the campaign.")


def _status(site: SiteRecord) -> str:
    when = f" in round {site.dropped_out_in_round}" if site.dropped_out_in_round else ""
    return f"{site.status}{when}{': ' if site.reason else ''}{site.reason}"


_PARTS = ("train", "validation", "test")


def withheld(results: Results) -> Table:
    """What did not leave a site, and what went wrong there."""
    rows = tuple(
        (words(site.name), words(item.step), words(item.reason)) for site in results.sites for item in site.withheld
    )
    return Table("withheld", ("site", "contribution", "why"), rows, why_empty="No site withheld a contribution.")


def troubles(results: Results) -> Table:
    """What went wrong, in the sites' order; what repeats is told once."""
    rows = tuple(
        (words(site.name), words(trouble if times == 1 else f"{trouble} ({times} times)"))
        for site in results.sites
        for trouble, times in Counter(site.troubles).items()
    )
    return Table("troubles", ("site", "what went wrong"), rows, why_empty="Nothing went wrong at any site.")


def headline(results: Results) -> Table:
    """The first screen's table: MAE of each site, raw first."""
    test, planted = results.evaluation.test, results.planted
    headers = ["site", "test patients", "MAE raw", "MAE corrected", "MAE of predicting the mean"]
    if planted is not None:
        headers.append("irreducible MAE")
    rows = []
    for name in sorted(test.raw.by_site):
        raw, corrected = test.raw.by_site[name], test.corrected.by_site.get(name)
        row = _mae(name, raw, corrected)
        if planted is not None:
            row.append(number(planted.irreducible_mae_years_by_site.get(name)))
        rows.append(tuple(row))
    if test.raw.overall is not None:
        row = _mae("all sites", test.raw.overall, test.corrected.overall)
        if planted is not None:
            row.append(number(planted.irreducible_mae_years))
        rows.append(tuple(row))
    return Table("headline", tuple(headers), tuple(rows), why_empty=_why(test.raw, "No evaluation was released."))


def _mae(name: str, raw: Metrics, corrected: Metrics | None) -> list[Cell]:
    return [
        words(name),
        count(raw.n),
        number(raw.mae_years),
        number(corrected.mae_years) if corrected is not None else NONE,
        number(raw.mae_of_mean_years),
    ]


def evaluation(name: str, found: Evaluated) -> Table:
    """One evaluation by site and overall."""
    headers = ("site", "patients", "MAE", "RMSE", "mean error", "|error| ≤ 5 years", "Pearson r", "MAE of the mean")
    everyone = [*sorted(found.by_site.items())]
    if found.overall is not None:
        everyone.append(("all sites", found.overall))
    rows = tuple(
        (
            words(site),
            count(metrics.n),
            number(metrics.mae_years),
            number(metrics.rmse_years),
            number(metrics.mean_error_years),
            percent(metrics.cs_5),
            number(metrics.pearson_r, 3),
            number(metrics.mae_of_mean_years),
        )
        for site, metrics in everyone
    )
    note = "Only one site released figures of its own." if len(found.by_site) == 1 else ""
    return Table(name, headers, rows, why_empty=_why(found, "No site released it."), note=note)


def bias_lines(results: Results) -> Table:
    """The lines that correct the age bias."""
    bias = results.bias
    everyone = [*sorted(bias.lines.items())]
    if bias.overall is not None:
        everyone.append(("all sites", bias.overall))
    rows = tuple(
        (
            words(site),
            count(line.n),
            number(line.slope, 3),
            number(line.intercept_years),
            number(line.residual_sd_years),
        )
        for site, line in everyone
    )
    headers = ("site", "healthy patients", "slope", "intercept, years", "residual SD, years")
    return Table("bias", headers, rows, why_empty=bias.not_computed or "No site released a bias line.")


def hazards(results: Results) -> Table:
    """The hazard-ratio table: every covariate of every model."""
    planted = results.planted
    headers = ["model", "covariate", "hazard ratio per unit", "95 % interval", "p", "HR per SD", "patients", "events"]
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
            ]
            if planted is not None:
                row.append(number(implied_hazard_ratio(planted, item.name), 3))
            rows.append(tuple(row))
    return Table("hazards", tuple(headers), tuple(rows), why_empty=_no_model(results))


def gap_hazards(results: Results) -> Table:
    """The first screen's hazard ratios: those of the gaps."""
    full = hazards(results)
    kept = [0, 1, 2, 3, 7, *range(8, len(full.headers))]
    rows = tuple(tuple(row[k] for k in kept) for row in full.rows if len(row) > 2 and row[1].text.endswith("gap_years"))
    headers = tuple(full.headers[k].replace("per unit", "per year") for k in kept) if full.headers else ()
    why = full.why_empty if not full.rows else "No model with a gap as covariate has a result."
    return Table("gap-hazards", headers, rows, why_empty=why)


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
    """High against low gap in numbers."""
    found = results.survival.kaplan_meier if results.survival is not None else None
    rows = []
    for group in found.groups if found is not None else ():
        final = next((value for value in reversed(group.survival) if value is not None), None)
        median = number(group.median_survival) if group.median_survival is not None else words("not reached")
        rows.append((words(group.name), count(group.n), count(group.events), percent(final), median))
    why = found.not_computed if found is not None and found.not_computed else "No Kaplan-Meier table was computed."
    last = f"without event at {found.table_times[-1]:g} years" if found is not None and found.table_times else "last"
    return Table("groups", ("group", "patients", "events", last, "median, years"), tuple(rows), why_empty=why)


def planted(results: Results) -> Table:
    """What was found, against what the planted truth implies."""
    verdict = {True: words("holds"), False: words("does not hold"), None: NONE}
    rows = tuple(
        (
            words(check.what),
            number(check.found, 3),
            number(check.against, 3),
            number(check.ratio),
            words(check.wanted),
            verdict[check.holds],
        )
        for check in (results.planted.checks if results.planted is not None else ())
    )
    why = "Nothing was planted in this run, so there is no truth to hold it against."
    if results.planted is not None:
        why = "The run did not get far enough to compare anything with the planted truth."
    return Table("planted", ("what", "found", "against", "ratio", "wanted", "verdict"), rows, why_empty=why)


def rounds(results: Results) -> Table:
    """Every round."""
    folds = any(item.fold is not None for item in results.rounds)
    rows = tuple(
        (
            *((NONE if item.fold is None else count(item.fold),) if folds else ()),
            count(item.number),
            number(item.seconds, 1),
            number(item.train_loss, 4),
            number(item.validation_mae_years),
            number(item.update_norm, 3),
            words(", ".join(item.sites)),
        )
        for item in results.rounds
    )
    headers = ("round", "seconds", "training loss", "validation MAE, years", "update norm", "sites")
    headers_by_fold = ("fold", *headers)
    return Table("rounds", headers_by_fold if folds else headers, rows, why_empty="No round of training was finished.")


def _why(found: Evaluated, otherwise: str) -> str:
    return found.not_computed or otherwise
