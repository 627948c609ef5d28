"""The report's table of a simulated run held against one table of all its patients."""

from __future__ import annotations

from fedage.common.presentation.cells import NONE, Cell, Table, words
from fedage.server.record.results import Results

_DIGITS = 9


def pooled(results: Results) -> Table:
    """Every figure compared; the difference in two digits, as its size is what matters."""
    check = results.pooled_check
    rows = tuple(
        (
            words(figure.step),
            words(figure.figure),
            words(figure.site or "all"),
            _full(figure.federated),
            _full(figure.pooled),
            Cell(f"{figure.difference:.1e}".replace("-", "−"), repr(figure.difference)),
            words("grouped times" if figure.grouped else "exact sums"),
        )
        for figure in (check.figures if check else ())
    )
    headers = ("analysis", "figure", "site", "federated", "pooled", "difference", "from")
    return Table("pooled", headers, rows, why_empty="No figure could be compared.")


def _full(value: float | None) -> Cell:
    return NONE if value is None else Cell(f"{value:.{_DIGITS}g}".replace("-", "−"), repr(value))
