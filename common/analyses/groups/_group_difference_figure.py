"""Two groups compared: differences of the gap with their 95 % intervals, and the ROC curve beside them."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedage.common.analyses.groups import result as groups_result
from fedage.common.analyses.groups.result import Difference, GroupDifference
from fedage.common.presentation.participation import pooled_label
from fedage.common.presentation.svg import INK, MUTED, SERIES, draw, only_some_spines
from fedage.common.presentation.wording import shortened
from fedage.common.record.results import Results


@dataclass(frozen=True)
class _Row:
    words: str
    colour: str
    difference: float
    low: float
    high: float


def compared_groups(results: Results) -> str | None:
    """The figure, or None if there is no difference with an interval."""
    groups = groups_result.groups(results)
    rows = _rows(results)
    if groups is None or not rows:
        return None
    has_curve = groups.corrected.roc is not None

    def paint(figure: Figure) -> None:
        if has_curve:
            left, right = figure.subplots(1, 2, width_ratios=(1.75, 1))
            right.set_anchor("N")
            _curve(right, groups.corrected)
        else:
            left = figure.subplots()
        _differences(left, rows)

    description = "; ".join(f"{row.words} {row.difference:.2f} ({row.low:.2f} to {row.high:.2f})" for row in rows)
    auc = f"; ROC AUC {groups.corrected.auc:.3f}" if groups.corrected.auc is not None else ""
    height = max(1.1 + 0.3 * len(rows), 3.1)
    return draw(
        paint, name="compared", label=f"Differences of the gap in years: {description}{auc}", size_in=(8.4, height)
    )


def _rows(results: Results) -> list[_Row]:
    groups = groups_result.groups(results)
    if groups is None:
        return []
    label = pooled_label(results, "groups:gap", by_site=list(groups.corrected.by_site))
    differences: list[tuple[str, str, Difference | None]] = [
        (label, SERIES[0], groups.corrected.adjusted or groups.corrected.unadjusted)
    ]
    if groups.raw is not None:
        label = pooled_label(results, "groups:raw-gap", by_site=list(groups.raw.by_site))
        differences.append((f"{label}, raw gap", SERIES[1], groups.raw.adjusted or groups.raw.unadjusted))
    differences += [(site, MUTED, own.unadjusted) for site, own in groups.corrected.by_site.items()]
    return [
        _Row(words, colour, item.difference_years, item.ci95_low, item.ci95_high)
        for words, colour, item in differences
        if item is not None
        and item.difference_years is not None
        and item.ci95_low is not None
        and item.ci95_high is not None
    ]


def _differences(axes: Axes, rows: list[_Row]) -> None:
    for position, row in enumerate(rows):
        axes.plot([row.low, row.high], [position, position], color=row.colour, linewidth=2.0, solid_capstyle="butt")
        axes.plot([row.difference], [position], color=row.colour, marker="s", markersize=6, linestyle="")
    axes.axvline(0, color=INK, linewidth=1.0)
    axes.set_yticks(range(len(rows)), [shortened(row.words) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    only_some_spines(axes, "bottom")
    axes.tick_params(left=False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.set_xlabel("difference of the gap, years")
    axes.set_title("Difference")


def _curve(axes: Axes, difference: GroupDifference) -> None:
    if difference.roc is not None:
        axes.plot(difference.roc.false_positive, difference.roc.true_positive, color=SERIES[0])
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle="dashed")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("reference above a gap")
    axes.set_ylabel("group above it")
    axes.set_title("ROC curve" if difference.auc is None else f"ROC curve, all\npairs: AUC {difference.auc:.2f}")
