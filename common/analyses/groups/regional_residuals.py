"""Regional residuals compared between several diagnoses at once: which regions an older-looking brain is older in.

An estimator such as `cortex-vnn` or `brain-patches` keeps at the site what each region contributes to a patient's
predicted age beyond the mean of all regions, model by model (columns `residual:MODEL:REGION`), and maybe how a
patient's residuals lie along the leading eigenvectors of the covariance (`eigenvector:NUMBER`). For each region and
model this is the analysis of covariance of residual r on one 0/1 column a diagnosis and on covariates, with one
intercept a site: all columns are centred at the site's own means, so that their products add up over sites to those
of one regression with a dummy for each site (as in `group_difference`). F tests all diagnoses together, t each
against the reference.

As published for coVariance networks (Sihag et al., NeurIPS 2023), a p counts where it is below `alpha` over the number
of regions (Bonferroni), and the number of models in which it does is the map of how robust a finding is. There the
models differ in their data and first weights, here in first weights and folds: a patient's residuals come from the
models of the fold that held the patient out. An eigenvector is kept whose coefficient of variation among the patients
of a diagnosis is below 0.3, also as published; its correlation is the absolute one, the mean over models.

Notation: S sites, n patients, G diagnoses, q = G + number of covariates, M models, R regions, E eigenvectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Described
from pydantic import model_validator

from fedage.common.analyses.agreement import agreed
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, OneExchange, Outcome, Result
from fedage.common.analyses.columns import MAX_PATIENTS, bound_of, usable, within_bounds
from fedage.common.analyses.columns_read import ColumnsRead, columns_read, earlier_columns
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.groups import _regional_residuals_shown
from fedage.common.analyses.groups._regional_regression import centred, regress_all
from fedage.common.analyses.groups.group_difference import reported
from fedage.common.analyses.groups.regional_result import NAME, RegionalResiduals
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.campaign.types import Campaign, Column, Table
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group, InfluenceRule
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

_BOUND = 1e3
"""Largest |residual|, in SDs of age."""
_RESIDUAL, _EIGENVECTOR = "residual:", "eigenvector:"
_STEADY = 0.3
"""Coefficient of variation up to which an eigenvector is kept."""


class Options(Table):
    """Regional residuals compared between diagnoses, of an estimator that keeps them (residuals = true)."""

    column: Column = Described(description="outcome column that tells the diagnosis")
    diagnoses: tuple[float, ...] = Described(min_length=1, max_length=20, description="its values for the diagnoses")
    reference: float = Described(description="its value for the reference group, e.g. controls")
    covariates: tuple[Column, ...] = Described(default=("age_years",), description="columns held fixed beside the site")
    alpha: float = Described(default=0.05, gt=0, lt=1, description="error over all regions together, of each test")

    @model_validator(mode="after")
    def _different(self) -> Self:
        groups = (self.reference, *self.diagnoses)
        if len(set(groups)) < len(groups):
            raise ValueError("reference and diagnoses must be different values; remove the one that is there twice")
        return self


@dataclass(frozen=True)
class RegionalDifference(OneExchange):
    """The comparison; see the module's docstring.

    Parameters
    ----------
    column, diagnoses, reference, covariates, alpha
        As in the file.
    regions, eigenvectors
        Names of the features, and numbers of the eigenvectors.
    models
        How many models keep residuals.
    minimum_count
        A diagnosis with fewer patients at a site is left out there, so that it does not cost the others the site.
    """

    column: str
    _: KW_ONLY
    diagnoses: tuple[float, ...]
    reference: float
    covariates: tuple[str, ...]
    regions: tuple[str, ...]
    eigenvectors: tuple[int, ...] = ()
    models: int = 1
    alpha: float = 0.05
    minimum_count: int = 1
    name: str = NAME
    per_site: bool = False
    all_columns: tuple[str, ...] | None = None

    fewest_columns: ClassVar[int] = 1

    @property
    def reducible(self) -> tuple[str, ...]:
        return (*self._residuals(1), *self._eigen)

    def reduced(self, kept: Sequence[bool]) -> RegionalDifference:
        split = len(self.regions)
        regions = tuple(name for name, inside in zip(self.regions, kept[:split], strict=True) if inside)
        numbers = tuple(one for one, inside in zip(self.eigenvectors, kept[split:], strict=True) if inside)
        return replace(self, regions=regions, eigenvectors=numbers)

    def completed(self, result: Result, kept: Sequence[bool]) -> Result:  # noqa: ARG002 - it has no places
        return result

    def sums_products(self, iterate: Iterate) -> bool:  # noqa: ARG002 - one-shot
        return True

    def influence_groups(self, cohort: Cohort, rule: InfluenceRule) -> list[Group]:  # noqa: ARG002
        """Of each model all groups together, and each group: products with its 0/1 column are sums over it."""
        kept, _, groups = self._compared(cohort)
        if groups.sum(axis=0).astype(bool).sum() < 2:
            empty = np.empty((0, len(self.reducible)))
            return [Group(of="the patients compared", columns=empty, always=np.empty((0, 0)))]
        fixed, groups_summed = kept.matrix(self.covariates), []
        always = np.column_stack([groups[:, 1:].astype(np.float64), fixed])
        names = (*(f"{self.column} = {value:g}" for value in self.diagnoses), *self.covariates)
        for model in range(1, self.models + 1):
            columns = kept.matrix((*self._residuals(model), *self._eigen))
            groups_summed.append(
                Group(
                    of="the patients compared",
                    columns=columns,
                    always=always,
                    names_always=names,
                    products=False,
                    earlier=earlier_columns(kept),
                )
            )
            groups_summed += [
                Group(
                    of="the patients of one group",
                    columns=columns[who],
                    always=np.empty((int(who.sum()), 0)),
                    products=False,
                )
                for who in groups.T
                if who.any()
            ]
        return groups_summed

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        codes = cohort[self.column]
        made = {self.column: np.where(np.isin(codes, self._groups), codes, np.nan)}
        kept, _, _ = self._compared(cohort)
        return columns_read(kept, needed=(self.column, *self.covariates), made=made)

    @property
    def _groups(self) -> tuple[float, ...]:
        return (self.reference, *self.diagnoses)

    def _residuals(self, model: int) -> tuple[str, ...]:
        return tuple(f"residual:{model}:{region}" for region in self.regions)

    @property
    def _eigen(self) -> tuple[str, ...]:
        return tuple(f"eigenvector:{one}" for one in self.eigenvectors)

    def _compared(self, cohort: Cohort) -> tuple[Cohort, int, NDArray[np.bool_]]:
        """The patients of the groups with every value, how many had to be left out, and who is in which group."""
        chosen = cohort.where(reported(cohort))
        chosen = chosen.where(np.isin(chosen[self.column], self._groups))
        asked = chosen.n
        kept, _ = usable(chosen, (*self.covariates, *self._residuals(1)))
        counts = [np.count_nonzero(kept[self.column] == value) for value in self._groups]
        enough = [value for value, many in zip(self._groups, counts, strict=True) if many >= self.minimum_count]
        kept = kept.where(np.isin(kept[self.column], enough))
        groups: NDArray[np.bool_] = kept[self.column][:, None] == np.array(self._groups)
        return kept, asked - kept.n, groups

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        widest = max(1.0, *(2 * bound_of(name) for name in self.covariates), 1.0)
        q, size = len(self.diagnoses) + len(self.covariates), (self.models, len(self.regions))
        products, mixed = widest**2 * MAX_PATIENTS, widest * 2 * _BOUND * MAX_PATIENTS
        eigen = (len(self._groups), len(self.eigenvectors))
        return Layout(
            (
                Field("n", (len(self._groups),), lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("one_group_only", lower=0.0, upper=MAX_PATIENTS, whole=True),
                *left_out_fields(),
                Field("sites", lower=0.0, upper=1.0),
                Field("products", (q, q), lower=-products, upper=products),
                Field("with_residuals", (q, *size), lower=-mixed, upper=mixed),
                Field("squares", size, lower=0.0, upper=4 * _BOUND**2 * MAX_PATIENTS),
                Field("eigen", eigen, lower=0.0, upper=MAX_PATIENTS),
                Field("eigen_squares", eigen, lower=0.0, upper=MAX_PATIENTS),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept, left_out, groups = self._compared(cohort)
        layout = self.layout(iterate)
        values: dict[str, FloatArray | float] = {field.name: np.zeros(field.shape) for field in layout.fields}
        values |= left_out_values(left_out)
        counts = groups.sum(axis=0)
        cells = [Cell(int(many), "patients of one group") for many in counts]
        if not counts[0] or not counts[1:].any():
            values["one_group_only"] = kept.n
            return Statistic.of(layout, values, [Cell(kept.n, "patients of one group"), *cells])
        z = centred(np.column_stack([groups[:, 1:].astype(np.float64), kept.matrix(self.covariates)]))
        r = np.stack([centred(kept.matrix(self._residuals(model))) for model in range(1, self.models + 1)])
        eigen, member = kept.matrix(self._eigen), groups.astype(np.float64)
        values |= {
            "n": counts.astype(np.float64),
            "sites": 1.0,
            "products": z.T @ z,
            "with_residuals": np.einsum("nq,mnr->qmr", z, r),
            "squares": (r * r).sum(axis=1),
            "eigen": member.T @ eigen,
            "eigen_squares": member.T @ eigen**2,
        }
        for column in self.covariates:
            levels = np.unique(kept[column])
            if levels.size == 2:
                sizes = [np.count_nonzero(who & (kept[column] == level)) for who in groups.T for level in levels]
                cells += [Cell(int(size), f"patients of one group and one value of {column}") for size in sizes]
        return Statistic.of(layout, values, cells)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        n, products, G = total["n"], total["products"], len(self.diagnoses)
        groups = ", ".join(f"{value:g}" for value in self.diagnoses)
        if not total.scalar("sites"):
            return NotComputable(
                f"no site has enough patients with {self.column} = {self.reference:g} and with one of {groups}"
            )
        varies = np.diag(products) > 0
        there = np.flatnonzero(varies[:G])
        df = n.sum() - total.scalar("sites") - np.count_nonzero(varies)
        if df < 1:
            return NotComputable(f"{n.sum():.0f} patients are not enough for {np.count_nonzero(varies)} columns")
        inside = np.ix_(varies, varies)
        size = np.sqrt(np.diag(products)[varies])
        if np.linalg.eigvalsh(products[inside] / np.outer(size, size))[0] < _COLLINEAR:
            return NotComputable(
                f"the diagnoses and {', '.join(self.covariates)} cannot be told apart; remove a covariate"
            )
        regressions = regress_all(total, varies=varies, diagnoses=G, df=float(df))
        threshold = self.alpha / len(self.regions)
        place = {int(g): k for k, g in enumerate(there)}

        def of_diagnosis(g: int, j: int) -> Result:
            k = place.get(g)
            if k is None:
                return {
                    "diagnosis": self.diagnoses[g],
                    "difference_sd": None,
                    "p": None,
                    "models_higher": 0,
                    "models_lower": 0,
                }
            counts = regressions.p_each[k, :, j] < threshold
            return {
                "diagnosis": self.diagnoses[g],
                "difference_sd": float(regressions.slopes[k, :, j].mean()),
                "p": float(np.median(regressions.p_each[k, :, j])),
                "models_higher": int(np.count_nonzero(counts & (regressions.slopes[k, :, j] > 0))),
                "models_lower": int(np.count_nonzero(counts & (regressions.slopes[k, :, j] < 0))),
            }

        return Done(
            {
                "n_reference": round(n[0]),
                "n": np.rint(n[1:]).astype(int).tolist(),
                "sites": round(total.scalar("sites")),
                **left_out_result(total),
                "one_group_only": round(total.scalar("one_group_only")),
                "models": self.models,
                "threshold": threshold,
                "df": round(df),
                "regions": [
                    {
                        "region": region,
                        "p": float(np.median(regressions.p_all[:, j])),
                        "models_differ": int(np.count_nonzero(regressions.p_all[:, j] < threshold)),
                        "diagnoses": [of_diagnosis(g, j) for g in range(G)],
                    }
                    for j, region in enumerate(self.regions)
                ],
                "eigenvectors": self._shares(total),
            }
        )

    def _shares(self, total: Statistic) -> list[Result]:
        shares = []
        for k, one in enumerate(self.eigenvectors):
            for g, value in enumerate(self._groups):
                n = total["n"][g]
                if n < 2:
                    continue
                mean = total["eigen"][g, k] / n
                sd = float(np.sqrt(max(total["eigen_squares"][g, k] - n * mean**2, 0.0) / (n - 1)))
                steady = bool(sd < _STEADY * mean)
                shares.append({"eigenvector": one, "group": value, "mean": float(mean), "sd": sd, "is_steady": steady})
        return shares


_COLLINEAR = 1e-9


def _keeps_residuals(campaign: Campaign) -> bool:
    return any(name.startswith(_RESIDUAL) for name in campaign.predicted_columns)


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    options = campaign.analyses.options(NAME, Options)
    if not _keeps_residuals(campaign):
        return
    names = [name.split(":", 2)[1:] for name in campaign.predicted_columns if name.startswith(_RESIDUAL)]
    eigenvectors = [name for name in campaign.predicted_columns if name.startswith(_EIGENVECTOR)]
    difference = RegionalDifference(
        options.column,
        diagnoses=options.diagnoses,
        reference=options.reference,
        covariates=options.covariates,
        regions=tuple(sorted({region for _, region in names})),
        eigenvectors=tuple(int(name.removeprefix(_EIGENVECTOR)) for name in eigenvectors),
        models=max(int(model) for model, _ in names),
        alpha=options.alpha,
        minimum_count=campaign.cell_minimum,
    )
    about = options.model_dump(include={"column", "reference", "covariates", "alpha"})
    yield Step(agreed(difference, campaign), ("predicted_years",), about)


def _columns(campaign: Campaign) -> Iterator[str]:
    options = campaign.analyses.options(NAME, Options)
    yield from (options.column, *options.covariates)


def _sets(campaign: Campaign, cohort: Cohort) -> list[NDArray[np.bool_]]:
    """The patients of each group, those that are large enough."""
    options, minimum = campaign.analyses.options(NAME, Options), campaign.cell_minimum
    if options.column not in cohort.columns:
        return []
    present = tuple(name for name in options.covariates if name in cohort.columns)
    compared = reported(cohort) & within_bounds(cohort, present)
    each = [compared & (cohort[options.column] == value) for value in (options.reference, *options.diagnoses)]
    large = [who for who in each if np.count_nonzero(who) >= minimum]
    return [np.logical_or.reduce(large), *large] if len(large) > 1 else []


def _asked(campaign: Campaign) -> Iterator[str]:
    options = campaign.analyses.options(NAME, Options)
    if _keeps_residuals(campaign):
        yield (
            f"It compares regional residuals between {len(options.diagnoses) + 1} groups by {options.column}: for each "
            "region and model your site sends sums of their products with group and covariates, all about the site's "
            "own means, and sums of squares."
        )


ANALYSIS = Definition(
    name=NAME,
    result=RegionalResiduals,
    steps=_steps,
    words=lambda step: "the comparison of regional residuals",  # noqa: ARG005 - there is one
    options=Options,
    needs_in_words="its estimator keeps regional residuals (residuals = true in [estimator.options])",
    asked=_asked,
    columns=_columns,
    sets=_sets,
    shown=_regional_residuals_shown.shown,
    place=55,
)
