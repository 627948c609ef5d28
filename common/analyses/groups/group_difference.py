"""Two groups compared by their gap, site by site: adjusted difference, effect size, ROC AUC.

Least squares of the gap y on group membership g (1 the group of interest, 0 the reference) and covariates c with one
intercept a site. Centring every column at each site's own mean takes the intercepts out (Frisch-Waugh-Lovell), and the
cross products of the centred columns Z = [g, c, y] add up over sites: the result is that of one regression with a dummy
for each site over all patients, to the last digits. No site mean leaves, so no sum over these patients can be
subtracted from a sum over others.

A site with patients of one group only has nothing to compare: it takes no part, covariates' slopes included.
Standard errors take the gaps as given; that a bias line was estimated is not in them.

Notation: S sites, n patients, k = 1 + number of covariates, s² = RSS/(n − S − k).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import combinations_with_replacement
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.agreement import agreed
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, OneExchange, Outcome, Result
from fedage.common.analyses.columns import MAX_PATIENTS, TwoGroups, bound_of, present, usable, within_bounds
from fedage.common.analyses.columns_read import ColumnsRead, columns_read, earlier_columns
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.groups import _group_difference_shown, _groups_compared, _roc
from fedage.common.analyses.groups._auc import _HISTOGRAMS, _auc
from fedage.common.analyses.groups._regression import _COLLINEAR, _FOUND, _ROUNDING, _regress
from fedage.common.analyses.groups.result import GroupDifferenceResult
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.analyses.of_file import beside, compared_gap, computed, gap_of, tells_raw_gap
from fedage.common.campaign.types import Campaign
from fedage.common.statistics.cohort import INCOMPLETE, Cohort
from fedage.common.statistics.influence import Group, InfluenceRule
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic


def reported(cohort: Cohort) -> NDArray[np.bool_]:
    """Who (n,) neither trained the model nor set a bias line: test patients, and those who are ill in any part."""

    def is_set(column: str) -> NDArray[np.bool_]:
        values = cohort.columns.get(column)
        return np.zeros(cohort.n, dtype=bool) if values is None else values == 1

    # Bias lines are fitted on healthy patients, so the others in the validation part shaped nothing.
    used = is_set("is_train") | (is_set("is_validation") & is_set("healthy"))
    return (is_set("is_test") | ~used) & ~is_set(INCOMPLETE)


@dataclass(frozen=True)
class GroupDifference(OneExchange):
    """Difference of a gap between two groups, sites and covariates held fixed.

    Result: `n_group`, `n_reference`, `sites` (those with both groups), `left_out` (a value missing or out of range),
    `one_group_only` (patients at sites without the other group), `unadjusted` (sites held fixed only) and, with
    covariates too, `difference_years`, `se_years`, `ci95`, `t`, `df`, `p`, `residual_sd_years` (the s above) and
    `cohens_d`, the difference over it, or None and in `not_adjusted` why; `auc` of all pairs with its `auc_ci95`, with
    `auc_low` and `auc_high`, which the pair count lies between, and `auc_error`, the larger distance to them;
    `auc_within_sites` (exact, pairs of one site only) with `auc_within_sites_ci95`; `roc` with `false_positive` and
    `true_positive` rates, rising. Where the bounds are wider apart than the 95 % interval, `auc`, `auc_ci95`,
    `auc_error` and `roc` are None, and `auc_refused` says why.

    Parameters
    ----------
    name
        The registered step.
    column
        Column that tells the groups.
    equals, reference
        Its value for the group of interest and for the reference; patients with another one are no part of this.
    gap
        The gap compared, in years.
    covariates
        Columns held fixed.
    minimum_count
        Fewest patients of a span of the histograms behind the AUC.
    complete_in
        Columns in which a patient has to be complete; None for the covariates (see `CoxBySite`).
    beside
        Columns of other models of the file, of which no covariate may be a near repetition (`influence_beside`).
    """

    name: str
    column: str
    _: KW_ONLY
    equals: float
    reference: float
    gap: str = "gap_years"
    covariates: tuple[str, ...] = ("age_years",)
    minimum_count: int = 1
    per_site: bool = True
    complete_in: tuple[str, ...] | None = None
    beside: tuple[str | TwoGroups, ...] = ()

    fewest_columns: ClassVar[int] = 0

    @property
    def reducible(self) -> tuple[str, ...]:
        return self.covariates

    def reduced(self, kept: Sequence[bool]) -> GroupDifference:
        covariates = tuple(name for name, inside in zip(self.covariates, kept, strict=True) if inside)
        return replace(self, covariates=covariates, complete_in=self._complete_in)

    def completed(self, result: Result, kept: Sequence[bool]) -> Result:  # noqa: ARG002 - it has no places
        return result

    def sums_products(self, iterate: Iterate) -> bool:  # noqa: ARG002 - one-shot
        return True

    def influence_groups(self, cohort: Cohort, rule: InfluenceRule) -> list[Group]:  # noqa: ARG002
        """Both groups together, and each: the products with group membership are sums over one."""
        kept, _ = self._compared(cohort)
        is_group = kept[self.column] == self.equals
        covariates, gap = kept.matrix(self.covariates), kept[self.gap]
        if is_group.all() or not is_group.any():
            return [Group(of="the patients compared", columns=covariates[:0], always=np.empty((0, 0)))]
        both = Group(
            of="the patients compared",
            columns=covariates,
            always=np.column_stack([is_group.astype(np.float64), gap]),
            names_always=(self.column, self.gap),
            beside=present(kept, self.beside),
            earlier=earlier_columns(kept),
        )
        each = [
            Group(
                of=of,
                columns=covariates[who],
                always=np.empty((int(who.sum()), 0)),
                products=False,
                earlier=earlier_columns(kept.where(who)),
            )
            for of, who in (("the patients of the group", is_group), ("the patients of the reference group", ~is_group))
        ]
        return [both, *each]

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        made = {self.column: TwoGroups(self.column, self.equals, self.reference).member(cohort)}
        needed = (self.column, self.gap)
        return columns_read(self._compared(cohort)[0], needed=needed, judged=self.covariates, made=made)

    @property
    def _complete_in(self) -> tuple[str, ...]:
        return self.covariates if self.complete_in is None else self.complete_in

    def _compared(self, cohort: Cohort) -> tuple[Cohort, int]:
        """The patients of the two groups with every value, and how many had to be left out."""
        chosen = cohort.where(reported(cohort))
        label = chosen[self.column]
        chosen = chosen.where((label == self.equals) | (label == self.reference))
        return usable(chosen, (self.gap, *self._complete_in))

    @property
    def _columns(self) -> tuple[str, ...]:
        return ("group", *self.covariates, "gap")

    def _products(self) -> Iterator[tuple[int, int, str]]:
        """Row, column and field name of every distinct cross product."""
        for i, j in combinations_with_replacement(range(len(self._columns)), 2):
            # The places keep the names apart, whatever columns are called.
            yield i, j, f"{i} {self._columns[i]} · {j} {self._columns[j]}"

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        def counts(name: str, *shape: int, whole: bool = True) -> Field:
            return Field(name, shape, lower=0.0, upper=MAX_PATIENTS, whole=whole)

        def pairs(name: str) -> Field:
            return Field(name, lower=0.0, upper=MAX_PATIENTS**2)

        # A centred value is no further from 0 than twice its bound; a centred 0 or 1 than 1.
        widest = [1.0, *(2 * bound_of(column) for column in self.covariates), 2 * bound_of(self.gap)]
        products = []
        for i, j, name in self._products():
            most = widest[i] * widest[j] * MAX_PATIENTS
            products.append(Field(name, lower=0.0 if i == j else -most, upper=most))
        return Layout(
            (
                *(counts(name) for name in ("n_group", "n_reference", "one_group_only")),
                *left_out_fields(),
                Field("sites", lower=0.0, upper=1.0),
                *products,
                *(pairs(name) for name in ("pairs", "pairs_won", *(f"own_{bound}" for bound in _roc.BOUNDS))),
                Field("pairs_variance", lower=0.0, upper=MAX_PATIENTS**4),
                Field("without_variance", lower=0.0, upper=1.0, whole=True),
                *(counts(name, _roc.CELLS, whole=not name.endswith("_likely")) for name in _HISTOGRAMS),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept, left_out = self._compared(cohort)
        layout = self.layout(iterate)
        values: dict[str, FloatArray | float] = {field.name: np.zeros(field.shape) for field in layout.fields}
        is_group = kept[self.column] == self.equals
        n_group, n_reference = int(is_group.sum()), int((~is_group).sum())
        values |= left_out_values(left_out)
        cells = [
            Cell(n_group, "patients of the group of interest"),
            Cell(n_reference, "patients of the reference group"),
        ]
        if not n_group or not n_reference:
            values["one_group_only"] = kept.n
            return Statistic.of(layout, values, cells)
        values |= {"n_group": n_group, "n_reference": n_reference, "sites": 1.0}
        z = np.column_stack([is_group.astype(np.float64), kept.matrix(self.covariates), kept[self.gap]])
        # Of a column that does not vary at a site, the rounding of its mean would be left, and taken for a small unit.
        flat = np.ptp(z, axis=0) <= _ROUNDING * np.abs(z).max(axis=0)
        z = np.where(flat, 0.0, z - z.mean(axis=0))
        z -= z.mean(axis=0)  # what rounding has left of a mean that is large against its SD
        values |= {name: float(z[:, i] @ z[:, j]) for i, j, name in self._products()}
        # The products of a covariate with two values are a table of group by value.
        for column in self.covariates:
            levels = np.unique(kept[column])
            if levels.size == 2:
                sizes = [np.count_nonzero((kept[column] == v) & (is_group == g)) for v in levels for g in (True, False)]
                cells += [Cell(int(size), f"patients of one group and one value of {column}") for size in sizes]
        group, reference = kept[self.gap][is_group], kept[self.gap][~is_group]
        a, b = (_roc.histogram(gaps, minimum_count=self.minimum_count) for gaps in (group, reference))
        cells += [Cell(side.smallest_span, "patients of one group with gaps of one range") for side in (a, b)]
        values |= dict(zip(_HISTOGRAMS, (a.first, a.likely, a.last, b.first, b.likely, b.last), strict=True))
        pairs = float(n_group) * n_reference
        values |= {"pairs": pairs, "pairs_won": _roc.pairs_won(group, reference)}
        if min(n_group, n_reference) >= 2:
            values["pairs_variance"] = pairs**2 * _roc.variance_of_pairs(group, reference)
        else:
            values["without_variance"] = 1.0
        values |= {f"own_{key}": won for key, won in _roc.pairs_between(a, b).items()}
        return Statistic.of(layout, values, cells)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        n_group, n_reference = total.scalar("n_group"), total.scalar("n_reference")
        if n_group < 1 or n_reference < 1:
            return NotComputable(
                f"no site has patients with {self.column} = {self.equals:g} and with {self.column} = {self.reference:g}"
            )
        width = len(self._columns)
        products = np.empty((width, width))
        for i, j, name in self._products():
            products[i, j] = products[j, i] = total.scalar(name)
        free = n_group + n_reference - total.scalar("sites")
        adjusted = self._adjusted(products, free)
        not_adjusted = adjusted if isinstance(adjusted, str) else ""
        return Done(
            {
                "gap": self.gap,
                "n_group": round(n_group),
                "n_reference": round(n_reference),
                "sites": round(total.scalar("sites")),
                **left_out_result(total),
                "one_group_only": round(total.scalar("one_group_only")),
                **(dict.fromkeys(_FOUND) if isinstance(adjusted, str) else adjusted),
                "not_adjusted": not_adjusted,
                "unadjusted": _regress(products[np.ix_([0, -1], [0, -1])], free),
                **_auc(total),
            }
        )

    def _adjusted(self, products: FloatArray, free: float) -> Result | str:
        """The regression with all covariates, or why there is none."""
        size = np.diag(products)[:-1]
        flat = [name for name, square in zip(self._columns, size, strict=False) if square <= 0]
        if flat:
            return f"{', '.join(flat)} does not vary inside any site; take it out of groups.covariates"
        if free - size.size < 1:
            return f"{free:.0f} degrees of freedom are not enough for {size.size} columns"
        if np.linalg.eigvalsh(products[:-1, :-1] / np.sqrt(np.outer(size, size)))[0] < _COLLINEAR:
            return f"the group and {', '.join(self.covariates)} cannot be told apart; remove a covariate"
        return _regress(products, free)


GROUPS, GROUPS_RAW = "groups:gap", "groups:raw-gap"


_WORDS = {GROUPS: "the comparison of groups by corrected gap", GROUPS_RAW: "the comparison of groups by raw gap"}


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    """The comparison on the gap that survival uses, and on the raw one where a model of this campaign predicts.

    Ages that a table already predicts have no bias line: their gap is the raw one.
    """
    groups = campaign.groups
    if groups is None:
        return
    gaps = {GROUPS: compared_gap(campaign)}
    if campaign.estimator is not None:
        gaps[GROUPS_RAW] = "raw_gap_years"
    models = computed(campaign.survival) if campaign.survival else []
    about = {
        "column": groups.column,
        "equals": groups.equals,
        "reference": groups.reference,
        "covariates": groups.covariates,
    }
    for name, gap in gaps.items():
        difference = GroupDifference(
            name,
            groups.column,
            equals=groups.equals,
            reference=groups.reference,
            gap=gap,
            covariates=groups.covariates,
            minimum_count=campaign.cell_minimum,
            beside=beside(campaign, models),
        )
        yield Step(agreed(difference, campaign), (gap,), about)


def _columns(campaign: Campaign) -> Iterator[str]:
    groups = campaign.groups
    if groups is not None:
        yield from (groups.column, *groups.covariates)
        if campaign.estimator is None and not tells_raw_gap(campaign):
            yield gap_of(campaign)


def _sets(campaign: Campaign, cohort: Cohort) -> list[NDArray[np.bool_]]:
    """The patients compared, and each group of them; nobody where one group is too small to be compared."""
    groups, minimum = campaign.groups, campaign.cell_minimum
    if groups is None or groups.column not in cohort.columns:
        return []
    present = tuple(name for name in (compared_gap(campaign), *groups.covariates) if name in cohort.columns)
    compared = reported(cohort) & within_bounds(cohort, present)
    each = [compared & (cohort[groups.column] == value) for value in (groups.equals, groups.reference)]
    return [each[0] | each[1], *each] if min(map(np.count_nonzero, each)) >= minimum else []


ANALYSIS = Definition(
    name="groups",
    subject="a comparison of groups",
    result=GroupDifferenceResult,
    steps=_steps,
    words=lambda step: _WORDS.get(step, step),
    columns=_columns,
    sets=_sets,
    shown=_group_difference_shown.shown,
    compared=_groups_compared.compared,
    place=50,
)
