"""What survival curves show: points, where they end and why, what is refused, who costs it, and a figure."""

from __future__ import annotations

from fedage.common.analyses.survival import results as survival_results
from fedage.common.analyses.survival._cox_shown import heading
from fedage.common.analyses.survival.results import Curves, GridCost, LogRank, SurvivalCurve
from fedage.common.presentation.blocks import Display, FigureBlock, Folded, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import NONE, Cell, Table, count, interval, number, p_value, percent, words
from fedage.common.presentation.participation import analysed
from fedage.common.presentation.wording import years
from fedage.common.record.results import Results

_MOST_POINTS = 3
_HALF = 0.5 + 1e-9
_SAME_P = 1e-6
_P_AT_MOST = (
    "p at most: with the expected events that grouping times between table times leaves open. It holds where one group "
    "leaves just before a table time and the other just after; table times closer together bring it nearer to p."
)


def shown(results: Results) -> Display:
    """Everything, of a campaign that asks for follow-up."""
    if survival_results.survival(results) is None:
        return Display()

    def figure() -> str | None:
        from fedage.common.analyses.survival._kaplan_meier_figure import kaplan_meier

        return kaplan_meier(curves)

    curves = survival_results.curves(results)
    points = survival_points(results)
    why = "no point of a curve is given, for the reasons below" if points.rows else "no table by time was computed"
    why = curves.not_computed if curves is not None and curves.not_computed else why
    blocks = (
        FigureBlock(figure, _survival(results), why),
        TitledTable(survival_groups(results), groups_compared(curves)),
        *(Paragraph(sentence) for sentence in [*left_out(results), *sentences(curves)]),
        *(
            (TitledTable(_log_rank(curves.log_rank), "Log-rank test"),)
            if curves is not None and curves.log_rank
            else ()
        ),
        *((Folded("Points of the curves", (TitledTable(points, "The curves' points"),)),) if points.rows else ()),
    )
    section = Section("survival", heading(results), blocks, place=40, withheld=_STEPS)
    return Display(
        terminal=tuple(_terminal(curves, left_out(results))) if curves is not None else (), sections=(section,)
    )


def left_out(results: Results) -> list[str]:
    """Whose patients the curves are not of, and that this may select by the outcome; none if nobody is left out.

    A site withholds its tables where too few of its patients leave, or stay, in an interval. Where patients die fast
    that comes first, and a curve of the others lies above one of all.
    """
    curves = survival_results.curves(results)
    if curves is None or not any(group.survival for group in curves.groups):
        return []
    withheld = {site.name for site in results.sites if any(item.step in _STEPS for item in site.withheld)}
    sites = sorted(withheld - set(curves.sites))
    if not sites:
        return []
    return [
        f"Not in the curves: {', '.join(sites)}, which withheld tables. A site does so where too few of its patients "
        "have the event in an interval, or leave without it, or stay, as where they die early: the curves are those of "
        f"{', '.join(curves.sites) or 'the others'}, and may lie above or below those of all sites."
    ]


def _terminal(curves: Curves, left_out_of: list[str]) -> list[TitledTable | str]:
    """The curves at the last table times, with what grouping leaves open, or why there are none."""
    lines: list[TitledTable | str] = []
    if curves.not_computed:
        lines.append(f"Survival curves are not given: {curves.not_computed}.")
    shown_at = list(range(len(curves.table_times)))[-_MOST_POINTS:]
    if shown_at and curves.groups:
        headers = ("group", *(years(curves.table_times[at]) for at in shown_at), "median, years")
        rows = tuple(
            (words(group.name), *(words(point(group, at)) for at in shown_at), words(median(group)))
            for group in curves.groups
        )
        lines.append(TitledTable(Table("curves", headers, rows, note=POINT), "survival"))
    return [*lines, *left_out_of, *sentences(curves)]


def _log_rank(test: LogRank) -> Table:
    row = (number(test.chi2), count(test.df), p_value(test.p))
    if test.p_bounds is None or test.p is None or max(test.p_bounds) - min(test.p_bounds) <= _SAME_P:
        return Table("log-rank", ("χ²", "degrees of freedom", "p"), (row,))
    headers = ("χ²", "degrees of freedom", "p", "p at most")
    return Table("log-rank", headers, ((*row, p_value(max(test.p_bounds))),), note=_P_AT_MOST)


def groups_compared(curves: Curves | None) -> str:
    """E.g. `High gap against low gap`, `Male against female`, `All patients`."""
    names = [group.name for group in curves.groups] if curves is not None else []
    if len(names) < 2:
        return _capital(names[0]) if names else "Kaplan-Meier estimate"
    return _capital(f"{names[1]} against {names[0]}")


def _survival(results: Results) -> str:
    curves = survival_results.curves(results)
    if curves is None:
        return ""
    names, everyone = [group.name for group in curves.groups], analysed(results)
    if "high gap" in names:
        split = f", split at {curves.split_years:.2f} years".replace("-", "−") if curves.split_years is not None else ""
        of = f"{everyone} with a high and a low {_gap(curves)}{split}"
    elif len(names) > 1:
        column = f" by {curves.column}" if curves.column else ""
        of = f"{everyone}{column} ({' and '.join(names)})"
    else:
        of = f"all {everyone}"
    is_grouped = curves.is_grouped
    sites = f" at {len(curves.sites)} site{'' if len(curves.sites) == 1 else 's'}" if curves.sites else ""
    return (
        f"{'Actuarial' if is_grouped else 'Kaplan-Meier'} estimate for {of}{sites}, with 95 % intervals (shaded)."
        f"{_GROUPED if is_grouped else ''}"
    )


