"""The plug-in point "analysis": what a site computes, what adds up, what comes out.

An analysis object is built from the campaign file by both sides, so a message only has to name it and to bring the
current iterate. Everything else (columns, subsets, ties, grids) is in the approved file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group
from fedage.common.statistics.statistic import FloatArray, Layout, Statistic

MAX_EXCHANGES = 50
"""Exchanges that one analysis may take, wherever it is driven; a site refuses an iterate of a later one."""

Iterate = Mapping[str, FloatArray]
Result = dict[str, Any]
"""Plain JSON-able values: what results.json records."""


class IterateRefused(ValueError):
    """An iterate is not one that the campaign file allows: wrong names, shapes, not finite or out of bounds."""


class LeftOutByFile(Exception):
    """The campaign file leaves a site like this one out of the analysis. The message names the rule."""


@dataclass(frozen=True)
class Again:
    """One more exchange with this iterate."""

    iterate: Iterate


@dataclass(frozen=True)
class Done:
    """The analysis is complete."""

    result: Result


@dataclass(frozen=True)
class NotComputable:
    """The analysis ends without a result, for a reason a coordinator can read (no events at all, one site only, …)."""

    reason: str


Outcome = Again | Done | NotComputable


class Analysis(Protocol):
    """One registered step of a campaign.

    An iterative analysis begins again when a site leaves it, unless its class says `same_sites = False`: then the
    iterate is good for any sites.
    """

    @property
    def name(self) -> str:
        """The registered step, e.g. `cox-by-site:gap`; unique in a campaign."""

    @property
    def per_site(self) -> bool:
        """Whether the result is also reported for each site on its own."""

    def first(self) -> Iterate:
        """The iterate of the first exchange; empty for a one-shot analysis."""

    def check(self, iterate: Iterate) -> None:
        """Raise `IterateRefused` unless the campaign file allows this iterate. Runs at the site before `local`."""

    def layout(self, iterate: Iterate) -> Layout:
        """The layout of the statistic for this iterate."""

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        """The site's sums. Patients with missing values in a needed column are left out and counted in the layout."""

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        """The result from the sum over sites, or the next iterate."""


def subset_of(step: Analysis) -> str:
    """The column that is 1 for the patients of a step, or of what it is made of; empty for all."""
    analysis = getattr(step, "analysis", step)
    return str(getattr(getattr(analysis, "cox", analysis), "subset", None) or "")


@runtime_checkable
class Thresholded(Protocol):
    """An analysis whose iterate is compared with a column patient by patient: two answers to near values give away
    who lies between them, so a site keeps account of the values (`fedage.client.consent.accounts.thresholds`).
    """

    @property
    def subset(self) -> str | None:
        """Column that is 1 for the patients of the analysis; None for all."""

    def thresholds(self, iterate: Iterate) -> dict[str, float]:
        """Column to the value it is compared with; empty where this iterate compares nothing."""

    def compared(self, cohort: Cohort) -> Cohort:
        """The patients who are compared."""


@runtime_checkable
class Summing(Protocol):
    """An analysis that sends sums of products of columns and cannot do without one of them: the influence rule
    (`fedage.common.statistics.influence.require_sums`) is asked of these columns before anything leaves.
    """

    def summed(self, cohort: Cohort, iterate: Iterate) -> Sequence[Group]:
        """The patients whose sums leave for this iterate, with the columns as `always`; nothing where none do."""


@runtime_checkable
class Sparing(Protocol):
    """A thresholded analysis that has something to say without its thresholds too."""

    def spared(self, statistic: Statistic) -> Statistic:
        """The statistic, of the same layout, without what the thresholds made of it."""


@runtime_checkable
class Counted(Protocol):
    """An analysis of which a site answers only so many different iterates, whatever they are."""

    @property
    def name(self) -> str:
        """The registered step."""

    @property
    def subset(self) -> str | None:
        """Column that is 1 for the patients of the analysis; None for all."""

    def counted(self, iterate: Iterate) -> tuple[str, int]:
        """Which exchange the iterate is for, and how many different ones of it are answered.

        An array `edges_counted` of the analysis, if it has one, counts as part of the iterate.
        """


