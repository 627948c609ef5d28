"""What is to be said of survival curves beside their points: where they end and why, what is refused, who costs it."""

from __future__ import annotations

from fedage.server.results import GridCost, KaplanMeier, SurvivalCurve

_MOST_COSTS = 4
POINT = "without the event; in brackets the 95 % interval, then what grouping of times leaves open"


def grouped(found: KaplanMeier) -> bool:
    """Whether anything is left open at a point: somebody censored between table times, or table times merged."""
    if found.merged_table_times:
        return True
    return any(
        low is not None and high is not None and high - low > 1e-9
        for group in found.groups
        for low, high in zip(group.bound_low, group.bound_high, strict=True)
    )


def sentences(found: KaplanMeier | None) -> list[str]:
    """The sentences, none where there is nothing to say."""
    if found is None:
        return []
    said = []
    if found.table_times and len(found.table_times) < len(found.asked_times):
        said.append(
            f"The curves have points at {len(found.table_times)} of the {len(found.asked_times)} table times asked "
            "for: those between which every site has enough patients with an event, without one and followed on."
        )
    if found.table_times and found.asked_times and found.table_times[-1] < found.asked_times[-1]:
        said.append(
            f"They end at {found.table_times[-1]:g} years: beyond it a site has too few patients left to tell of, and "
            "the curve would be that of the others."
        )
    said += _refusals(found)
    if found.log_rank_refused:
        said.append(f"The log-rank test is not given: {found.log_rank_refused}.")
    said += _costs(found.held_back)
    return said


def point(group: SurvivalCurve, at: int) -> str:
    """A point with its interval and its bounds, or that it is refused, e.g. `76.1 % (72.0 to 79.8; 75.2 to 77.4)`."""
    value = group.survival[at]
    if value is None:
        return "refused" if at < len(group.refused) and group.refused[at] else "–"
    said = f"{100 * value:.1f} %"
    spans = [
        f"{100 * low:.1f} to {100 * high:.1f}"
        for lows, highs in ((group.ci95_low, group.ci95_high), (group.bound_low, group.bound_high))
        if at < min(len(lows), len(highs)) and (low := lows[at]) is not None and (high := highs[at]) is not None
    ]
    return f"{said} ({'; '.join(spans)})" if spans else said


def median(group: SurvivalCurve) -> str:
    """The median in words: exact, between two table times, or not reached."""
    if group.median_survival is not None:
        return f"{group.median_survival:.2f}"
    if group.median_between is not None:
        low, high = group.median_between
        return f"between {low:g} and {high:g}"
    return "not reached"


def _refusals(found: KaplanMeier) -> list[str]:
    said = []
    for group in found.groups:
        refused = [(time, why) for time, why in zip(found.table_times, group.refused, strict=False) if why]
        if refused:
            times = ", ".join(f"{time:g}" for time, _ in refused)
            said.append(f"{group.name}: the point{'s' if len(refused) > 1 else ''} at {times} years: {refused[-1][1]}.")
    return said


def _costs(costs: tuple[GridCost, ...]) -> list[str]:
    """Which sites make intervals longer, or end the curves; the longest first where there are many."""
    said = []
    for cost in sorted(costs, key=_lost, reverse=True)[:_MOST_COSTS]:
        who, verb = ", ".join(cost.sites), "needs" if len(cost.sites) == 1 else "need"
        begin = 0.0 if cost.from_years is None else cost.from_years
        alone = (
            f"; the other sites could end it at {cost.others_to_years:g}" if cost.others_to_years is not None else ""
        )
        if cost.to_years is None:
            has = "has" if len(cost.sites) == 1 else "have"
            said.append(f"{who} {has} too few patients for an interval from {begin:g} years on, so the curves end there"
                        f"{alone}.")  # fmt: skip
        else:
            said.append(f"{who} {verb} the interval from {begin:g} to {cost.to_years:g} years{alone}.")
    if len(costs) > _MOST_COSTS:
        said.append(f"{len(costs) - _MOST_COSTS} more such intervals are in results.json.")
    if said:
        said.append(
            "Sites with few patients can be left out of curves and of models with one baseline hazard with "
            "survival.curves_from_patients in the campaign file."
        )
    return said


def _lost(cost: GridCost) -> float:
    if cost.to_years is None:
        return float("inf")
    return cost.to_years - (cost.others_to_years if cost.others_to_years is not None else cost.from_years or 0.0)
