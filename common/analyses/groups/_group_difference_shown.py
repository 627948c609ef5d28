"""What two groups compared by their gap show: a sentence, tables, and a figure beside them."""

from __future__ import annotations

from fedage.common.analyses.groups import result as groups_result
from fedage.common.analyses.groups.result import Difference, GroupDifference, Groups
from fedage.common.presentation.blocks import Display, FigureBlock, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import Cell, Table, count, interval, number, p_value, words
from fedage.common.presentation.participation import hidden_note, pooled_label
from fedage.common.record.results import Results

NOT_ASKED = "the campaign asked for no comparison of groups"


def shown(results: Results) -> Display:
    """Everything, of a campaign that compares groups."""
    groups = groups_result.groups(results)
    if groups is None:
        return Display()

    def figure() -> str | None:
        from fedage.common.analyses.groups._group_difference_figure import compared_groups

        return compared_groups(results)

    said = tuple(sentences(results))
    blocks = (
        Paragraph(
            f"Patients with {groups.column} = {groups.equals:g} against the reference, "
            f"{groups.column} = {groups.reference:g}, each site with itself. Nobody is compared by a model or a bias "
            "line that was made with them.",
            note=False,
        ),
        FigureBlock(figure, caption(results), groups.corrected.not_computed or "no site released it"),
        TitledTable(group_difference(results), f"Difference of the gap, {_sites(results)}"),
        TitledTable(group_auc(results), "ROC AUC of the gap for the group"),
        TitledTable(group_sites(results), "Difference of the gap at each site, nothing held fixed"),
    )
    return Display(sentences=said, terminal=said, sections=(Section("groups", "Groups compared", blocks, place=50),))


def caption(results: Results) -> str:
    """Of the figure."""
    groups = groups_result.groups(results)
    if groups is None:
        return ""
    kind = "raw" if groups.corrected.gap.startswith("raw") else "corrected"
    covariates = held_fixed(groups, groups.corrected)
    held = f"site and {', '.join(covariates)}" if covariates else "site"
    curve = f" Right: how well the {kind} gap tells the groups apart." if groups.corrected.roc is not None else ""
    return (
        f"Difference of the gap between the groups with 95 % intervals: {_sites(results)} with {held} held "
        f"fixed, and each site's own two means.{curve}"
    )


def held_fixed(groups: Groups, difference: GroupDifference) -> tuple[str, ...]:
    """The covariates that the adjusted difference holds fixed: those asked for that the sites did not leave out."""
    if difference.adjusted is None:
        return ()
    return tuple(name for name in groups.covariates if name not in difference.withheld_columns)


def _sites(results: Results) -> str:
    groups = groups_result.groups(results)
    return pooled_label(results, "groups:gap", by_site=list(groups.corrected.by_site) if groups is not None else [])


def sentences(results: Results) -> list[str]:
    """What the comparison says, for the first screen; nothing if it was not asked for."""
    groups = groups_result.groups(results)
    if groups is None:
        return []
    difference = groups.corrected
    named = f"{groups.column} = {groups.equals:g}", f"{groups.column} = {groups.reference:g}"
    chosen = difference.adjusted or difference.unadjusted
    if chosen is None or chosen.difference_years is None:
        why = (difference.not_computed or "no site released it").rstrip(".")
        return [f"How the gap differs between {named[0]} and {named[1]} is not known: {why}."]
    held = ", ".join(["site", *held_fixed(groups, difference)]).replace("_years", "")
    kind = "raw" if difference.gap.startswith("raw") else "corrected"
    size = f"{abs(chosen.difference_years):.2f} years {'larger' if chosen.difference_years >= 0 else 'smaller'}"
    said = f"With {held} held fixed, the {kind} gap of patients with {named[0]} is {size} than with {named[1]}"
    if chosen.ci95_low is None or chosen.ci95_high is None:
        return [f"{said}.{_not_adjusted(groups)}"]
    open_ = chosen.ci95_low <= 0 <= chosen.ci95_high
    shown = f"{' The interval includes 0: no difference is shown.' if open_ else ''}{_not_adjusted(groups)}"
    auc = ""
    if difference.auc_within_sites is not None:
        auc = f"; ROC AUC within sites {difference.auc_within_sites:.3f}"
        if difference.auc_within_sites_ci95_low is not None and difference.auc_within_sites_ci95_high is not None:
            auc += f", {difference.auc_within_sites_ci95_low:.3f} to {difference.auc_within_sites_ci95_high:.3f}"
    return [f"{said} (95 % interval of the difference {chosen.ci95_low:.2f} to {chosen.ci95_high:.2f}{auc}).{shown}"]


def _not_adjusted(groups: Groups) -> str:
    """What the file asked to hold fixed and is not, e.g. ` It is not adjusted for age, is_male: …`."""
    if groups.corrected.adjusted is not None:
        asked = ", ".join(name for name in groups.covariates if name in groups.corrected.withheld_columns)
        return f" It is not adjusted for {asked.replace('_years', '')}, which is left out." if asked else ""
    if not groups.covariates:
        return ""
    asked = ", ".join(groups.covariates).replace("_years", "")
    return f" It is not adjusted for {asked}: {(groups.corrected.not_adjusted or 'no result').rstrip('.')}."