@runtime_checkable
class Following(Protocol):
    """An analysis that begins when another one of the same stage is complete."""

    @property
    def preceding(self) -> Analysis:
        """The analysis whose result this one begins with."""

    def begin(self, result: Result) -> Iterate:
        """The iterate of the first exchange."""


@runtime_checkable
class Gridded(Protocol):
    """An analysis whose tables are of intervals that the iterate chooses: two choices can be subtracted from each
    other, so a site keeps account of them (`fedage.client.consent.accounts.table_grids`).
    """

    @property
    def times(self) -> tuple[float, ...]:
        """The table times in years, rising."""

    @property
    def time(self) -> str:
        """Column with the follow-up in years."""

    def grid_asked(self, iterate: Iterate) -> GridAsked | None:
        """What the iterate says of the intervals; None where it says nothing of them."""

    def within(self, ends: tuple[int, ...]) -> Analysis:
        """The same analysis with no other ends of intervals than these (indices of table times)."""


@runtime_checkable
class Rounding(Protocol):
    """An analysis that may round follow-up times: sums at two grids are subtracted, so a site keeps account of them."""

    @property
    def rounding(self) -> tuple[str, float] | None:
        """The column with the times and the grid in years, 0 for exact times; None for an analysis without any."""


@dataclass(frozen=True)
class GridAsked:
    """The intervals of a request, by the indices of the table times at which they end.

    Parameters
    ----------
    ends
        Those settled, rising.
    following
        The earliest next end that is asked about; None where tables of `ends` are asked for.
    of_total
        Whether the minimum count is asked of the sum over all sites, so that no site has said which it can tell.
    """

    ends: tuple[int, ...]
    following: int | None
    of_total: bool = False


@runtime_checkable
class Costed(Protocol):
    """An analysis in which single sites can make the result coarser for all, and which says which."""

    def costs(self, by_site: Mapping[str, Statistic], iterate: Iterate) -> list[Result]:
        """What this exchange shows of it."""


def thresholds_of(analysis: Analysis, iterate: Iterate) -> dict[str, float]:
    """The analysis's thresholds; none for an analysis that has no such thing."""
    return analysis.thresholds(iterate) if isinstance(analysis, Thresholded) else {}


def check_iterate(iterate: Iterate, shapes: Mapping[str, tuple[int, ...]], *, bound: float) -> None:
    """Refuse an iterate unless it has exactly these blocks, finite and within ±bound.

    Raises
    ------
    IterateRefused
        With the block and the rule it breaks.
    """
    if set(iterate) != set(shapes):
        raise IterateRefused(f"iterate has blocks {sorted(iterate)}, allowed are {sorted(shapes)}")
    for name, shape in shapes.items():
        block = np.asarray(iterate[name])
        if block.shape != shape:
            raise IterateRefused(f"iterate {name} has shape {block.shape}, allowed is {shape}")
        if not np.all(np.isfinite(block)) or np.any(np.abs(block) > bound):
            raise IterateRefused(f"iterate {name} must be finite and within ±{bound:g}")


class OneExchange:
    """Base of an analysis of one exchange, whose iterate is empty."""

    def first(self) -> Iterate:
        """Nothing."""
        return {}

    def check(self, iterate: Iterate) -> None:
        """Refuse anything else."""
        check_iterate(iterate, {}, bound=0.0)


def run_locally(analysis: Analysis, sites: Mapping[str, Cohort], *, max_exchanges: int = MAX_EXCHANGES) -> Outcome:
    """Drive an analysis over cohorts in this process: the federated computation without the network.

    Used to compare cuts of the same patients; the ServerApp drives the same objects over Flower.
    """
    if isinstance(analysis, Following):
        before = run_locally(analysis.preceding, sites, max_exchanges=max_exchanges)
        if not isinstance(before, Done):
            return before
        iterate = analysis.begin(before.result)
    else:
        iterate = analysis.first()
    for _ in range(max_exchanges):
        layout = analysis.layout(iterate)
        summed = Statistic.zero(layout)
        for site in sorted(sites):
            analysis.check(iterate)
            summed = summed + analysis.local(sites[site], iterate)
        outcome = analysis.combine(summed, iterate)
        if not isinstance(outcome, Again):
            return outcome
        iterate = outcome.iterate
    raise RuntimeError(f"{analysis.name} did not finish in {max_exchanges} exchanges")
