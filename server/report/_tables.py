"""The report's tables, straight from the record."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from fedage.common.analyses.bias_line import BIAS
from fedage.common.analyses.evaluation import TEST
from fedage.common.presentation.cells import (
    NONE,
    POOLED,
    Cell,
    Table,
    at_least,
    count,
    number,
    reasons,
    share_between,
    words,
)
from fedage.common.presentation.participation import is_pooled, participants, pooled_label
from fedage.server import sites_in_words
from fedage.server.errors_in_words import AT_LEAST, OWN_MEAN, POOLED_MEAN, loses_to, may_lose
from fedage.server.results import Evaluated, Metrics, Results, SiteRecord
from fedage.server.withheld_in_words import withholdings

T = TypeVar("T")


def sites(results: Results) -> Table:
    """What each site brought and what it set aside."""
    folds = tuple(f"fold {number}" for number in range(1, (results.campaign.folds or 0) + 1))
    # Without an estimator nobody is trained on or held out.
    parts = folds or (_PARTS if results.campaign.estimator else ())
    told = sites_in_words.are_told(results)
    rows = tuple(
        (
            words(site.name),
            words(_status(site, folds=bool(folds))),
            *((words(site.role),) if told else ()),
            count(site.patients),
            *((words(_held_out(site, folds=len(folds))),) if folds else ()),
            *(count(site.patients_by_part[part]) if part in site.patients_by_part else NONE for part in parts),
        )
        for site in results.sites
    )
    notes = ["A patient of fold k is predicted by the model that was made without fold k."] if folds and rows else []
    notes += sites_in_words.held_out(results)
    return Table(
        "sites",
        ("site", "status", *(("role",) if told else ()), "patients", *(("held out in",) if folds else ()), *parts),
        rows,
        why_empty="No site answered the offer of the campaign.",
        note=" ".join(notes),
    )


def set_aside(results: Results) -> Table:
    """What each site could not use, what it computed on, and where its audit log stood."""
    told = sites_in_words.are_told(results)
    rows = tuple(
        (
            words(site.name),
            reasons(site.excluded, minimum=site.minimum_count),
            reasons(site.rejected_files, minimum=site.minimum_count),
            reasons(site.rejected_samples, minimum=site.minimum_count),
            words(site.device),
            *((words(sites_in_words.audit_head(site)),) if told else ()),
        )
        for site in participants(results)
    )
    headers = ("site", "patients excluded", "files rejected", "images refused", "device")
    return Table(
        "set-aside",
        (*headers, *(("audit log",) if told else ())),
        rows,
        why_empty="No site answered the offer of the campaign.",
        note=sites_in_words.PURPOSE if told else "",
    )


def _status(site: SiteRecord, *, folds: bool) -> str:
    when = f" in round {site.dropped_out_in_round}" if site.dropped_out_in_round else ""
    when += " of the last fold" if when and folds else ""
    return f"{site.status}{when}{': ' if site.reason else ''}{site.reason}"


def _held_out(site: SiteRecord, *, folds: int) -> str:
    return "" if site.held_out_in_folds is None else f"{site.held_out_in_folds} of {folds} folds"


_PARTS = ("train", "validation", "test")


def withheld(results: Results) -> Table:
    """What did not leave which sites, one row a contribution and reason."""
    rows = tuple(
        (words(item.step), words(item.rests_on), words(", ".join(sites)), words(reason))
        for item in withholdings(results)
        for reason, sites in item.why.items()
    )
    headers = ("contribution", "result rests on", "withheld by", "why")
    return Table("withheld", headers, rows, why_empty="No site withheld a contribution.")


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
    headers = ["site", "test patients", "MAE raw", "MAE corrected", POOLED_MEAN, OWN_MEAN, "loses to"]
    if planted is not None:
        headers.append("irreducible MAE")
    rows = []
    for name in sorted(test.raw.by_site):
        raw, corrected = test.raw.by_site[name], test.corrected.by_site.get(name)
        row = _mae(name, raw, corrected)
        if planted is not None:
            row.append(number(planted.irreducible_mae_years_by_site.get(name)))
        rows.append(tuple(row))
    if test.raw.overall is not None and is_pooled(results, TEST, by_site=list(test.raw.by_site)):
        label = pooled_label(results, TEST, by_site=list(test.raw.by_site))
        row = _mae(label, test.raw.overall, test.corrected.overall, pooled=True)
        if planted is not None:
            row.append(number(planted.irreducible_mae_years))
        rows.append(tuple(row))
    note = (
        "The means are what predicting them for everybody would miss by (MAE). The model loses to one where its raw "
        "error is larger."
    )
    if any(found.mae_of_mean_at_least for found in test.raw.by_site.values()):
        note = f"{note} {AT_LEAST}"
    why = _why(test.raw, "No evaluation was released.")
    return Table("headline", tuple(headers), tuple(rows), why_empty=why, note=note if rows else "")


def _mae(name: str, raw: Metrics, corrected: Metrics | None, *, pooled: bool = False) -> list[Cell]:
    return [
        Cell(name, mark=POOLED if pooled else ""),
        count(raw.n),
        number(raw.mae_years),
        number(corrected.mae_years) if corrected is not None else NONE,
        at_least(raw.mae_of_mean_years, bound=raw.mae_of_mean_at_least),
        number(raw.mae_of_site_mean_years),
        _lost(raw),
    ]


def _lost(raw: Metrics) -> Cell:
    lost = loses_to(raw)
    if raw.mae_of_mean_years is None and raw.mae_of_site_mean_years is None:
        return NONE
    if may_lose(raw):
        return Cell(" and ".join([*lost, f"perhaps {POOLED_MEAN}"]), mark="bad" if lost else "")
    return Cell(" and ".join(lost), mark="bad") if lost else words("neither")


def evaluation(name: str, results: Results, found: Evaluated, *, step: str) -> Table:
    """One evaluation by site and overall; `step` is its registered name."""
    headers = ("site", "patients", "MAE", "RMSE", "mean error", "|error| ≤ 5 years", "Pearson r", POOLED_MEAN, OWN_MEAN)
    everyone = [(words(site), metrics) for site, metrics in sorted(found.by_site.items())]
    if found.overall is not None:
        everyone += _pooled(results, step, list(found.by_site), found.overall)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            site,
            count(metrics.n),
            number(metrics.mae_years),
            number(metrics.rmse_years),
            number(metrics.mean_error_years),
            share_between(metrics.cs_5, metrics.cs_5_low, metrics.cs_5_high),
            number(metrics.pearson_r, 3),
            at_least(metrics.mae_of_mean_years, bound=metrics.mae_of_mean_at_least),
            number(metrics.mae_of_site_mean_years),
        )
        for site, metrics in everyone
    )
    note = "Only one site released figures of its own." if len(found.by_site) == 1 < len(participants(results)) else ""
    filled = [k for k in range(len(headers)) if headers[k] != POOLED_MEAN or any(row[k].value for row in rows)]
    kept = tuple(tuple(row[k] for k in filled) for row in rows)
    why = _why(found, "No site released it.")
    return Table(name, tuple(headers[k] for k in filled), kept, why_empty=why, note=note)


def bias_lines(results: Results) -> Table:
    """The lines that correct the age bias."""
    bias = results.bias
    everyone = [(words(site), line) for site, line in sorted(bias.lines.items())]
    if bias.overall is not None:
        everyone += _pooled(results, BIAS, list(bias.lines), bias.overall)
    rows = tuple(
        (
            site,
            count(line.n),
            number(line.slope, 3),
            number(line.intercept_years),
            number(line.residual_sd_years),
        )
        for site, line in everyone
    )
    headers = ("site", "healthy patients", "slope", "intercept, years", "residual SD, years")
    return Table("bias", headers, rows, why_empty=bias.not_computed or "No site released a bias line.")


def _pooled(results: Results, step: str, by_site: list[str], overall: T) -> list[tuple[Cell, T]]:
    """The row over all contributing sites; none where that is one site, whose own row says the same."""
    if by_site and not is_pooled(results, step, by_site=by_site):
        return []
    return [(Cell(pooled_label(results, step, by_site=by_site), mark=POOLED), overall)]


def planted(results: Results) -> Table:
    """What was found, against what the planted truth implies."""
    verdict = {True: Cell("holds", mark="good"), False: Cell("does not hold", mark="bad"), None: NONE}
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
    return Table("rounds", headers_by_fold if folds else headers, rows, why_empty=no_rounds(results))


def no_rounds(results: Results) -> str:
    """Why there is no round."""
    if results.solved_exactly:
        return "The model is solved exactly from the sites' sums, so there are no rounds."
    return "No round of training was finished."


def _why(found: Evaluated, otherwise: str) -> str:
    return found.not_computed or otherwise