def group_difference(results: Results) -> Table:
    """Differences over all sites, adjusted first, and the AUC."""
    headers = (
        "gap", "held fixed", "difference, years", "95 % interval", "SE", "t", "p", "Cohen's d", "patients", "reference",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    groups = groups_result.groups(results)
    for name, difference in _compared(groups):
        if difference.not_computed:
            rows.append((words(name), words(f"not computed: {difference.not_computed}")))
            continue
        covariates = groups.covariates if groups is not None else ()
        counts = (count(difference.n_group), count(difference.n_reference))
        if covariates and difference.adjusted is None:
            rows.append((words(name), words(f"not adjusted: {difference.not_adjusted}")))
        elif groups is not None and difference.adjusted is not None and (held := held_fixed(groups, difference)):
            rows.append((words(name), words(f"site, {', '.join(held)}"), *_cells(difference.adjusted), *counts))
        if difference.unadjusted is not None:
            rows.append((words(name), words("site"), *_cells(difference.unadjusted), *counts))
    return Table("group-difference", headers, tuple(rows), why_empty=_why(results), note=_left_out(groups))


def group_auc(results: Results) -> Table:
    """How well the gap tells the groups apart."""
    rows = tuple(
        (
            words(name),
            number(difference.auc_within_sites, 3),
            interval(difference.auc_within_sites_ci95_low, difference.auc_within_sites_ci95_high, 3),
            number(difference.auc, 3),
            interval(difference.auc_ci95_low, difference.auc_ci95_high, 3),
            interval(difference.auc_low, difference.auc_high, 3),
        )
        for name, difference in _compared(groups_result.groups(results))
        if difference.auc_within_sites is not None
    )
    headers = (
        "gap", "AUC, pairs of one site", "95 % interval", "AUC, all pairs", "95 % interval", "lies between",
    )  # fmt: skip
    refused = [
        f" The AUC of all pairs by the {name} gap is not given: {difference.auc_refused}."
        for name, difference in _compared(groups_result.groups(results))
        if difference.auc_refused
    ]
    between = "Gaps leave a site in joined cells only, so the AUC of all pairs is known between two bounds."
    note = f"{between}{''.join(refused)}" if rows else ""
    return Table("group-auc", headers, rows, why_empty=_why(results), note=note)


def group_sites(results: Results) -> Table:
    """Each site's own difference, of the corrected gap and without covariates."""
    rows: list[tuple[Cell, ...]] = []
    groups = groups_result.groups(results)
    for site, of_site in groups.corrected.by_site.items() if groups is not None else ():
        if of_site.unadjusted is None:
            rows.append((words(site), words(f"not computed: {of_site.not_computed or 'no result'}")))
            continue
        difference = of_site.unadjusted
        rows.append(
            (
                words(site),
                count(of_site.n_group),
                count(of_site.n_reference),
                number(difference.difference_years),
                interval(difference.ci95_low, difference.ci95_high, 2),
                p_value(difference.p),
                number(difference.cohens_d),
                number(of_site.auc, 3),
                interval(of_site.auc_ci95_low, of_site.auc_ci95_high, 3),
            )
        )
    headers = (
        "site", "patients", "reference", "difference, years", "95 % interval", "p", "Cohen's d", "AUC", "95 % interval",
    )  # fmt: skip
    return Table("group-sites", headers, tuple(rows), why_empty=hidden_note(results) or _why(results))


def _compared(groups: Groups | None) -> list[tuple[str, GroupDifference]]:
    if groups is None:
        return []
    # Ages that a table brought have no bias line, so their only gap is the raw one.
    kind = "raw" if groups.corrected.gap.startswith("raw") else "corrected"
    return [(kind, groups.corrected), *([("raw", groups.raw)] if groups.raw is not None else [])]


def _cells(difference: Difference) -> tuple[Cell, ...]:
    return (
        number(difference.difference_years),
        interval(difference.ci95_low, difference.ci95_high, 2),
        number(difference.se_years, 3),
        number(difference.t),
        p_value(difference.p),
        number(difference.cohens_d),
    )


def _left_out(groups: Groups | None) -> str:
    if groups is None:
        return ""
    parts = []
    if groups.corrected.one_group_only:
        parts.append(
            f"{groups.corrected.one_group_only} patients at sites with one of the groups only are not compared."
        )
    if groups.corrected.left_out:
        parts.append(f"{groups.corrected.left_out} patients with a missing or impossible value are left out.")
    if few := groups.corrected.left_out_few_sites:
        sites = "1 site leaves" if few == 1 else f"{few} sites leave"
        parts.append(f"{sites} out fewer{' more' if groups.corrected.left_out else ''} than the minimum count each.")
    return " ".join(parts)


def _why(results: Results) -> str:
    groups = groups_result.groups(results)
    if groups is None:
        return f"{NOT_ASKED[0].upper()}{NOT_ASKED[1:]}."
    return f"Not computed: {groups.corrected.not_computed or 'no site released it'}"
