"""What analyses share that ask something of a Cox model stratified by site, at its estimate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.agreement import COLUMNS, Agreed
from fedage.common.analyses.base import Analysis, Iterate, IterateRefused, Result
from fedage.common.analyses.columns_read import ColumnsRead, columns_read_by
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.campaign.types import Campaign
from fedage.common.presentation.blocks import Block, Display, NamedRun, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import Cell, Table, words
from fedage.common.record.parts import AnalysisResult
from fedage.common.record.results import Results
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray

Kind = TypeVar("Kind", bound=AnalysisResult)
MOST_ESTIMATES = 5
"""Different β that a site answers for one model of the same patients: a run has one, or one more if a site leaves."""


def models_by_site(
    campaign: Campaign, steps: Mapping[str, Analysis], names: tuple[str, ...]
) -> Iterator[tuple[Analysis, CoxBySite]]:
    """The file's models stratified by site, of these names or all of them: as a step, and with all its covariates."""
    for model in campaign.survival.models if campaign.survival is not None else ():
        step = steps.get(f"cox:{model.name}")
        cox = step.analysis if isinstance(step, Agreed) else step
        if step is not None and isinstance(cox, CoxBySite) and (not names or model.name in names):
            yield step, cox


@dataclass(frozen=True)
class AfterCox:
    """What every question to a Cox model at its estimate is; the subclass says what is asked.

    Parameters
    ----------
    name
        The registered step.
    model
        The Cox model, after the agreement on its columns where there is one.
    cox
        The model with all its covariates.
    """

    asks: ClassVar[str]
    """The analysis's name: its account is one of its own for the model, whatever a file calls that."""

    name: str
    model: Analysis
    cox: CoxBySite

    @property
    def subset(self) -> str | None:
        return self.cox.subset

    @property
    def preceding(self) -> Analysis:
        return self.model

    @property
    def account(self) -> str:
        return f"{self.asks} {self.cox.account}"

    @property
    def rounding(self) -> tuple[str, float]:
        return self.cox.rounding

    def counted(self, iterate: Iterate) -> tuple[str, int]:  # noqa: ARG002 - the same for all
        return "estimates", MOST_ESTIMATES

    def begin(self, result: Result) -> Iterate:
        return estimate_of(self.cox, self.model, result)

    def first(self) -> Iterate:
        raise RuntimeError(f"{self.name} begins with the result of {self.model.name}")

    def check(self, iterate: Iterate) -> None:
        require_estimate(self.model, iterate)

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:
        return columns_read_by(self.model, cohort, iterate)


@dataclass(frozen=True, kw_only=True)
class ShownAfterCox(Generic[Kind]):
    """How the results of one such question are shown, of a run and of several runs.

    Parameters
    ----------
    name, result, words, place
        As of the `Definition`.
    rows, headers
        A result's rows of the table, and the table's columns.
    title, caption, note
        The section's heading, the table's caption, and what a reader must know of it.
    sentence
        A result in a sentence.
    more
        Further tables of a run.
    """

    name: str
    result: type[Kind]
    words: Callable[[str], str]
    rows: Callable[[Kind], Iterable[tuple[Cell, ...]]]
    headers: tuple[str, ...]
    title: str
    caption: str
    note: str
    sentence: Callable[[Kind], str]
    place: int
    more: Callable[[Results], Iterable[TitledTable]] = lambda _: ()

    def shown(self, results: Results) -> Display:
        """Of a run that has a step of it: all models in one table, and which of them have no result."""
        steps, answers = results.steps_of(self.name), results.of_type(self.result).values()
        if not steps:
            return Display()
        missing = [
            f"{self.words(name)} is not computed: {step.not_computed}."
            for name, step in steps.items()
            if step.result is None
        ]
        rows = tuple(row for answer in answers for row in self.rows(answer))
        table = TitledTable(Table(self.name, self.headers, rows, why_empty=" ".join(missing)), self.caption)
        blocks: tuple[Block, ...] = (table, *self.more(results), Paragraph(self.note))
        return Display(
            sentences=tuple(map(self.sentence, answers)),
            terminal=(table, *(f"{text[0].upper()}{text[1:]}" for text in missing)),
            sections=(Section(self.name, self.title, blocks, place=self.place),),
        )

    def compared(self, runs: Sequence[NamedRun]) -> Display:
        """The run in front of each row; nothing where no run has any result."""
        rows = tuple(
            (words(run.label), *row)
            for run in runs
            for answer in run.results.of_type(self.result).values()
            for row in self.rows(answer)
        )
        if not rows:
            return Display()
        table = TitledTable(Table(self.name, ("run", *self.headers), rows), self.caption)
        return Display(terminal=(table,), sections=(Section(self.name, self.title, (table,), place=self.place),))


def strata_of(strata: FloatArray) -> Iterator[NDArray[np.intp]]:
    """The rows of each stratum of a site's patients (n, k)."""
    if len(strata):
        number = np.unique(strata, axis=0, return_inverse=True)[1].ravel() if strata.shape[1] else np.zeros(len(strata))
        for one in np.unique(number):
            yield np.flatnonzero(number == one)


def estimate_of(cox: CoxBySite, model: Analysis, result: Result) -> Iterate:
    """The iterate of a model at its estimate, in the units in which the sites were asked for it."""
    covariates = result["covariates"]
    scale = np.array([covariate["sd"] for covariate in covariates])
    beta = np.array([covariate["coef"] for covariate in covariates]) * scale
    zero = np.asarray(0.0)
    iterate = {"beta": beta, "last_beta": beta, "centre": np.zeros_like(beta), "scale": scale}
    iterate |= {"last_log_likelihood": zero, "null_log_likelihood": zero, "exchange": np.asarray(2.0)}
    if isinstance(model, Agreed):
        kept = {covariate["name"] for covariate in covariates}
        iterate[COLUMNS] = np.array([float(name in kept) for name in cox.covariates])
    return iterate


def require_estimate(model: Analysis, iterate: Iterate) -> None:
    """Raise `IterateRefused` unless the iterate holds coefficients that the model allows."""
    model.check(iterate)
    if "beta" not in iterate:
        raise IterateRefused("the iterate must bring the coefficients of the model: this comes after it")


def reduced(cox: CoxBySite, model: Analysis, iterate: Iterate) -> CoxBySite:
    """The model with the covariates that the sites agreed on."""
    return cox.reduced((np.asarray(iterate[COLUMNS]) == 1).tolist()) if isinstance(model, Agreed) else cox
