"""Differences between two groups of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from fedage.common.analyses.groups import result as groups_result
from fedage.common.analyses.groups._group_difference_shown import held_fixed
from fedage.common.analyses.groups.result import GroupDifference, Groups
from fedage.common.presentation.blocks import Display, NamedRun, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import NONE, Cell, Table, count, interval, number, p_value, words

_HEADERS = (
    "run", "gap", "group", "reference", "held fixed", "difference, years", "95 % interval", "p", "Cohen's d",
    "patients", "in reference",
)  # fmt: skip
_CAPTION = "Difference of the gap between the groups, over all sites"
_NOTE = (
    "A difference of the raw and of the corrected gap, or with other columns held fixed, answers another question: "
    "compare inside one of them."
)


def compared(runs: Sequence[NamedRun]) -> Display:
    """The table of the runs that compare groups; nothing where none does."""
    groups_of_runs = [(run.label, groups) for run in runs if (groups := groups_result.groups(run.results)) is not None]
    if not groups_of_runs:
        return Display()
    titled = TitledTable(differences(groups_of_runs), _CAPTION)
    section = Section("groups", "Groups compared", (titled, Paragraph(_NOTE)), place=50)
    return Display(terminal=(titled,), sections=(section,))


def differences(groups_of_runs: Sequence[tuple[str, Groups]]) -> Table:
    """A row for each run and gap, by label and groups: adjusted where the record has that, or why there is none."""
    rows = tuple(
        (words(label), words(kind), *_row(groups, difference))
        for label, groups in groups_of_runs
        for kind, difference in _by_gap(groups)
    )
    return Table("groups-compared", _HEADERS, rows)


def _by_gap(groups: Groups) -> list[tuple[str, GroupDifference]]:
    kind = "raw" if groups.corrected.gap.startswith("raw") else "corrected"
    return [(kind, groups.corrected), *([("raw", groups.raw)] if groups.raw is not None else [])]


def _row(groups: Groups, difference: GroupDifference) -> tuple[Cell, ...]:
    named = (words(f"{groups.column} = {groups.equals:g}"), words(f"{groups.column} = {groups.reference:g}"))
    chosen = difference.adjusted or difference.unadjusted
    if chosen is None or chosen.difference_years is None:
        why = words(f"not computed: {difference.not_computed or 'no site released it'}")
        return (*named, why, *([NONE] * 6))
    return (
        *named,
        words(", ".join(["site", *held_fixed(groups, difference)])),
        number(chosen.difference_years),
        interval(chosen.ci95_low, chosen.ci95_high, 2),
        p_value(chosen.p),
        number(chosen.cohens_d),
        count(difference.n_group),
        count(difference.n_reference),
    )
