"""The short table at the end of a run, from `results.json` alone."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedage.common.analyses.evaluation import TEST
from fedage.common.presentation.participation import TOOK_PART, is_pooled, pooled_label
from fedage.server import (
    made_in_words,
    pooled_in_words,
    sites_in_words,
    withheld_in_words,
)
from fedage.server.errors_in_words import AT_LEAST, OWN_MEAN, POOLED_MEAN, loses_to
from fedage.server.errors_in_words import sentences as error_sentences
from fedage.server.results import CoxResult, Metrics, Results, SiteRecord
from fedage.server.shown import in_rich, shown_of

_MOST_POINTS = 3


def print_summary(results: Results, *, console: Console) -> None:
    """Per site patients and MAE, hazard ratios, and beside them what the planted truth implies."""
    if results.phantoms:
        console.print("Images in this run are phantoms rendered by FedAge; every figure below is from them.")
    if results.campaign.folds:
        console.print(
            f"With {results.campaign.folds} folds: each patient is predicted by the model that was made without their "
            "fold, and counts as a test patient."
        )
    for sentence in sites_in_words.held_out(results):
        console.print(Text(sentence))
    console.print(_sites(results))
    for sentence in made_in_words.stand_ins(results):
        console.print(Text(sentence))
    for sentence in error_sentences(results):
        console.print(Text(sentence))
    for item in (item for each in shown_of(results) for item in each.terminal):
        console.print(Text(item) if isinstance(item, str) else in_rich(item))
    if results.planted is not None:
        console.print(Text(_checks(results)))
    for sentence in pooled_in_words.sentences(results):
        console.print(Text(sentence))
    for site in results.sites:
        # Of a site that took no part, all there is to say is why.
        for trouble in site.troubles if site.status in TOOK_PART else ():
            console.print(Text(f"{site.name}: {trouble}"))
    for sentence in withheld_in_words.in_full(results):
        console.print(Text(sentence))
    if sites_in_words.are_told(results):
        heads = [f"{site.name} {told}" for site in results.sites if (told := sites_in_words.audit_head(site))]
        console.print(Text(f"Audit logs: {'; '.join(heads) or 'none seen'}. {sites_in_words.PURPOSE}"))


def _sites(results: Results) -> Table:
    test = results.evaluation.test
    if not results.campaign.estimator and test.raw.overall is None:
        return _sites_of_analyses(results)
    caption = "* is less than the model's raw error"
    if any(found.mae_of_mean_at_least for found in test.raw.by_site.values()):
        caption = f"{caption}\n{AT_LEAST}"
    table = Table(title=_whose(results), caption=caption, caption_justify="left")
    for header in ("site", "patients", "test", "MAE\nraw", "MAE\ncorrected", "mean\nof all", "own\nmean", "status"):
        text = header in ("site", "status")
        table.add_column(header, no_wrap=not text, justify="left" if text else "right", overflow="fold")
    for site in results.sites:
        raw, corrected = test.raw.by_site.get(site.name), test.corrected.by_site.get(site.name)
        table.add_row(
            Text(site.name),
            _patients(site),
            str(raw.n) if raw else "-",
            _mae(raw),
            _mae(corrected),
            *_means(raw),
            _status(site),
        )
    overall, corrected = test.raw.overall, test.corrected.overall
    table.add_section()
    if overall is not None and is_pooled(results, TEST, by_site=list(test.raw.by_site)):
        label = pooled_label(results, TEST, by_site=list(test.raw.by_site)).removesuffix(" sites")
        table.add_row(label, "", str(overall.n), _mae(overall), _mae(corrected), *_means(overall), "")
    return table


def _sites_of_analyses(results: Results) -> Table:
    """Without an estimator there are no predicted ages to tell of."""
    table = Table("site", "patients", "status", title="sites")
    for site in results.sites:
        table.add_row(Text(site.name), _patients(site), _status(site))
    return table


def _patients(site: SiteRecord) -> str:
    return "<min" if site.patients is None else str(site.patients)


def _status(site: SiteRecord) -> Text:
    return Text(sites_in_words.status(site))


def _whose(results: Results) -> str:
    healthy = "healthy " if results.campaign.train_on == "healthy" else ""
    return f"error of the predicted age of {healthy}test patients, years (MAE)"


def _means(metrics: Metrics | None) -> tuple[Text, Text]:
    """What predicting the mean age of all sites, and the site's own, would miss by; marked where that is better."""
    if metrics is None:
        return Text("-"), Text("-")
    lost = loses_to(metrics)
    return (
        _mean(metrics.mae_of_mean_years, better=POOLED_MEAN in lost, bound=metrics.mae_of_mean_at_least),
        _mean(metrics.mae_of_site_mean_years, better=OWN_MEAN in lost),
    )


def _mean(value: float | None, *, better: bool, bound: bool = False) -> Text:
    if value is None:
        return Text("-")
    shown = f"{'≥' if bound else ''}{value:.2f}"
    return Text(f"{shown}*", style="red") if better else Text(shown)


def _checks(results: Results) -> str:
    lines = ["Held against the planted truth:"]
    for check in results.planted.checks if results.planted else ():
        verdict = {True: "yes", False: "NO ", None: "?  "}[check.holds]
        ratio = "" if check.ratio is None else f", ratio {check.ratio:.2f}"
        found = f"{_number(check.found)} against {_number(check.against)}{ratio}"
        lines.append(f"  {verdict}  {check.what}: {found} (wanted: {check.wanted})")
    return "\n".join(lines)


def _mae(metrics: Metrics | None) -> str:
    return "-" if metrics is None or metrics.mae_years is None else f"{metrics.mae_years:.2f}"


def _number(value: float | None, decimals: int = 3) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _events(model: CoxResult) -> str:
    return "-" if model.events is None else str(model.events)
