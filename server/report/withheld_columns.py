"""Which columns the sites agreed to leave out of sums of products, in words, for record, report and terminal."""

from __future__ import annotations

from collections.abc import Iterator

from fedage.common.presentation.wording import listed
from fedage.server.record.results import Results
from fedage.server.report.shown import step_text

WHY_LEFT_OUT = (
    "At one site at least, too few patients differ in such a column or one of them makes up too much of a sum, "
    "so it is left out at all sites."
)
_NAMED = 10


def sentences(results: Results) -> list[str]:
    """A sentence for each result that is without some column, and one why; empty where nothing was left out."""
    said = [f"{what} without {_some(columns)}." for what, columns in _left_out(results)]
    return [*said, WHY_LEFT_OUT] if said else []


def _left_out(results: Results) -> Iterator[tuple[str, tuple[str, ...]]]:
    folds: dict[tuple[str, ...], list[str]] = {}
    for item in results.preparation:
        if item.withheld_columns:
            folds.setdefault(item.withheld_columns, []).append("" if item.fold is None else str(item.fold))
    for columns, which in folds.items():
        of_folds = "" if which == [""] else f" of fold{'' if len(which) == 1 else 's'} {', '.join(which)}"
        yield f"The model{of_folds} was made", columns
    for name, step in results.analyses.items():
        if columns := tuple(getattr(step.result, "withheld_columns", ())):
            words = step_text(results, name) or name
            yield f"{words[:1].upper()}{words[1:]} was computed", columns


def _some(columns: tuple[str, ...]) -> str:
    more = len(columns) - _NAMED
    return listed(columns) if more <= 0 else f"{', '.join(columns[:_NAMED])} and {more} more"
