"""Spearman's rank correlation of predicted with chronological age, of each site's patients among themselves.

A site ranks its own patients and tells the sums of products of ranks r of age and s of predicted age. Both are centred
and divided by the site's n; ranks of equal values are their mean, as usual. The result is Σrs / √(Σrr Σss) over all
sites: no two patients of different sites are compared ([own], as the C-index within sites).

Attack: ranks over all sites are a function of age that the coordinator brings. A sum of it tells single patients to
whoever writes steps of many sizes into one number: ranks of 0, b⁻³, b⁻², b⁻¹ and 1 made Σr the counts of three bins of
age in base b. Rule: nothing is brought. Residual risk: a sum of products of ranks is one number about all patients, and
each model that predicts them gives another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass

import numpy as np
from pydantic import Field as Described

from fedage.common.analyses._summed import group_of
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, OneExchange, Outcome
from fedage.common.analyses.columns import MAX_PATIENTS, cells_of_predictions
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.evaluation._judged import AGES, judged
from fedage.common.analyses.of_file import has_predictions
from fedage.common.campaign.types import Campaign, Table
from fedage.common.presentation.blocks import Display
from fedage.common.record.parts import AnalysisResult, Number
from fedage.common.record.results import Results
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

NAME = "rank-correlation"


class Options(Table):
    """Spearman's rank correlation of predicted with chronological age within sites."""


class RankCorrelation(AnalysisResult):
    """Spearman's ρ within sites."""

    n: int = Described(description="patients")
    spearman: Number = Described(description="correlation of ranks within sites")


@dataclass(frozen=True)
class RanksWithinSites(OneExchange):
    """See the module's docstring."""

    name: str = NAME
    _: KW_ONLY
    healthy_only: bool = False
    subset: str = "is_test"
    per_site: bool = True

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        return Layout(
            (
                Field("n", lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("rr", lower=0.0, upper=MAX_PATIENTS),
                Field("ss", lower=0.0, upper=MAX_PATIENTS),
                Field("rs", lower=-MAX_PATIENTS, upper=MAX_PATIENTS),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept = self._evaluated(cohort)
        r, s = self._ranks(kept)
        cells = [Cell(kept.n, "patients evaluated"), *cells_of_predictions(kept["predicted_years"])]
        values = {"n": float(kept.n), "rr": float(r @ r), "ss": float(s @ s), "rs": float(r @ s)}
        return Statistic.of(self.layout(iterate), values, cells)

    def summed(self, cohort: Cohort, iterate: Iterate) -> list[Group]:  # noqa: ARG002 - one-shot
        r, s = self._ranks(self._evaluated(cohort))
        return [group_of({"rank of age": r, "rank of predicted age": s}, of="the patients evaluated")]

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        return columns_read(self._evaluated(cohort), needed=AGES)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        n, rr, ss = (total.scalar(name) for name in ("n", "rr", "ss"))
        if n < 2:
            return NotComputable("fewer than two patients with an age and a predicted age")
        if min(rr, ss) <= 0:
            return NotComputable("all patients of a site have one age or one predicted age")
        rho = float(np.clip(total.scalar("rs") / math.sqrt(rr * ss), -1.0, 1.0))
        return Done({"n": round(n), "spearman": rho})

    def _evaluated(self, cohort: Cohort) -> Cohort:
        return judged(cohort, subset=self.subset, healthy_only=self.healthy_only)[0]

    def _ranks(self, kept: Cohort) -> tuple[FloatArray, FloatArray]:
        """Centred mean ranks (n,) of age and of predicted age, over n."""
        age, predicted = (_mean_ranks(kept[column]) for column in AGES)
        return age, predicted


def _mean_ranks(values: FloatArray) -> FloatArray:
    """Ranks (n,), equal values at their mean, less their mean, over n.

    Examples
    --------
    >>> _mean_ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist()
    [0.0, -0.375, 0.0, 0.375]
    """
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: FloatArray = (np.cumsum(count) - (count - 1) / 2)[place]
    return (ranks - (values.size + 1) / 2) / max(values.size, 1)


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    if has_predictions(campaign):
        yield Step(RanksWithinSites(healthy_only=campaign.cohort.train_on == "healthy"), ("predicted_years",))


def _asked(campaign: Campaign) -> Iterator[str]:  # noqa: ARG001 - the same for all
    yield "It sums products of your patients' ranks by age and by predicted age."


def _shown(results: Results) -> Display:
    result = next(iter(results.of_type(RankCorrelation).values()), None)
    if result is None or result.spearman is None:
        return Display()
    return Display(
        sentences=(
            f"Spearman's rank correlation of predicted with chronological age is {result.spearman:.3f} among the "
            f"patients of each site, {result.n} in all.",
        )
    )


ANALYSIS = Definition(
    name=NAME,
    result=RankCorrelation,
    steps=_steps,
    words=lambda step: "the rank correlation",  # noqa: ARG005 - there is one
    options=Options,
    needs_in_words="ages are predicted",
    asked=_asked,
    shown=_shown,
    place=16,
)
