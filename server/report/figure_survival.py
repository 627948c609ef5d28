"""Kaplan-Meier curves of the groups, with the numbers at risk under them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedage.server.report._svg import DASHES, MUTED, SERIES, draw, only_some_spines
from fedage.server.results import KaplanMeier, SurvivalCurve

_MOST_TICKS = 11
_BEYOND = 1.04


def kaplan_meier(found: KaplanMeier | None) -> str | None:
    """The figure, or None if there are no curves."""
    if found is None or not found.groups or not found.table_times:
        return None
    groups, times = found.groups, found.table_times
    every = -(-len(times) // (_MOST_TICKS - 1))
    shown = sorted({0.0, *times[every - 1 :: every]})

    def paint(figure: Figure) -> None:
        curves, table = figure.subplots(2, 1, sharex=True, height_ratios=(10, 0.75 * len(groups)))
        for number, group in enumerate(groups):
            _curve(curves, times, group, colour=SERIES[number % len(SERIES)], dashes=DASHES[number % len(DASHES)])
        curves.set_ylim(0, 1.02)
        curves.set_ylabel("without event")
        curves.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        curves.legend(loc="lower left")
        curves.tick_params(labelbottom=True)
        curves.set_xlim(-0.02 * times[-1], times[-1] * _BEYOND)
        curves.set_xticks(shown)
        curves.set_xlabel("follow-up, years")
        _at_risk(table, times, groups, shown)

    ends = "; ".join(f"{group.name} {_last(group)} at {times[-1]:g} years" for group in groups)
    return draw(paint, name="survival", label=f"Kaplan-Meier curves: {ends}", size_in=(7.2, 4.0 + 0.25 * len(groups)))


def _curve(axes: Axes, times: Sequence[float], group: SurvivalCurve, *, colour: str, dashes: object) -> None:
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


def _from_zero(times: Sequence[float], values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Everybody is without an event at time zero."""
    known = [(time, value) for time, value in zip(times, values, strict=True) if value is not None]
    if not known or known[0][0] > 0:
        known.insert(0, (0.0, 1.0))
    # A little beyond the last time, so that its step and interval can be seen.
    known.append((known[-1][0] * _BEYOND, known[-1][1]))
    return [time for time, _ in known], [value for _, value in known]


def _at_risk(axes: Axes, times: Sequence[float], groups: Sequence[SurvivalCurve], shown: Sequence[float]) -> None:
    axes.grid(visible=False)
    only_some_spines(axes)
    axes.tick_params(bottom=False, labelbottom=False, left=False)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_yticks(range(len(groups)), [group.name for group in groups])
    axes.set_title("Number at risk", color=MUTED, fontsize=9)
    for row, group in enumerate(groups):
        at_risk = dict(zip(times, group.at_risk, strict=False))
        at_risk.setdefault(0.0, group.n)
        for time in shown:
            if time in at_risk:
                count = at_risk[time]
                axes.text(time, row, "–" if count is None else str(count), ha="center", va="center", fontsize=9)


def _last(group: SurvivalCurve) -> str:
    value = group.survival[-1]
    return "unknown" if value is None else f"{value:.0%}"
