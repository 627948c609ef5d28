"""The forest plot: hazard ratios with their 95 % intervals, all models under each other.

A ratio is per unit of its covariate, or per standard deviation where the unit is small or large against that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from fedage.common.analyses.survival import results as survival_results
from fedage.common.analyses.survival._hazards_text import in_unit, ratio_decimals, told_per_sd
from fedage.common.presentation.svg import INK, MARK, MUTED, SERIES, draw, only_some_spines
from fedage.common.presentation.wording import shortened
from fedage.common.record.results import Results

_MOST_TICKS = 8


@dataclass(frozen=True)
class _Row:
    words: str
    is_gap: bool
    per_sd: bool
    hazard_ratio: float
    low: float
    high: float
    reference: float | None


def forest(results: Results) -> str | None:
    """The figure, or None if no model has a finite interval."""
    reference = results.reference("hazard_ratio")
    rows = _rows(results, {} if reference is None else reference.values)
    if not rows:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _points(axes, rows, "" if reference is None else reference.words)
        axes.axvline(1, color=INK, linewidth=1.0)
        axes.set_yticks(range(len(rows)), [row.words for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        only_some_spines(axes, "bottom")
        axes.tick_params(left=False)
        _log_scale(axes, rows)
        of_sd = ", or per SD where a line says so" if any(row.per_sd for row in rows) else ""
        axes.set_xlabel(f"hazard ratio per unit (per year for gaps and age{of_sd}), logarithmic")
        if any(row.reference is not None for row in rows):
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1 + 0.75 / (len(rows) + 1)), ncols=2)

    label = "Hazard ratios with 95 % intervals: " + "; ".join(f"{row.words} {_row_text(row)}" for row in rows)
    return draw(paint, name="forest", label=label, size_in=(7.6, 1.1 + 0.34 * len(rows)))


def _row_text(row: _Row) -> str:
    decimals = ratio_decimals(row.hazard_ratio, row.low, row.high)
    return f"{row.hazard_ratio:.{decimals}f} ({row.low:.{decimals}f} to {row.high:.{decimals}f})"


def _rows(results: Results, references: Mapping[str, float | None]) -> list[_Row]:
    rows = []
    for model in survival_results.models(results):
        for item in model.covariates:
            ratio, low, high = in_unit(item)
            if ratio is None or low is None or high is None or min(ratio, low) <= 0:
                continue
            per_sd = told_per_sd(item)
            reference = None if per_sd else references.get(item.name)
            words = f"{shortened(f'{model.model}: {item.name}')}{', per SD' if per_sd else ''}"
            rows.append(_Row(words, item.name.endswith("gap_years"), per_sd, ratio, low, high, reference))
    return rows


def _points(axes: Axes, rows: list[_Row], reference: str) -> None:
    labelled = {"point": False, "reference": False}
    for number, row in enumerate(rows):
        colour = SERIES[0] if row.is_gap else MUTED
        axes.plot([row.low, row.high], [number, number], color=colour, linewidth=2.0, solid_capstyle="butt")
        label = "estimate, 95 % interval" if row.is_gap and not labelled["point"] else None
        axes.plot([row.hazard_ratio], [number], color=colour, marker="s", markersize=6, linestyle="", label=label)
        labelled["point"] = labelled["point"] or label is not None
        if row.reference is not None:
            label = None if labelled["reference"] else reference
            axes.plot(
                [row.reference],
                [number],
                markerfacecolor="none",
                markeredgecolor=MARK,
                marker="D",
                markersize=9,
                markeredgewidth=1.8,
                linestyle="",
                label=label,
            )
            labelled["reference"] = True


def _log_scale(axes: Axes, rows: list[_Row]) -> None:
    low = min(1.0, *(row.low for row in rows))
    high = max(1.0, *(row.high for row in rows))
    axes.set_xscale("log")
    axes.set_xlim(low / 1.03, high * 1.03)
    axes.xaxis.set_major_locator(FixedLocator(_ticks(low / 1.03, high * 1.03)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _ticks(low: float, high: float) -> list[float]:
    """Round hazard ratios from low to high, 1 always among them: even steps on a narrow range, ratios on a wide one."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2):
        if high - low <= 9 * step and high / low < 3:
            first, last = math.ceil((low - 1) / step - 1e-9), math.floor((high - 1) / step + 1e-9)
            return [1 + k * step for k in range(first, last + 1)]
    for ratios in ((0.5, 0.67, 0.8, 1.25, 1.5, 2.0, 3.0), (0.1, 0.2, 0.5, 2.0, 5.0, 10.0), (0.01, 0.1, 10.0, 100.0)):
        if low >= ratios[0] * 0.6 and high <= ratios[-1] * 1.6:
            return [ratio for ratio in sorted((1.0, *ratios)) if low <= ratio <= high]
    lowest, highest = math.ceil(math.log10(max(low, 1e-300))), math.floor(math.log10(min(high, 1e300)))
    step = max(1, math.ceil((highest - lowest) / _MOST_TICKS))
    return sorted({1.0, *(10.0**k for k in range(lowest, highest + 1) if k % step == 0)})
