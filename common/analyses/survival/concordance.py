"""Harrell's C-index of a Cox model stratified by site, from pairs of patients of one site.

Two patients of a stratum can be compared if the one with the shorter time had an event there; of equal times an event
comes before a censoring, and two events cannot be compared. A pair is concordant if the one with the event first has
the larger β·x; C = (concordant + ½ tied) / comparable, each summed over strata (lifelines' count of pairs; 1 means
that order is foretold, ½ chance). Pairs across sites nobody can count, so this is not the C-index of the pooled
patients: with many sites most pairs are across them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Described

from fedage.common.analyses._shown_in_rows import ShownInRows
from fedage.common.analyses.agreement import Agreed
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, Outcome
from fedage.common.analyses.columns import MAX_PATIENTS
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.survival import _newton
from fedage.common.analyses.survival._after_cox import (
    AfterCox,
    models_by_site,
    reduced,
    strata_of,
)
from fedage.common.analyses.survival.follow_up import round_up
from fedage.common.campaign.types import Campaign, Name, Table
from fedage.common.presentation import cells
from fedage.common.presentation.blocks import TitledTable
from fedage.common.record.parts import AnalysisResult, Number
from fedage.common.record.results import Results
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import InfluenceRefused, InfluenceRule
from fedage.common.statistics.statistic import Field, FloatArray, Layout, Statistic

NAME = "concordance"
_SMALLEST_MOVE = 1e-9
"""Of the largest term of a risk: a covariate whose own term has a smaller SD does not move it."""
_COUNTS = ("concordant", "tied", "comparable")
_CAPTION = "C-index of Cox models, pairs of one site"


class Options(Table):
    """C-index of Cox models with by_site = true, from pairs of patients of one site."""

    models: tuple[Name, ...] = Described(default=(), description="names of the models; none for all of them")


class Concordance(AnalysisResult):
    """One Cox model, over all sites or at one."""

    model: str = Described(description="its name in the campaign file")
    c_index: Number = Described(description="(concordant + ½ tied) / comparable pairs")
    concordant: int = Described(description="pairs whose larger risk had the event first")
    tied: int = Described(description="comparable pairs of equal risk")
    comparable: int = Described(description="pairs of patients of one site, and stratum, that can be compared")


@dataclass(frozen=True)
class ModelConcordance(AfterCox):
    """Counts of pairs at the estimate of one model, after the model.

    Attack: two β that differ a little, subtracted, tell how many pairs change their order, and so bisect ratios of
    covariates; few deaths make every pair one of theirs. Rule: `MOST_ESTIMATES`; the model's own cells and rules; no
    patient is in more than the largest share of the comparable pairs. Residual risk: the counts at those few β.

    Parameters
    ----------
    name
        The registered step.
    model
        The Cox model, after the agreement on its columns where there is one.
    cox
        The model with all its covariates.
    """

    asks: ClassVar[str] = NAME

    per_site: bool = True

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - the same for all
        return Layout(tuple(Field(name, lower=0.0, upper=MAX_PATIENTS**2, whole=True) for name in _COUNTS))

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        # Not told here, but all rules of the model's own sums hold.
        smallest = self.model.local(cohort, iterate).smallest
        model = reduced(self.cox, self.model, iterate)
        patients = model.patients(cohort)
        time, event = round_up(patients.time, model.time_grid_years), patients.event
        z = _newton.standardised(patients.cohort.matrix(model.covariates), iterate)
        risk = _risks(z, _newton.beta_of(iterate, z.shape[1]))
        counts, pairs = np.zeros(3), np.zeros(patients.n)
        for rows in strata_of(patients.cohort.matrix(model.strata)):
            counts += pairs_of(time[rows], event[rows], risk[rows])
            pairs[rows] = comparable_of_each(time[rows], event[rows])
        if isinstance(self.model, Agreed):
            _require_spread(pairs, self.model.rule)
        layout = self.layout(iterate)
        vector = layout.flatten(dict(zip(_COUNTS, counts, strict=True)))
        return Statistic(layout=layout, vector=vector, smallest=smallest)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - the counts say it all
        concordant, tied, comparable = (total.scalar(name) for name in _COUNTS)
        if not comparable:
            return NotComputable("no two patients of one site can be compared")
        counts = {name: round(total.scalar(name)) for name in _COUNTS}
        c_index = (concordant + tied / 2) / comparable
        return Done({"model": self.cox.name.partition(":")[2], "c_index": c_index, **counts})


def _risks(z: FloatArray, beta: FloatArray) -> FloatArray:
    """β·z (n,).

    Attack: a coefficient so small that β·z is rounded to few values makes ties of all on one side of a value of its
    covariate. Rule: what hardly moves the largest term moves no risk.
    """
    terms = z * beta
    moved = terms.std(axis=0) if len(z) else np.zeros_like(beta)
    counts = moved >= _SMALLEST_MOVE * np.abs(terms).max(initial=0.0)
    # Row by row in one order, so that equal patients have equal risks to the last bit.
    sums: FloatArray = np.where(counts, terms, 0.0).sum(axis=1)
    return sums


def pairs_of(time: FloatArray, event: NDArray[np.bool_], risk: FloatArray) -> FloatArray:
    """Concordant, tied and comparable pairs of one stratum, (3,): O(n log n), from the longest time to the shortest.

    Legend: n patients; a Fenwick tree holds how many of those with longer times have each rank of risk.
    """
    n = time.size
    distinct, rank = np.unique(risk, return_inverse=True)
    rank = rank.ravel() + 1
    tree, there = np.zeros(distinct.size + 1, dtype=np.int64), 0
    at_rank = np.zeros(distinct.size + 1, dtype=np.int64)
    counts = np.zeros(3)
    # Of equal times the censored come in first, so that a death is compared with them and not with other deaths.
    order = np.lexsort((event, -time))
    position = 0
    while position < n:
        last = position
        while last < n and time[order[last]] == time[order[position]] and event[order[last]] == event[order[position]]:
            last += 1
        group = order[position:last]
        if event[group[0]]:
            for k in group:
                counts += (_below(tree, rank[k] - 1), at_rank[rank[k]], there)
        for k in group:
            at_rank[rank[k]] += 1
            there += 1
            step = int(rank[k])
            while step <= distinct.size:
                tree[step] += 1
                step += step & -step
        position = last
    return counts


def comparable_of_each(time: FloatArray, event: NDArray[np.bool_]) -> FloatArray:
    """In how many comparable pairs each patient (n,) of a stratum is; each pair is in two of these counts."""
    times, deaths, censored = np.sort(time), np.sort(time[event]), np.sort(time[~event])
    later = time.size - np.searchsorted(times, time, side="right")
    tied = np.searchsorted(censored, time, side="right") - np.searchsorted(censored, time, side="left")
    before = np.where(event, np.searchsorted(deaths, time, "left"), np.searchsorted(deaths, time, "right"))
    return np.asarray(before + np.where(event, later + tied, 0), dtype=np.float64)


def _below(tree: NDArray[np.int64], rank: int) -> int:
    """How many have at most this rank."""
    below = 0
    while rank > 0:
        below += int(tree[rank])
        rank -= rank & -rank
    return below


def _require_spread(pairs: FloatArray, rule: InfluenceRule) -> None:
    """Refuse counts of which one patient makes up too much; see `ModelConcordance`."""
    if pairs.size and pairs.max() > rule.largest_share * pairs.sum() / 2:
        raise InfluenceRefused("one patient would be in too many of the pairs that can be compared")


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:
    options = campaign.analyses.options(NAME, Options)
    for model, cox in models_by_site(campaign, steps, options.models):
        yield Step(ModelConcordance(f"{NAME}:{cox.name.partition(':')[2]}", model, cox), needs=(model.name,))


def _words(step: str) -> str:
    return f"the C-index of the Cox model {step.partition(':')[2]}"


def _asked(campaign: Campaign) -> Iterator[str]:  # noqa: ARG001 - the same for all
    yield (
        "It asks how well Cox models with sites apart foretell who has an event first: your site counts its pairs of "
        "patients that can be compared, and in how many the model's order is right; your site's own share is told too."
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


_HEADERS = ("model", "C-index", "comparable pairs", "concordant", "tied risk")


def _row(result: Concordance) -> tuple[cells.Cell, ...]:
    counts = (cells.count(result.comparable), cells.count(result.concordant), cells.count(result.tied))
    return (cells.words(result.model), cells.number(result.c_index, 3), *counts)


def _sentence(result: Concordance) -> str:
    return (
        f"The Cox model {result.model} orders {_number(result.c_index)} of {result.comparable} comparable pairs of "
        "patients of one site right (C-index; 0.5 is chance)."
    )


def _by_site(results: Results) -> Iterator[TitledTable]:
    rows = tuple(
        (cells.words(site), *_row(own))
        for step in results.steps_of(NAME).values()
        for site, own in step.by_site.items()
        if isinstance(own, Concordance)
    )
    if rows:
        yield TitledTable(cells.Table(f"{NAME}-sites", ("site", *_HEADERS), rows), "C-index at each site")


_NOTE = (
    "Only pairs of patients of one site are counted, so this is not the C-index of the pooled patients. It is that of "
    "the very patients the model was fitted on, which flatters it."
)
_SHOWN = ShownInRows(
    name=NAME,
    result=Concordance,
    words=_words,
    rows=lambda result: (_row(result),),
    headers=_HEADERS,
    title="Concordance",
    caption=_CAPTION,
    note=_NOTE,
    sentence=_sentence,
    place=61,
    more=_by_site,
)
ANALYSIS = Definition(
    name=NAME,
    result=Concordance,
    steps=_steps,
    words=_words,
    builds_on=("cox",),
    options=Options,
    needs_in_words="it is of [[survival.models]] with by_site = true, of the names in `models` if there are any",
    asked=_asked,
    shown=_SHOWN.shown,
    compared=_SHOWN.compared,
    place=61,
)
