"""Kaplan-Meier curves of the groups, with the numbers at risk under them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedage.common.analyses.survival.results import Curves, SurvivalCurve
from fedage.common.presentation.svg import DASHES, MUTED, SERIES, draw, only_some_spines
from fedage.common.presentation.wording import shortened, years

_MOST_TICKS = 11
_BEYOND = 1.04


def kaplan_meier(result: Curves | None) -> str | None:
    """The figure, or None if there are no curves, or none with a point that may be shown."""
    if result is None or not result.groups or not result.table_times:
        return None
    if not any(value is not None for group in result.groups for value in group.survival):
        return None
    groups, times = result.groups, result.table_times
    every = -(-len(times) // (_MOST_TICKS - 1))
    shown = sorted({0.0, *times[every - 1 :: every]})
    lines = _grouped_curve if result.is_grouped else _curve

    def paint(figure: Figure) -> None:
        curves, table = figure.subplots(2, 1, sharex=True, height_ratios=(10, 0.75 * len(groups)))
        # Bars of two groups at one time would lie on each other.
        apart = 0.012 * times[-1]
        for number, group in enumerate(groups):
            shift = (number - (len(groups) - 1) / 2) * apart
            colour, dashes = SERIES[number % len(SERIES)], DASHES[number % len(DASHES)]
            lines(curves, times, group, colour=colour, dashes=dashes, shift=shift)
        curves.set_ylim(0, 1.02)
        curves.set_ylabel("without event")
        curves.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        curves.legend(loc="lower left")
        curves.tick_params(labelbottom=True)
        asked = max((*times, *result.asked_times))
        curves.set_xlim(-0.02 * asked, asked * _BEYOND)
        curves.set_xticks(shown)
        curves.set_xlabel("follow-up, years")
        if asked > times[-1]:
            curves.axvspan(times[-1] * (1 + (_BEYOND - 1) / 2), asked * _BEYOND, color=MUTED, alpha=0.1, linewidth=0)
            curves.annotate(
                "not told",
                ((times[-1] + asked) / 2 * _BEYOND, 0.5),
                ha="center",
                va="center",
                color=MUTED,
                fontsize=9,
            )
        _at_risk(table, times, groups, shown)

    ends = "; ".join(f"{group.name} {_last(group, times)}" for group in groups)
    return draw(paint, name="survival", label=f"Survival curves: {ends}", size_in=(7.2, 4.0 + 0.25 * len(groups)))


def _curve(
    axes: Axes, times: Sequence[float], group: SurvivalCurve, *, colour: str, dashes: object, shift: float
) -> None:
    """Steps at the exact times."""
    del shift
    axes.step(
        *_from_zero(times, group.survival),
        where="post",
        color=colour,
        linestyle=dashes,
        linewidth=2.0,
        label=group.name,
    )
    if group.ci95_low and group.ci95_high:
        low_times, low = _from_zero(times, group.ci95_low)
        high_times, high = _from_zero(times, group.ci95_high)
        if low_times == high_times:
            axes.fill_between(low_times, low, high, step="post", color=colour, alpha=0.16, linewidth=0)


def _grouped_curve(
    axes: Axes, times: Sequence[float], group: SurvivalCurve, *, colour: str, dashes: object, shift: float
) -> None:
    """Points at table times with their intervals (thin) and what grouping leaves open (thick); no steps between."""
    at = np.array(times)
    survival = _numbers(group.survival)
    known = np.isfinite(survival)
    # A point that is refused is NaN, which breaks the line: joined over it, the line would seem to tell it.
    axes.plot(
        [0.0, *at],
        [1.0, *survival],
        color=colour,
        linestyle=dashes,
        linewidth=1.2,
        marker="o",
        markersize=4.5,
        label=group.name,
    )
    for lows, highs, width in ((group.ci95_low, group.ci95_high, 1.2), (group.bound_low, group.bound_high, 4.5)):
        if len(lows) == len(highs) == len(times):
            low, high = _numbers(lows), _numbers(highs)
            axes.vlines(at[known] + shift, low[known], high[known], color=colour, linewidth=width, alpha=0.75)
    if len(group.ci95_low) == len(group.ci95_high) == len(times):
        low, high = _numbers(group.ci95_low), _numbers(group.ci95_high)
        axes.fill_between([0.0, *at], [1.0, *low], [1.0, *high], color=colour, alpha=0.12, linewidth=0)


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values])


def _from_zero(times: Sequence[float], values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Times and values from time zero, where everybody is without an event; NaN where a point is refused."""
    known = [at for at, value in enumerate(values) if value is not None]
    last = known[-1] + 1 if known else 0
    points = [*zip(times[:last], _numbers(values[:last]).tolist(), strict=True)]
    if not points or points[0][0] > 0:
        points.insert(0, (0.0, 1.0))
    # A little beyond the last time, so that its step and interval can be seen.
    points.append((points[-1][0] * _BEYOND, points[-1][1]))
    return [time for time, _ in points], [value for _, value in points]


def _at_risk(axes: Axes, times: Sequence[float], groups: Sequence[SurvivalCurve], shown: Sequence[float]) -> None:
    axes.grid(visible=False)
    only_some_spines(axes)
    axes.tick_params(bottom=False, labelbottom=False, left=False)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_yticks(range(len(groups)), [shortened(group.name) for group in groups])
    axes.set_title("Number at risk", color=MUTED, fontsize=9)
    for row, group in enumerate(groups):
        counts = group.remaining or group.at_risk
        at_risk = dict(zip(times, counts, strict=False))
        at_risk.setdefault(0.0, group.n)
        for time in shown:
            if time in at_risk:
                number = at_risk[time]
                axes.text(time, row, "–" if number is None else str(number), ha="center", va="center", fontsize=9)


def _last(group: SurvivalCurve, times: Sequence[float]) -> str:
    """The last point that there is, with its time."""
    shown = [(time, value) for time, value in zip(times, group.survival, strict=False) if value is not None]
    return f"{shown[-1][1]:.0%} at {years(shown[-1][0])}" if shown else "unknown"
