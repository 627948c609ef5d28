"""A curve's line is broken where a point is refused: joined over it, it would seem to tell it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from fedage.common.analyses.survival._kaplan_meier_figure import _curve, _grouped_curve
from fedage.common.analyses.survival.results import SurvivalCurve

TIMES = (1.0, 3.0, 5.0, 8.0, 10.0)
STYLE: dict[str, Any] = {"colour": "black", "dashes": "-", "shift": 0.0}
INNER = [(2,), (1, 2), (1, 3), (0,), (2, 4)]


def curve(refused: tuple[int, ...]) -> SurvivalCurve:
    survival = [None if at in refused else 0.9 - 0.1 * at for at in range(len(TIMES))]
    low = tuple(None if value is None else value - 0.05 for value in survival)
    high = tuple(None if value is None else value + 0.05 for value in survival)
    return SurvivalCurve(
        name="all patients",
        n=100,
        events=40,
        at_risk=(90,) * len(TIMES),
        events_at=(8,) * len(TIMES),
        survival=tuple(survival),
        ci95_low=low,
        ci95_high=high,
        bound_low=low,
        bound_high=high,
        refused=tuple("few patients" if at in refused else "" for at in range(len(TIMES))),
    )


def joined(line: Any) -> list[tuple[float, float]]:
    """Times between which a line is drawn."""
    x, y = np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
    return [(x[k], x[k + 1]) for k in range(x.size - 1) if np.isfinite(y[k]) and np.isfinite(y[k + 1])]


@pytest.mark.parametrize("refused", INNER)
def test_no_line_of_grouped_times_crosses_a_refused_point(refused: tuple[int, ...]) -> None:
    axes = Figure().subplots()
    _grouped_curve(axes, TIMES, curve(refused), **STYLE)
    steps = joined(axes.lines[0])
    assert not any(low <= TIMES[at] <= high for low, high in steps for at in refused)
    whole = [0.0, *TIMES]
    assert steps == [(whole[k], whole[k + 1]) for k in range(len(TIMES)) if k not in refused and k - 1 not in refused]


@pytest.mark.parametrize("refused", INNER)
def test_no_step_goes_on_from_a_refused_point(refused: tuple[int, ...]) -> None:
    axes = Figure().subplots()
    _curve(axes, TIMES, curve(refused), **STYLE)
    x, y = (np.asarray(values, dtype=float) for values in axes.lines[0].get_data())
    for at in refused:
        assert not np.isfinite(y[x == TIMES[at]]).any()
    told = {TIMES[at]: 0.9 - 0.1 * at for at in range(len(TIMES)) if at not in refused}
    for time, value in told.items():
        assert y[x == time] == pytest.approx(value)


def test_a_whole_curve_is_one_line() -> None:
    for draw in (_curve, _grouped_curve):
        axes = Figure().subplots()
        draw(axes, TIMES, curve(()), **STYLE)
        assert np.isfinite(np.asarray(axes.lines[0].get_ydata(), dtype=float)).all()
