"""Driving the analyses: every unfinished one travels in the same exchange, because an exchange costs seconds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedage.common.analyses.base import (
    MAX_EXCHANGES,
    Again,
    Analysis,
    Costed,
    Done,
    Following,
    Iterate,
    NotComputable,
    Outcome,
    Result,
)
from fedage.common.protocol.basis import PreparedSums
from fedage.common.protocol.messages import join_iterates
from fedage.common.statistics.statistic import FloatArray, Statistic, total
from fedage.server.sites.session import Answer, Session
from fedage.server.sites.sums import usable_statistics


@dataclass
class AnalysisOutcomes:
    """What came out: results by step, by step and site, why a step has none, and what each site withheld."""

    results: dict[str, Result] = field(default_factory=dict)
    by_site: dict[str, dict[str, Result]] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)
    withheld: dict[str, dict[str, str]] = field(default_factory=dict)
    contributors: dict[str, list[str]] = field(default_factory=dict)
    made_from: dict[str, PreparedSums] = field(default_factory=dict)
    """By step, the last iterate and the sum over the sites that the result came from."""
    costs: dict[str, list[Result]] = field(default_factory=dict)
    """By step, which sites made its result coarser."""


def run_stage(
    session: Session,
    analyses: Sequence[Analysis],
    *,
    kind: str,
    findings: AnalysisOutcomes,
    payload: Mapping[str, FloatArray] | None = None,
    extra: Mapping[str, Iterate] | None = None,
    following_kind: str,
    fold: int = 0,
    sites: Collection[str] | None = None,
    quorum: bool = True,
) -> None:
    """Run analyses to their end. The first exchange is a `kind` message with `payload`, later ones `following_kind`.

    All sites whose policy allows it take part, or of these only `sites`. Without `quorum` an exchange that nobody
    answers ends the analyses, not the run.

    A site that withholds or fails an exchange of an iterative analysis leaves that analysis, and the analysis begins
    again with the sites that remain: sums of different sets of sites would not be one likelihood. Where an iterate is
    only a threshold (`same_sites` false) it stays, and the remaining sites answer for it.
    """
    by_name = {analysis.name: analysis for analysis in analyses}
    waiting = {name: a for name, a in by_name.items() if isinstance(a, Following)}
    begins: dict[str, Iterate] = {name: a.first() for name, a in by_name.items() if name not in waiting}
    iterates: dict[str, Iterate] = dict(begins)
    taking_part: dict[str, set[str] | None] = dict.fromkeys(by_name)
    taken = dict.fromkeys(by_name, 0)
    exchange = 0
    while iterates:
        head = dict(payload or {}) if exchange == 0 else {}
        now = kind if exchange == 0 else following_kind
        payload_now = {**head, **join_iterates({**(extra or {}), **iterates})}
        answers = session.ask(now, payload_now, fold=fold, sites=sites, needed=None if quorum else 0)
        if quorum:
            session.require_quorum(answers, step="analyses", kind=now)
        exchange += 1
        session.events.emit("exchange", number=exchange, steps=sorted(iterates), sites=sorted(answers))
        for name in list(iterates):
            analysis = by_name[name]
            statistics = _statistics(session, analysis, iterates[name], answers, findings)
            before = taking_part[name]
            present = set(statistics) if before is None else before & set(statistics)
            if before is not None and present != before and getattr(analysis, "same_sites", True):
                session.events.emit("analysis-restarted", step=name, left=sorted(before - present))
                iterates[name], taken[name] = begins[name], 0
                taking_part[name] = present
                continue
            taken[name] += 1
            taking_part[name] = present
            statistics = {site: statistics[site] for site in present}
            if isinstance(analysis, Costed):
                findings.costs.setdefault(name, []).extend(analysis.costs(statistics, iterates[name]))
            outcome = _combine(analysis, iterates[name], statistics)
            if isinstance(outcome, Again) and taken[name] < MAX_EXCHANGES:
                iterates[name] = outcome.iterate
                continue
            if isinstance(outcome, Again):
                outcome = NotComputable(f"did not converge in {MAX_EXCHANGES} exchanges")
            _record(analysis, iterates.pop(name), statistics, outcome, findings)
        for name, following in list(waiting.items()):
            first = following.preceding.name
            if first in findings.results:
                begins[name] = iterates[name] = following.begin(findings.results[first])
            elif first in findings.not_computed:
                findings.not_computed[name] = findings.not_computed[first]
            else:
                continue
            del waiting[name]
        session.events.emit("recorded", unfinished=sorted((*iterates, *waiting)))
    for name, following in waiting.items():
        findings.not_computed[name] = f"{following.preceding.name}, which it begins with, has no result"


def _statistics(
    session: Session, analysis: Analysis, iterate: Iterate, answers: dict[str, Answer], findings: AnalysisOutcomes
) -> dict[str, Statistic]:
    """The sites' sums for one step; what cannot be used is recorded with its reason."""
    found, missing = usable_statistics(session, analysis.name, analysis.layout(iterate), answers)
    for site, reason in missing.items():
        findings.withheld.setdefault(site, {})[analysis.name] = reason
    return found


def _combine(analysis: Analysis, iterate: Iterate, statistics: Mapping[str, Statistic]) -> Outcome:
    if not statistics:
        return NotComputable("every site withheld its contribution")
    return analysis.combine(total(analysis.layout(iterate), statistics), iterate)


def _record(
    analysis: Analysis,
    iterate: Iterate,
    statistics: Mapping[str, Statistic],
    outcome: Done | NotComputable,
    findings: AnalysisOutcomes,
) -> None:
    if isinstance(outcome, NotComputable):
        findings.not_computed[analysis.name] = outcome.reason
    else:
        findings.results[analysis.name] = outcome.result
        summed = total(analysis.layout(iterate), statistics).vector
        findings.made_from[analysis.name] = PreparedSums(iterate=iterate, total=summed)
    findings.contributors[analysis.name] = sorted(statistics)
    if analysis.per_site:
        for site, statistic in sorted(statistics.items()):
            alone: Any = analysis.combine(statistic, iterate)
            if isinstance(alone, Done):
                findings.by_site.setdefault(analysis.name, {})[site] = alone.result
