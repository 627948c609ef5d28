"""The exchange before an analysis in which the sites agree on its columns, one yes or no of each site for each.

A column that fails the influence rule (`fedage.common.statistics.influence`) at one site is left out at all of them:
matrices of pairs that differ by site do not add up. A site answers from its own patients, as they are frozen, and from
the campaign file; nothing of the request enters, so asking again tells nothing new. It answers later exchanges only for
columns that it said yes to, whatever the other sites said: a coordinator that does not ask, or does not listen, is
refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.base import (
    Again,
    Analysis,
    Counted,
    Done,
    Iterate,
    IterateRefused,
    NotComputable,
    Outcome,
    Result,
    Rounding,
)
from fedage.common.analyses.columns_read import ColumnsRead, columns_read_by, earlier_columns
from fedage.common.campaign.types import Campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group, InfluenceRefused, InfluenceRule
from fedage.common.statistics.influence_recent import passing_as_before
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

COLUMNS = "columns"
"""Block of an iterate: 1 for each column that is in, 0 for each that was left out."""
NOT_AGREED = "influence-agreement"
"""The rule that refuses an exchange without agreed columns."""
_UNLIMITED = 10**6

BoolArray = NDArray[np.bool_]


def rule_of(campaign: Campaign) -> InfluenceRule | None:
    """The influence rule of a campaign; None where single patients may be shown."""
    if campaign.cell_minimum == 1:
        return None
    return InfluenceRule(
        minimum_count=campaign.cell_minimum,
        largest_share=campaign.privacy.largest_share,
        patients_per_column=campaign.privacy.patients_per_column,
    )


def agreed(analysis: Reducible, campaign: Campaign) -> Analysis:
    """The analysis after an agreement on its columns, where the campaign has an influence rule."""
    rule = rule_of(campaign)
    return analysis if rule is None else Agreed(analysis, rule=rule)


@runtime_checkable
class Reducible(Analysis, Protocol):
    """An analysis that can do without some of its columns."""

    @property
    def fewest_columns(self) -> int:
        """How many columns it needs to be anything at all."""

    @property
    def reducible(self) -> tuple[str, ...]:
        """The columns, in their order."""

    def reduced(self, kept: Sequence[bool]) -> Analysis:
        """The same analysis of the same patients with the columns kept."""

    def influence_groups(self, cohort: Cohort, rule: InfluenceRule) -> list[Group]:
        """The patients whose sums leave, by groups, with all columns."""

    def sums_products(self, iterate: Iterate) -> bool:
        """Whether sums of products leave in answer to this iterate."""

    def completed(self, result: Result, kept: Sequence[bool]) -> Result:
        """The result with a place for the columns left out, where it has places for columns."""


@runtime_checkable
class Weighted(Protocol):
    """An analysis whose iterate weighs the patients."""

    def require_influence(self, cohort: Cohort, iterate: Iterate, rule: InfluenceRule) -> None:
        """Raise `InfluenceRefused` if the iterate makes the sums one patient's."""


