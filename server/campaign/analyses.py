"""Driving the analyses: every unfinished one travels in the same exchange, because an exchange costs seconds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

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
    subset_of,
)
from fedage.common.privacy.masked_statistic import statistic_words, summed_statistic
from fedage.common.protocol.basis import PreparedSums
from fedage.common.protocol.messages import Payload, join_iterates
from fedage.common.statistics.statistic import FloatArray, Layout, Statistic, total
from fedage.server.sites.opened_sets import group_of
from fedage.server.sites.secure_sums import Summed, ask_summed
from fedage.server.sites.session import Answer, Session
from fedage.server.sites.sums import read_statistic, usable_statistics


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
    privacy: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By site, what it said last that it has spent (`site_info.Privacy`)."""
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
    only a threshold (`same_sites` false) it stays, and the remaining sites answer for it. Hidden sums over the others
    alone are opened only where the sites let them be; elsewhere the analysis ends with that reason.
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
        steps = {name: (by_name[name], iterate) for name, iterate in iterates.items()}
        payload_now = {**head, **join_iterates({**(extra or {}), **iterates})}
        sums_of, answers = _asked(session, now, payload_now, steps, fold=fold, sites=sites, quorum=quorum)
        if quorum:
            session.require_quorum(answers, step="analyses", kind=now)
        exchange += 1
        told = {site: answer.info.privacy for site, answer in answers.items()}
        findings.privacy |= {site: said.model_dump() for site, said in told.items() if said is not None}
        session.events.emit("exchange", number=exchange, steps=sorted(iterates), sites=sorted(answers))
        for name in list(iterates):
            analysis = by_name[name]
            sums = sums_of[name]
            for site, reason in sums.missing.items():
                findings.withheld.setdefault(site, {})[name] = reason
            before = taking_part[name]
            present = sums.sites if before is None else before & sums.sites
            if sums.hidden:  # of others than before it was opened only if nobody's own follow from that
                present = sums.sites
            is_another = before is not None and present != before and getattr(analysis, "same_sites", True)
            if is_another and not (sums.hidden and sums.total is None):
                session.events.emit("analysis-restarted", step=name, left=sorted((before or set()) - present))
                iterates[name], taken[name] = begins[name], 0
                taking_part[name] = present
                continue
            taken[name] += 1
            sums = sums.of(present)
            taking_part[name] = sums.sites
            if isinstance(analysis, Costed) and not sums.hidden:
                findings.costs.setdefault(name, []).extend(analysis.costs(sums.by_site, iterates[name]))
            outcome = _combine(analysis, iterates[name], sums)
            if isinstance(outcome, Again) and taken[name] < MAX_EXCHANGES:
                iterates[name] = outcome.iterate
                continue
            if isinstance(outcome, Again):
                outcome = NotComputable(f"did not converge in {MAX_EXCHANGES} exchanges")
            _record(analysis, iterates.pop(name), sums, outcome, findings)
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


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """The sums for one step.

    Parameters
    ----------
    sites
        Whose they are.
    total
        Over all of them; None where there are none that can be used.
    by_site
        Those of each site; where they are hidden, of the sites that tell theirs all the same.
    missing
        Why there are none of other sites.
    hidden
        Whether only the total is seen.
    why
        Why there is no total.
    """

    layout: Layout
    sites: set[str]
    total: Statistic | None
    by_site: Mapping[str, Statistic] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    hidden: bool = False
    why: str = "every site withheld its contribution"

    def of(self, sites: Collection[str]) -> _Sums:
        """The sums of these sites only, where they are seen by site."""
        if self.hidden:
            return self
        by_site = {site: self.by_site[site] for site in sites}
        return replace(
            self, sites=set(by_site), by_site=by_site, total=total(self.layout, by_site) if by_site else None
        )


def _asked(
    session: Session,
    kind: str,
    payload: Payload,
    steps: Mapping[str, tuple[Analysis, Iterate]],
    *,
    fold: int,
    sites: Collection[str] | None,
    quorum: bool,
) -> tuple[dict[str, _Sums], dict[str, Answer]]:
    """The sites' sums for steps, and what else they answered; what cannot be used is there with its reason."""
    layouts = {name: analysis.layout(iterate) for name, (analysis, iterate) in steps.items()}
    if session.campaign.privacy.secure_aggregation:
        blocks = {name: (layout.size, statistic_words(layout)) for name, layout in layouts.items()}
        groups = {name: group_of(subset_of(analysis)) for name, (analysis, _) in steps.items()}
        summed = ask_summed(session, kind, payload, blocks=blocks, groups=groups, fold=fold, sites=sites)
        return {name: _hidden(name, layout, summed) for name, layout in layouts.items()}, summed.answers
    answers = session.ask(kind, payload, fold=fold, sites=sites, needed=None if quorum else 0)
    found = {}
    for name, layout in layouts.items():
        statistics, missing = usable_statistics(session, name, layout, answers)
        sums = _Sums(layout=layout, sites=set(statistics), total=None, by_site=statistics, missing=missing)
        found[name] = sums.of(statistics)
    return found, answers


def _hidden(name: str, layout: Layout, summed: Summed) -> _Sums:
    """The sum for one step of which no site's is seen, but those of sites that tell their own."""
    missing = {
        site: str(answer.info.withheld.get(name, "no contribution in the answer"))
        for site, answer in summed.answers.items()
        if site not in summed.contributors.get(name, ())
    }
    rows = summed.totals.get(name)
    sites = set(summed.contributors.get(name, ()))
    if rows is None:
        why = summed.refused.get(name, "every site withheld its contribution")
        return _Sums(layout=layout, sites=sites, total=None, missing=missing, hidden=True, why=why)
    vector = summed_statistic(layout, rows, sites=summed.members)
    lower, upper = layout.bounds()
    if np.any(vector < np.minimum(len(sites) * lower, lower)) or np.any(vector > np.maximum(len(sites) * upper, upper)):
        why = "the sum over the sites is outside the bounds that the campaign file implies: some site's was, too"
        return _Sums(layout=layout, sites=sites, total=None, missing=missing, hidden=True, why=why)
    statistic = Statistic(layout=layout, vector=vector, smallest=None)
    by_site = {}
    for site, vector in summed.results.get(name, {}).items():
        own = read_statistic(name, layout, replace(summed.answers[site], payload={name: vector}))
        if isinstance(own, Statistic):
            by_site[site] = own
    return _Sums(layout=layout, sites=sites, total=statistic, by_site=by_site, missing=missing, hidden=True)


def _combine(analysis: Analysis, iterate: Iterate, sums: _Sums) -> Outcome:
    if sums.total is None:
        return NotComputable(sums.why)
    return analysis.combine(sums.total, iterate)


def _record(
    analysis: Analysis,
    iterate: Iterate,
    sums: _Sums,
    outcome: Done | NotComputable,
    findings: AnalysisOutcomes,
) -> None:
    if isinstance(outcome, NotComputable):
        findings.not_computed[analysis.name] = outcome.reason
    else:
        findings.results[analysis.name] = outcome.result
        summed = Statistic.zero(sums.layout).vector if sums.total is None else sums.total.vector
        findings.made_from[analysis.name] = PreparedSums(iterate=iterate, total=summed)
    findings.contributors[analysis.name] = sorted(sums.sites)
    if analysis.per_site:
        for site, statistic in sorted(sums.by_site.items()):
            alone: Any = analysis.combine(statistic, iterate)
            if isinstance(alone, Done):
                findings.by_site.setdefault(analysis.name, {})[site] = alone.result
