"""What a run that was checked against its pooled patients says of that, in terminal and report."""

from __future__ import annotations

from fedage.server.record.results import PooledFigure, Results


def sentences(results: Results) -> list[str]:
    """How far the run's figures are from those of all patients in one table; empty without the check."""
    check = results.pooled_check
    if check is None:
        return []
    lines = []
    exact = [figure for figure in check.figures if not figure.grouped]
    grouped = [figure for figure in check.figures if figure.grouped]
    if exact:
        lines.append(f"{_compared(exact)} that are exact sums: the largest difference is {_largest(exact)}.")
    if grouped:
        lines.append(
            f"{_compared(grouped)} from times grouped between common table times, against exact times: the largest "
            f"difference is {_largest(grouped)}."
        )
    lines += [f"{step} is not compared: {reason}." for step, reason in check.not_compared.items()]
    return lines or ["No figure of the run could be compared with one table of all patients."]


def _compared(figures: list[PooledFigure]) -> str:
    return f"{len(figures)} figure{'s' if len(figures) != 1 else ''} compared with one table of the same patients"


def _largest(figures: list[PooledFigure]) -> str:
    largest = max(figures, key=lambda figure: abs(figure.difference))
    where = f" at {largest.site}" if largest.site else ""
    return f"{abs(largest.difference):.2g} ({largest.step}{where}, {largest.figure})"