@dataclass(frozen=True)
class Agreed:
    """An analysis after its sites have agreed on the columns.

    Result: the analysis's own, and `withheld_columns`: the columns left out, in their order.

    Parameters
    ----------
    analysis
        With all columns of the campaign file.
    rule
        The influence rule as the site measures it.
    """

    analysis: Reducible
    _: KW_ONLY
    rule: InfluenceRule

    @property
    def name(self) -> str:
        return self.analysis.name

    @property
    def per_site(self) -> bool:
        return self.analysis.per_site

    @property
    def subset(self) -> str | None:
        column: str | None = getattr(self.analysis, "subset", None)
        return column

    def first(self) -> Iterate:
        return {}

    def check(self, iterate: Iterate) -> None:
        if not iterate:
            return
        if COLUMNS not in iterate:
            raise InfluenceRefused(
                "the sites have to agree on the columns before: ask with an empty iterate, then bring the agreed "
                f"columns as {COLUMNS!r}",
                rule=NOT_AGREED,
            )
        columns = np.asarray(iterate[COLUMNS])
        if columns.shape != (len(self.analysis.reducible),) or not np.isin(columns, (0.0, 1.0)).all():
            raise IterateRefused(f"iterate {COLUMNS} must be 0 or 1 for each of {len(self.analysis.reducible)} columns")
        if np.count_nonzero(columns) < self.analysis.fewest_columns:
            raise IterateRefused(f"iterate {COLUMNS} leaves no column")
        self.after(iterate).check(_own(iterate))

    @property
    def account(self) -> str:
        """The analysis' own account."""
        return str(getattr(self.analysis, "account", self.name))

    @property
    def rounding(self) -> tuple[str, float] | None:
        """The analysis' own grid of follow-up times."""
        return self.analysis.rounding if isinstance(self.analysis, Rounding) else None

    def counted(self, iterate: Iterate) -> tuple[str, int]:
        inner = self.after(iterate) if iterate else self.analysis
        if not iterate or not isinstance(inner, Counted):
            return "agreement" if not iterate else "exchange", _UNLIMITED
        return inner.counted(_own(iterate))

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:
        """The columns of the analysis; no sums leave while the sites still agree on them."""
        read = columns_read_by(self.analysis, cohort, _own(iterate))
        if not iterate:
            return replace(read, leave=None)
        kept = [name for name, inside in zip(self.analysis.reducible, iterate[COLUMNS], strict=True) if inside]
        return replace(read, leave=(*read.needed, *kept))

    def layout(self, iterate: Iterate) -> Layout:
        if not iterate:
            return Layout((Field("fails", (len(self.analysis.reducible),), lower=0.0, upper=1.0, whole=True),))
        return self.after(iterate).layout(_own(iterate))

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        if not iterate:
            # A site that would have to withhold the sums themselves has no say in their columns.
            most = self.analysis.reduced([self.analysis.fewest_columns > 0] * len(self.analysis.reducible))
            smallest = most.local(cohort, most.first()).smallest
            fails = ~self._passing(cohort) if self._enough(smallest) else np.zeros(len(self.analysis.reducible))
            layout = self.layout(iterate)
            return Statistic(
                layout=layout, vector=layout.flatten({"fails": fails.astype(np.float64)}), smallest=smallest
            )
        inner = self.after(iterate)
        statistic = inner.local(cohort, _own(iterate))
        # Counts by a column that nearly repeats an earlier one are subtracted as its products are.
        judged = self.analysis.sums_products(_own(iterate)) or earlier_columns(cohort) is not None
        if judged and self._enough(statistic.smallest):
            failing = (np.asarray(iterate[COLUMNS]) == 1) & ~self._passing(cohort)
            if failing.any():
                raise InfluenceRefused(
                    f"at this site too few patients make up too much of the sums of {self._names(failing)}; "
                    "leave out at all sites what one of them said no to"
                )
            if isinstance(inner, Weighted):
                inner.require_influence(cohort, _own(iterate), self.rule)
        return statistic

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        if not iterate:
            agreed = total["fails"] < 0.5
            if np.count_nonzero(agreed) < self.analysis.fewest_columns:
                return NotComputable(
                    f"each of {self._names(~agreed)} fails the influence rule at a site: too few patients differ in "
                    "it, alone or beside a column of another model, or one makes up too much of its sums; "
                    "join its levels, or name the sites in campaign.sites"
                )
            inner = self.analysis.reduced(agreed.tolist())
            return Again({**inner.first(), COLUMNS: agreed.astype(np.float64)})
        outcome = self.after(iterate).combine(total, _own(iterate))
        kept = np.asarray(iterate[COLUMNS]) == 1
        if isinstance(outcome, Again):
            return Again({**outcome.iterate, COLUMNS: iterate[COLUMNS]})
        if isinstance(outcome, Done):
            left_out = [name for name, inside in zip(self.analysis.reducible, kept, strict=True) if not inside]
            return Done({**self.analysis.completed(outcome.result, kept.tolist()), "withheld_columns": left_out})
        return outcome if kept.all() else replace(outcome, reason=f"{outcome.reason} ({self._names(~kept)} left out)")

    def _enough(self, smallest: Cell | None) -> bool:
        """Whether the minimum count lets the sums pass; else they are withheld for that."""
        return smallest is not None and smallest.count >= self.rule.minimum_count

    def _passing(self, cohort: Cohort) -> BoolArray:
        ok = passing_as_before(self.analysis.influence_groups(cohort, self.rule), self.rule)
        if np.count_nonzero(ok) < self.analysis.fewest_columns:
            raise InfluenceRefused("of each column, too few patients make up too much of the sums")
        return ok

    def check_total(self, vector: FloatArray, iterate: Iterate) -> Statistic:
        """The total as a statistic of the analysis with the agreed columns (`ExactAnalysis.check_total`)."""
        inner: Any = self.after(iterate)
        statistic: Statistic = inner.check_total(vector, _own(iterate))
        return statistic

    def after(self, iterate: Iterate) -> Analysis:
        """The analysis with the columns that an iterate brings as agreed; one without any is not after an agreement."""
        return self.analysis.reduced((np.asarray(iterate[COLUMNS]) == 1).tolist())

    def _names(self, which: BoolArray) -> str:
        return ", ".join(name for name, chosen in zip(self.analysis.reducible, which, strict=True) if chosen)


def _own(iterate: Iterate) -> Iterate:
    """The analysis's own blocks."""
    return {name: block for name, block in iterate.items() if name != COLUMNS}