_GROUPED = (
    " Times between table times are not known: points stand at table times, and lines only join them. Thick bars: what "
    "remains open because of that."
)


def _gap(curves: Curves) -> str:
    return {"raw_gap_years": "raw gap", "cole_gap_years": "corrected gap (Cole)"}.get(
        curves.column or "", "corrected gap"
    )


def _capital(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"


_STEPS = ("kaplan-meier", "table-grid")
_MOST_COSTS = 4
POINT = "without the event; in brackets the 95 % interval, then what grouping of times leaves open"


def sentences(curves: Curves | None) -> list[str]:
    """The sentences, none where there is nothing to say."""
    if curves is None:
        return []
    said = []
    if curves.table_times and len(curves.table_times) < len(curves.asked_times):
        said.append(
            f"The curves have points at {len(curves.table_times)} of the {len(curves.asked_times)} table times asked "
            "for: those between which every site has enough patients with an event, without one and followed on."
        )
    if curves.table_times and curves.asked_times and curves.table_times[-1] < curves.asked_times[-1]:
        said.append(
            f"They end at {years(curves.table_times[-1])}: beyond it a site has too few patients left to tell of, and "
            "a curve of all sites cannot go on."
        )
    said += _refusals(curves)
    if curves.log_rank_refused:
        said.append(f"The log-rank test is not given: {curves.log_rank_refused}.")
    said += _costs(curves.held_back)
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
    """The median in words: exact, between two table times, not reached, or not given for want of a point's."""
    if group.median_survival is not None:
        return f"{group.median_survival:.2f}"
    if group.median_between is not None:
        low, high = group.median_between
        return f"between {low:g} and {high:g}"
    known = [(why, low) for why, low in zip(group.refused, group.bound_low, strict=False) if low is not None]
    if known and known[-1][0] and known[-1][1] <= _HALF:
        return "not given"
    return "not reached"


def _refusals(curves: Curves) -> list[str]:
    said = []
    for group in curves.groups:
        refused = [(time, why) for time, why in zip(curves.table_times, group.refused, strict=False) if why]
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
            said.append(f"{who} {has} too few patients for an interval from {years(begin)} on, so the curves end there"
                        f"{alone}.")  # fmt: skip
        else:
            said.append(f"{who} {verb} the interval from {begin:g} to {cost.to_years:g} years{alone}.")
    if len(costs) > _MOST_COSTS:
        said.append(f"{len(costs) - _MOST_COSTS} more such intervals are in results.json.")
    if said:
        said.append(
            "Under secure aggregation (privacy.secure_aggregation) the minimum count is asked of all sites together, "
            "and no site makes intervals longer. Otherwise sites with few patients can be left out of curves and of "
            "models with one baseline hazard with survival.curves_from_patients in the campaign file."
        )
    return said


def _lost(cost: GridCost) -> float:
    if cost.to_years is None:
        return float("inf")
    return cost.to_years - (cost.others_to_years if cost.others_to_years is not None else cost.from_years or 0.0)


def survival_groups(results: Results) -> Table:
    """The curves in numbers."""
    curves = survival_results.curves(results)
    rows = []
    for group in curves.groups if curves is not None else ():
        exact = group.median_survival is not None
        half = number(group.median_survival) if exact else words(median(group))
        rows.append((words(group.name), count(group.n), count(group.events), _last_point(curves, group), half))
    why = curves.not_computed if curves is not None and curves.not_computed else "No Kaplan-Meier table was computed."
    last = f"without event at {years(curves.table_times[-1])}" if curves is not None and curves.table_times else "last"
    return Table("groups", ("group", "patients", "events", last, "median, years"), tuple(rows), why_empty=why)


def _last_point(curves: Curves | None, group: SurvivalCurve) -> Cell:
    """The value at the last table time, or at the last one at which there is one."""
    times = curves.table_times if curves is not None else ()
    shown = [(time, value) for time, value in zip(times, group.survival, strict=False) if value is not None]
    if not shown:
        return words("refused") if any(group.refused) else NONE
    time, value = shown[-1]
    cell = percent(value)
    return cell if time == times[-1] else Cell(f"{cell.text} at {years(time)}", cell.value)


def survival_points(results: Results) -> Table:
    """Every point of the curves with its interval and what grouping leaves open."""
    curves = survival_results.curves(results)
    headers = ("group", "years", "at risk before", "events", "without event", "95 % interval", "left open by grouping")
    rows: list[tuple[Cell, ...]] = []
    for group in curves.groups if curves is not None else ():
        for at, time in enumerate(curves.table_times if curves is not None else ()):
            value = group.survival[at]
            refused = at < len(group.refused) and bool(group.refused[at])
            rows.append(
                (
                    words(group.name),
                    number(time, 2),
                    _count_at(group.at_risk, at),
                    _count_at(group.events_at, at),
                    words("refused") if refused else percent(value) if value is not None else NONE,
                    _span(group.ci95_low, group.ci95_high, at),
                    _span(group.bound_low, group.bound_high, at),
                )
            )
    why = curves.not_computed if curves is not None and curves.not_computed else "No Kaplan-Meier table was computed."
    return Table("points", headers, tuple(rows), why_empty=why)


def _count_at(counts: tuple[int | None, ...], at: int) -> Cell:
    value = counts[at] if at < len(counts) else None
    return count(value) if value is not None else NONE


def _span(low: tuple[float | None, ...], high: tuple[float | None, ...], at: int) -> Cell:
    if at >= min(len(low), len(high)) or low[at] is None or high[at] is None:
        return NONE
    return interval(low[at], high[at])
