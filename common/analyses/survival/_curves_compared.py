"""Survival curves of several runs side by side, in numbers: at the last table times that all of them have."""

from __future__ import annotations

from collections.abc import Sequence

from fedage.common.analyses.survival import results as survival_results
from fedage.common.analyses.survival._kaplan_meier_shown import POINT, median, point
from fedage.common.analyses.survival.results import Curves
from fedage.common.presentation.blocks import Display, NamedRun, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import NONE, Cell, Table, count, p_value, words
from fedage.common.presentation.wording import years

_MOST_TIMES = 3
_CAPTION = "Survival by group, over all sites"
_NOTE = "Curves are not drawn over each other: groups that are split at a gap are other patients in each run."


def compared(runs: Sequence[NamedRun]) -> Display:
    """The table of the runs with curves; nothing where none asks for them."""
    curves_of_runs = [
        (run.label, curves) for run in runs if (curves := survival_results.curves(run.results)) is not None
    ]
    if not curves_of_runs:
        return Display()
    titled = TitledTable(curves_in_numbers(curves_of_runs), _CAPTION)
    return Display(
        terminal=(titled,),
        sections=(Section("curves", "Survival curves", (titled, Paragraph(_NOTE)), place=43),),
    )


def curves_in_numbers(curves_of_runs: Sequence[tuple[str, Curves]]) -> Table:
    """A row for each run and group; one for a run without curves, with the reason."""
    with_curves = [curves for _, curves in curves_of_runs if curves.groups and curves.table_times]
    shared = set.intersection(*(set(curves.table_times) for curves in with_curves)) if with_curves else set()
    times = sorted(shared)[-_MOST_TIMES:]
    rows: list[tuple[Cell, ...]] = []
    for label, curves in curves_of_runs:
        ends = words(years(curves.table_times[-1])) if curves.table_times else NONE
        test = p_value(curves.log_rank.p) if curves.log_rank is not None else NONE
        for group in curves.groups:
            at = [words(point(group, curves.table_times.index(time))) if curves.table_times else NONE for time in times]
            row = (words(label), words(group.name), count(group.n), count(group.events), *at)
            rows.append((*row, words(median(group)), ends, test))
        if not curves.groups:
            why = words(f"not computed: {curves.not_computed or 'no site released it'}")
            rows.append((words(label), why, *([NONE] * (5 + len(times)))))
    note = POINT if times else "The runs have no table time in common." if len(with_curves) > 1 else ""
    headers = ("run", "group", "patients", "events", *map(years, times), "median, years", "ends at", "log-rank p")
    return Table("curves-compared", headers, tuple(rows), note=note)
