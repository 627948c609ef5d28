"""The report's tables about two groups compared by their gap."""

from __future__ import annotations

from fedage.common.presentation.cells import Cell, Table, count, interval, number, p_value, words
from fedage.server.results import Difference, GroupDifference, Groups, Results

NOT_ASKED = "the campaign asked for no comparison of groups"


def group_difference(results: Results) -> Table:
    """Differences over all sites, adjusted first, and the AUC."""
    headers = (
        "gap", "held fixed", "difference, years", "95 % interval", "SE", "t", "p", "Cohen's d", "patients", "reference",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for name, found in _compared(results.groups):
        if found.not_computed:
            rows.append((words(name), words(f"not computed: {found.not_computed}")))
            continue
        covariates = results.groups.covariates if results.groups else ()
        counts = (count(found.n_group), count(found.n_reference))
        if covariates and found.adjusted is None:
            rows.append((words(name), words(f"not adjusted: {found.not_adjusted}")))
        elif covariates and found.adjusted is not None:
            rows.append((words(name), words(f"site, {', '.join(covariates)}"), *_cells(found.adjusted), *counts))
        if found.unadjusted is not None:
            rows.append((words(name), words("site"), *_cells(found.unadjusted), *counts))
    return Table("group-difference", headers, tuple(rows), why_empty=_why(results), note=_left_out(results.groups))


def group_auc(results: Results) -> Table:
    """How well the gap tells the groups apart."""
    rows = tuple(
        (
            words(name),
            number(found.auc_within_sites, 3),
            interval(found.auc_within_sites_ci95_low, found.auc_within_sites_ci95_high, 3),
            number(found.auc, 3),
            interval(found.auc_ci95_low, found.auc_ci95_high, 3),
            interval(found.auc_low, found.auc_high, 3),
        )
        for name, found in _compared(results.groups)
        if found.auc_within_sites is not None
    )
    headers = (
        "gap", "AUC, pairs of one site", "95 % interval", "AUC, all pairs", "95 % interval", "lies between",
    )  # fmt: skip
    refused = [
        f" The AUC of all pairs by the {name} gap is not given: {found.auc_refused}."
        for name, found in _compared(results.groups)
        if found.auc_refused
    ]
    between = "Gaps leave a site in joined cells only, so the AUC of all pairs is known between two bounds."
    note = f"{between}{''.join(refused)}" if rows else ""
    return Table("group-auc", headers, rows, why_empty=_why(results), note=note)


def group_sites(results: Results) -> Table:
    """Each site's own difference, of the corrected gap and without covariates."""
    rows: list[tuple[Cell, ...]] = []
    for site, found in results.groups.corrected.by_site.items() if results.groups is not None else ():
        if found.unadjusted is None:
            rows.append((words(site), words(f"not computed: {found.not_computed or 'no result'}")))
            continue
        difference = found.unadjusted
        rows.append(
            (
                words(site),
                count(found.n_group),
                count(found.n_reference),
                number(difference.difference_years),
                interval(difference.ci95_low, difference.ci95_high, 2),
                p_value(difference.p),
                number(difference.cohens_d),
                number(found.auc, 3),
                interval(found.auc_ci95_low, found.auc_ci95_high, 3),
            )
        )
    headers = (
        "site", "patients", "reference", "difference, years", "95 % interval", "p", "Cohen's d", "AUC", "95 % interval",
    )  # fmt: skip
    return Table("group-sites", headers, tuple(rows), why_empty=_why(results))


def _compared(groups: Groups | None) -> list[tuple[str, GroupDifference]]:
    if groups is None:
        return []
    # Ages that a table brought have no bias line, so their only gap is the raw one.
    kind = "raw" if groups.corrected.gap.startswith("raw") else "corrected"
    return [(kind, groups.corrected), *([("raw", groups.raw)] if groups.raw is not None else [])]


def _cells(found: Difference) -> tuple[Cell, ...]:
    return (
        number(found.difference_years),
        interval(found.ci95_low, found.ci95_high, 2),
        number(found.se_years, 3),
        number(found.t),
        p_value(found.p),
        number(found.cohens_d),
    )


def _left_out(groups: Groups | None) -> str:
    if groups is None:
        return ""
    told = []
    if groups.corrected.one_group_only:
        told.append(
            f"{groups.corrected.one_group_only} patients at sites with one of the groups only are not compared."
        )
    if groups.corrected.left_out:
        told.append(f"{groups.corrected.left_out} patients with a missing or impossible value are left out.")
    if few := groups.corrected.left_out_few_sites:
        sites = "1 site leaves" if few == 1 else f"{few} sites leave"
        told.append(f"{sites} out fewer{' more' if groups.corrected.left_out else ''} than the minimum count each.")
    return " ".join(told)


def _why(results: Results) -> str:
    if results.groups is None:
        return f"{NOT_ASKED[0].upper()}{NOT_ASKED[1:]}."
    return f"Not computed: {results.groups.corrected.not_computed or 'no site released it'}"
