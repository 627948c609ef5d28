"""Everything about one analysis, as its own file gives it to the rest of the product.

A file of this folder that has an `ANALYSIS` is an analysis; so is an entry point of the group `fedage.analyses` in an
installed package. No other code asks which analysis it has: the plan orders steps by what they need, a site computes
them, the record keeps their typed results, and terminal, report and comparison show what `shown` and `compared` give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.base import Analysis, Result
from fedage.common.campaign.types import Campaign, Table
from fedage.common.presentation.blocks import Display, NamedRun
from fedage.common.record.parts import AnalysisResult
from fedage.common.record.results import Results
from fedage.common.statistics.cohort import Cohort
from fedage.common.toml.problems import Problem

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Step:
    """One registered step of a campaign.

    Parameters
    ----------
    analysis
        What is computed.
    needs
        Columns of predictions (`gap_years`, …) and names of steps that have to be there before.
    about
        What the file asks for in it, for the record; part of its result.
    """

    analysis: Analysis
    needs: tuple[str, ...] = ()
    about: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """A step that the file asks for and does not allow to compute.

    Parameters
    ----------
    reason
        Why, with the mend.
    about
        As of a `Step`.
    """

    reason: str
    about: Mapping[str, object] = field(default_factory=dict)


def _nothing_of_a_campaign(campaign: Campaign) -> Iterable[str]:  # noqa: ARG001 - it has nothing to say of any
    return ()


def _no_problems(campaign: Campaign) -> Iterable[Problem]:  # noqa: ARG001 - see above
    return ()


def _no_reason(campaign: Campaign) -> Mapping[str, LeftOut]:  # noqa: ARG001 - see above
    return {}


def _no_notes(result: Result) -> Iterable[str]:  # noqa: ARG001 - see above
    return ()


def _no_sets(campaign: Campaign, cohort: Cohort) -> Iterable[BoolArray]:  # noqa: ARG001 - see above
    return ()


def _concludes_nothing(campaign: Campaign, results: Results) -> Mapping[str, AnalysisResult]:  # noqa: ARG001 - see above
    return {}


def _shows_nothing(results: Results) -> Display:  # noqa: ARG001 - see above
    return Display()


def _no_figures(results: Results) -> Mapping[str, Any]:  # noqa: ARG001 - see above
    return {}


def _compares_nothing(runs: Sequence[NamedRun]) -> Display:  # noqa: ARG001 - see above
    return Display()


@dataclass(frozen=True, kw_only=True)
class Definition:
    """An analysis: what it needs, computes, records and shows.

    Parameters
    ----------
    name
        Lower-case letters, digits and hyphens; unique.
    result
        What one step of it finds, typed: `results.json` is checked against it.
    steps
        The steps that a campaign file implies, given those of the analyses that this one builds on, by name.
    words
        A step in words, e.g. `the Cox model gap`, for sentences on what was withheld.
    builds_on
        Names of the analyses of whose steps this one makes its own.
    options
        Checks the analysis' own table `[analyses.NAME]`, without which it has no step; None for an analysis that
        follows from other tables of the file.
    subject
        What a report says a campaign without any step of it did not ask for, e.g. `a survival analysis`; several
        analyses may be of one subject. Empty where nobody misses it.
    phantoms
        Whether a campaign that asks for it is on phantoms: every figure of its runs is shown as one of nobody.
    needs_in_words
        What the file has to have for such a table to imply a step.
    problems
        What its options say against the rest of the file.
    asked
        What it asks of a site, in sentences that an administrator reads before approving.
    columns
        Columns of the sites' tables that it reads, beside those that other tables of the file name.
    sets
        Whom (n,) of a site it sums over, as far as that is known before anything is predicted, beside the sets of the
        analyses that it builds on (`same_patients`).
    left_out
        What the file asks for and does not allow to compute, by the step's name.
    notes
        What a reader of the record must know of a result, in sentences without the step's name.
    conclude
        Steps that follow from the record so far without another exchange, by name; those of its own that it completes.
    shown
        What it shows of a run.
    compared
        What it shows of several runs side by side.
    figures
        Its figures of one run in the comparison as a document, by further keys of that run.
    missing
        What a run lacks of it, and why, in a comparison.
    place
        Analyses stand in the order of these, in the terminal and on the report's first screen.
    """

    name: str
    result: type[AnalysisResult]
    steps: Callable[[Campaign, Mapping[str, Analysis]], Iterable[Step]]
    words: Callable[[str], str]
    builds_on: tuple[str, ...] = ()
    options: type[Table] | None = None
    subject: str = ""
    phantoms: bool = False
    needs_in_words: str = ""
    problems: Callable[[Campaign], Iterable[Problem]] = _no_problems
    asked: Callable[[Campaign], Iterable[str]] = _nothing_of_a_campaign
    columns: Callable[[Campaign], Iterable[str]] = _nothing_of_a_campaign
    sets: Callable[[Campaign, Cohort], Iterable[BoolArray]] = _no_sets
    left_out: Callable[[Campaign], Mapping[str, LeftOut]] = _no_reason
    notes: Callable[[Result], Iterable[str]] = _no_notes
    conclude: Callable[[Campaign, Results], Mapping[str, AnalysisResult]] = _concludes_nothing
    shown: Callable[[Results], Display] = _shows_nothing
    compared: Callable[[Sequence[NamedRun]], Display] = _compares_nothing
    figures: Callable[[Results], Mapping[str, Any]] = _no_figures
    missing: Callable[[Results], Mapping[str, str]] = _no_figures
    place: int = 100
