"""ROC AUC of what a model predicts for an outcome of 0 and 1, of pairs of patients of one site.

Estimand: P(x > y) + ½ P(x = y), x the prediction of a patient with 1, y of one with 0 of the same site, each site's
pairs added up: a site counts by its pairs. The interval is DeLong's, of each site's own variance, symmetric for the
logit (`_roc`). Pairs across sites nobody can count, and the sites' levels differ.

Attack: a model ranks one patient apart from all others, or one patient has the outcome: the count of pairs is that
patient's. Rule: patients with the outcome, those without, and those whose prediction is not the most frequent one are
cells; a coordinator brings nothing. Residual risk: one number about all patients, and each model that predicts them
gives another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass

import numpy as np
from pydantic import Field as Described

from fedage.common.analyses._shown_in_rows import ShownInRows
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, OneExchange, Outcome
from fedage.common.analyses.columns import MAX_PATIENTS, cells_of_predictions, in_subset, require_binary, usable
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.groups import _roc
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.analyses.of_file import BoolArray
from fedage.common.campaign.fields import OUTCOME_PROBABILITY
from fedage.common.campaign.types import Campaign, Column, Table
from fedage.common.presentation import cells
from fedage.common.record.parts import AnalysisResult, Number
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Cell, Field, Layout, Statistic

NAME = "outcome-auc"


class Options(Table):
    """ROC AUC of a predicted probability for an outcome, pairs of one site."""

    column: Column = Described(description="outcome column of 0 and 1")


class OutcomeAuc(AnalysisResult):
    """A predicted probability, over all sites or at one."""

    column: str = Described(description="outcome column")
    n_cases: int = Described(description="patients with 1")
    n_controls: int = Described(description="patients with 0")
    auc: Number = Described(description="share of pairs of one site in which the patient with 1 has the larger value")
    ci95_low: Number = Described(description="DeLong's interval")
    ci95_high: Number = Described(description="of it")


@dataclass(frozen=True)
class PairsOfOutcome(OneExchange):
    """See the head of this file.

    Parameters
    ----------
    column
        The outcome.
    score
        What is predicted.
    """

    column: str
    _: KW_ONLY
    score: str = OUTCOME_PROBABILITY
    subset: str = "is_test"
    name: str = NAME
    per_site: bool = True

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        counts = (Field(name, lower=0.0, upper=MAX_PATIENTS, whole=True) for name in ("n_cases", "n_controls"))
        pairs = (Field(name, lower=0.0, upper=MAX_PATIENTS**2) for name in ("pairs", "pairs_won"))
        variance = Field("pairs_variance", lower=0.0, upper=MAX_PATIENTS**4)
        return Layout((*counts, *left_out_fields(), *pairs, variance))

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept, left_out = self._compared(cohort)
        score, is_case = kept[self.score], kept[self.column] == 1
        cases, controls = score[is_case], score[~is_case]
        pairs = float(cases.size) * controls.size
        values = {
            "n_cases": float(cases.size),
            "n_controls": float(controls.size),
            **left_out_values(left_out),
            "pairs": pairs,
            "pairs_won": _roc.pairs_won(cases, controls),
            "pairs_variance": pairs**2 * _roc.variance_of_pairs(cases, controls)
            if min(cases.size, controls.size) > 1
            else 0.0,
        }
        said = [
            Cell(cases.size, f"patients with {self.column} = 1"),
            Cell(controls.size, f"patients with {self.column} = 0"),
            *cells_of_predictions(score),
        ]
        return Statistic.of(self.layout(iterate), values, said)

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        return columns_read(self._compared(cohort)[0], needed=(self.column, self.score))

    def _compared(self, cohort: Cohort) -> tuple[Cohort, int]:
        require_binary(cohort, self.column, meaning="1 (has it) and 0 (has it not)")
        return usable(in_subset(cohort, self.subset), (self.column, self.score))

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        pairs = total.scalar("pairs")
        if pairs < 1:
            return NotComputable(f"no site has patients with {self.column} = 1 and with {self.column} = 0")
        auc = total.scalar("pairs_won") / pairs
        low, high = _roc.interval(auc, total.scalar("pairs_variance") / pairs**2) or (None, None)
        return Done(
            {
                "column": self.column,
                "n_cases": round(total.scalar("n_cases")),
                "n_controls": round(total.scalar("n_controls")),
                **left_out_result(total),
                "auc": auc,
                "ci95_low": low,
                "ci95_high": high,
            }
        )


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    if OUTCOME_PROBABILITY in campaign.predicted_columns and NAME in campaign.analyses.asked_for():
        yield Step(PairsOfOutcome(campaign.analyses.options(NAME, Options).column), ("predicted_years",))


def _columns(campaign: Campaign) -> Iterator[str]:
    if NAME in campaign.analyses.asked_for():
        yield campaign.analyses.options(NAME, Options).column


def _sets(campaign: Campaign, cohort: Cohort) -> Iterator[BoolArray]:
    for column in _columns(campaign):
        if column in cohort.columns:
            yield (cohort["is_test"] == 1) & np.isfinite(cohort[column])


def _asked(campaign: Campaign) -> Iterator[str]:
    for column in _columns(campaign):
        yield (
            f"It asks how well a predicted probability tells patients with {column} = 1 from those with 0: your site "
            "counts its pairs, and in how many the first has the larger one; your site's own share is told too."
        )


def _row(result: OutcomeAuc) -> tuple[cells.Cell, ...]:
    return (
        cells.words(result.column),
        cells.number(result.auc, 3),
        cells.interval(result.ci95_low, result.ci95_high, 3),
        cells.count(result.n_cases),
        cells.count(result.n_controls),
    )


def _sentence(result: OutcomeAuc) -> str:
    figure = "unknown" if result.auc is None else f"{result.auc:.3f}"
    return (
        f"The predicted probability tells {result.n_cases} patients with {result.column} = 1 from {result.n_controls} "
        f"of the same sites with 0 with an AUC of {figure} (0.5 is chance)."
    )


_SHOWN = ShownInRows(
    name=NAME,
    result=OutcomeAuc,
    words=lambda step: "how well an outcome is told",  # noqa: ARG005 - there is one
    rows=lambda result: (_row(result),),
    headers=("outcome", "AUC", "95 % interval", "with 1", "with 0"),
    title="Predicted outcome",
    caption="ROC AUC of the predicted probability, pairs of one site",
    note="Only pairs of patients of one site are counted, so this is not the AUC of the pooled patients.",
    sentence=_sentence,
    place=52,
)
ANALYSIS = Definition(
    name=NAME,
    result=OutcomeAuc,
    steps=_steps,
    words=_SHOWN.words,
    options=Options,
    needs_in_words='the estimator predicts a diagnosis (outcome = "diagnosis")',
    asked=_asked,
    columns=_columns,
    sets=_sets,
    shown=_SHOWN.shown,
    compared=_SHOWN.compared,
    place=52,
)
