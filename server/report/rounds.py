"""Rounds fold by fold: with folds each fold trains its own model, and its rounds are numbered from 1 again."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from fedage.server.record.results import Round

Point = tuple[int, float]


def by_fold(rounds: Sequence[Round]) -> list[list[Round]]:
    """The rounds of each fold in order; one list without folds."""
    folds: dict[int, list[Round]] = {}
    for item in rounds:
        folds.setdefault(item.fold or 0, []).append(item)
    return [folds[fold] for fold in sorted(folds)]


def mean_over_folds(rounds: Sequence[Round], value: Callable[[Round], float | None]) -> list[Point]:
    """Round number and mean over the folds of `value`, where every fold has one; without folds the value itself."""
    folds = by_fold(rounds)
    known: dict[int, list[float]] = {}
    for item in rounds:
        if (found := value(item)) is not None:
            known.setdefault(item.number, []).append(found)
    return [(number, statistics.fmean(found)) for number, found in sorted(known.items()) if len(found) == len(folds)]


def rounds_text(rounds: Sequence[Round]) -> str:
    """E.g. `12 rounds`, `150 rounds in each of 5 folds`, or for a run cut off `160 rounds in 2 folds`."""
    lengths = [len(fold) for fold in by_fold(rounds)]
    if len(lengths) < 2:
        return _rounds(len(rounds))
    if len(set(lengths)) == 1:
        return f"{_rounds(lengths[0])} in each of {len(lengths)} folds"
    return f"{_rounds(len(rounds))} in {len(lengths)} folds"


def _rounds(count: int) -> str:
    return f"{count} round{'' if count == 1 else 's'}"
