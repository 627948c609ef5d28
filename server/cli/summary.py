"""The short table at the end of a run, from `results.json` alone."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedage.common.presentation.participation import TOOK_PART, patients_told, status
from fedage.server.record.results import Results, SiteRecord
from fedage.server.report import external, pooled_text, preparation_text, site_text, withheld_text
from fedage.server.report.shown import in_rich, shown_of

_MOST_POINTS = 3


def print_summary(results: Results, *, console: Console) -> None:
    """Per site patients and MAE, hazard ratios, and beside them their references, if there are any."""
    if results.phantoms:
        console.print("Images in this run are phantoms rendered by FedAge; every figure below is from them.")
    if results.campaign.model_folds:
        console.print(
            f"With {results.campaign.model_folds} folds: each patient is predicted by the model that was made without "
            "their fold, and counts as a test patient."
        )
    for sentence in site_text.held_out(results):
        console.print(Text(sentence))
    shown = shown_of(results)
    if not any(each.tells_sites for each in shown):
        console.print(_sites_of_analyses(results))
    for sentence in preparation_text.stand_ins(results):
        console.print(Text(sentence))
    printed: set[str] = set()
    for item in (item for each in shown for item in each.terminal):
        if isinstance(item, str):
            if item in printed:
                continue
            printed.add(item)
        console.print(Text(item) if isinstance(item, str) else in_rich(item))
    if beside := external.external_of(results):
        console.print(Text(external.HEADING))
        for item in (item for each in shown_of(beside) for item in each.terminal):
            console.print(Text(item) if isinstance(item, str) else in_rich(item))
    for sentence in pooled_text.sentences(results):
        console.print(Text(sentence))
    for site in results.sites:
        # Of a site that took no part, all there is to say is why.
        for trouble in site.troubles if site.status in TOOK_PART else ():
            console.print(Text(f"{site.name}: {trouble}"))
    for sentence in withheld_text.in_full(results):
        console.print(Text(sentence))
    if site_text.are_told(results):
        heads = [f"{site.name} {head}" for site in results.sites if (head := site_text.audit_head(site))]
        console.print(Text(f"Audit logs: {'; '.join(heads) or 'none seen'}. {site_text.HEADS}"))


def _sites_of_analyses(results: Results) -> Table:
    """Without an estimator there are no predicted ages to tell of."""
    table = Table("site", "patients", "status", title="sites")
    for site in results.sites:
        table.add_row(Text(site.name), Text(patients_told(site)), _status(site))
    return table


def _status(site: SiteRecord) -> Text:
    return Text(status(site))
