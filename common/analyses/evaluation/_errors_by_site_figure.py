"""Each site's MAE as grouped dots: a group a site, a dot a run."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedage.common.analyses.evaluation._run_errors import Errors, Runs, sites_of
from fedage.common.presentation.looks import PlotStyle, legend_below, short
from fedage.common.presentation.svg import GRID, MUTED, draw, only_some_spines

_GROUP = 0.76
"""Height of a group; 1 would leave nothing between two."""
_ROW_IN = 0.17
_ROOM = 1.45
"""Width of the axis over the largest error; what lies beyond is not drawn."""
_ALL = "all sites"


def errors_by_site(errors: Runs) -> str | None:
    """The figure, raw MAE with all sites together first, or None if no run has an error by site."""
    sites = sites_of(errors)
    if not sites:
        return None
    groups = (_ALL, *sites)
    runs = len(errors)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for number in range(runs):
            _dots(axes, errors, number, groups)
        for line in range(len(groups) - 1):
            axes.axhline(line + 0.5, color=GRID, linewidth=0.8 if line else 1.6)
        axes.set_yticks(range(len(groups)), [short(group) for group in groups])
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(0, _ROOM * _largest(errors))
        axes.grid(visible=False, axis="y")
        axes.tick_params(left=False)
        only_some_spines(axes, "bottom")
        axes.set_xlabel("MAE raw, years")
        legend_below(figure, axes)

    description = "; ".join(f"{label}: {_errors_text(run, sites)}" for label, run in errors)
    height = 1.15 + len(groups) * max(0.34, _ROW_IN * runs + 0.08)
    return draw(paint, name="sites", label=f"Raw MAE in years by site: {description}", size_in=(8.0, height))


def _largest(errors: Runs) -> float:
    known = [site.mae_years_raw for _, run in errors for site in run.by_site.values()]
    return max((error for error in (*known, *(run.mae_years_raw for _, run in errors)) if error), default=1.0)


def _errors_text(run: Errors, sites: tuple[str, ...]) -> str:
    known = {site: run.by_site[site].mae_years_raw for site in sites if site in run.by_site}
    return ", ".join(f"{site} {error:.2f}" for site, error in known.items() if error is not None) or "none"


def _dots(axes: Axes, errors: Runs, number: int, groups: tuple[str, ...]) -> None:
    (label, run), look, runs = errors[number], PlotStyle.of(number), len(errors)
    offset = (number - (runs - 1) / 2) * _GROUP / max(runs, 3)
    dots, ticks, crosses = [], [], []
    for group, site in enumerate(groups):
        of_site = run.by_site.get(site)
        error = run.mae_years_raw if group == 0 else (of_site.mae_years_raw if of_site else None)
        mean = run.mae_of_mean_years if group == 0 else (of_site.mae_of_mean_years if of_site else None)
        if error is not None:
            dots.append((error, group + offset))
        own = run.mae_of_site_mean_years if group == 0 else (of_site.mae_of_site_mean_years if of_site else None)
        if error is not None and mean is not None:
            ticks.append((mean, group + offset))
        if error is not None and own is not None:
            crosses.append((own, group + offset))
    for marks, marker, size in ((ticks, "|", 7), (crosses, "x", 4.5)):
        if marks:
            axes.plot(*zip(*marks, strict=True), linestyle="", marker=marker, markersize=size, color=MUTED)
    if dots:
        axes.plot(
            *zip(*dots, strict=True),
            linestyle="",
            marker=look.marker,
            markersize=6.5,
            color=look.colour,
            label=short(label),
        )
