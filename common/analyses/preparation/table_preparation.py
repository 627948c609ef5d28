"""What a table's model needs of all sites before it can exist: medians, means, SDs and, for a ridge, its coefficients.

One iterative analysis, so that it is streamed, masked and guarded like any other: quartiles of every feature (four
exchanges), then one exchange of sums around them. Missing values are replaced by the median, features are standardised
by mean and SD of the result, and from the sums of products follow the ridge regression and its penalty.

Legend: p features, x a feature, z = (x − mean) / SD, t age on its scale, t̂ = intercept + Σ coefficient · z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.base import (
    Again,
    Done,
    Iterate,
    IterateRefused,
    NotComputable,
    Outcome,
    Result,
    check_iterate,
)
from fedage.common.analyses.columns_read import ColumnsRead, columns_read, earlier_columns
from fedage.common.analyses.left_out import left_out_result
from fedage.common.analyses.preparation import _ridge, _table_quantiles, site_moments
from fedage.common.analyses.preparation import table_sums as _table_sums
from fedage.common.analyses.preparation._table_missing import enough_present
from fedage.common.analyses.preparation.age_scale import AgeScale
from fedage.common.analyses.preparation.table_total import check_total
from fedage.common.statistics.cohort import INCOMPLETE, SET_ASIDE, Cohort
from fedage.common.statistics.influence import Group, InfluenceRefused, InfluenceRule, all_pass, passing
from fedage.common.statistics.statistic import Cell, FloatArray, Layout, Statistic

NAME = "table-preparation"
INNER_PLACE = "\x00inner place"
"""Cohort column that decides the inner fold: a place in [0, 1) by keyed hash of the patient, another one in each fold
of the campaign. (Were it the same one, the sums of the campaign's folds would give those of inner × outer folds, which
are small groups.) No campaign file can name it."""
MOST_ITERATES = 8
"""Different iterates of one exchange that a site answers; an honest coordinator needs another one each time a site
leaves in the preparation, as it starts over then."""
FEWEST_PATIENTS = 3
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class TablePreparation:
    """Medians, means, SDs and the ridge regression of age on a table's features.

    Result: `n`, `left_out` (no usable age), `unused` (features that no site may tell, or that are constant),
    `stood_in` (how many features at how many sites, together, have the site's mean for missing values instead of the
    median, so that no small group is told apart: then the ridge is not exactly the pooled one),
    `median_error_in_sd` (half the width in which a median lies for certain over the feature's SD: largest and middle
    one), `penalty`, `penalty_from` ("campaign", "inner-folds", or "too-few-patients": then λ = p),
    `cross_validation` (penalty and RMSE on the age scale), and `model`: `medians`, `means`, `sds` (0 for an unused
    feature), `coefficients` (empty without `products`), `intercept`, `age_sd`; with `correlations` also `correlations`
    (p, p) of the features and `age_correlations` (p,) with age on its scale, 0 for an unused feature.

    Parameters
    ----------
    columns
        The cohort's columns of features, in the model's order.
    scale
        The scale of age.
    penalty
        λ, or "auto": of `_ridge.PENALTIES` by cross-validation over inner folds.
    folds
        Inner folds of "auto".
    products
        Whether sums of products are sent; without them there is no ridge regression.
    correlations
        Whether the result has the correlations, for an estimator that solves something else than the ridge. They follow
        from the sums of products that leave anyway.
    subset, healthy_only
        Whose sums: patients with `subset` = 1, and only healthy ones if so.
    cross_fitted
        Whether the campaign asks this for several folds: then those outside the subset are a group that follows by
        subtraction, and it must not be a small one. (That of sums and counts as a whole; not of each group of values.)
    influence
        The rule that the sums keep; None for none. Where it asks for no patients per column, only the training patients
        as a whole keep it: products of fewer patients than columns, of an inner fold, tell of them anyway.
    all_columns
        The file's, where sites agreed to leave some out; None for `columns`. Inner folds follow from all of them, so
        that they are the same whichever were agreed.
    sites, site
        Sites that a discriminant tells apart, `site_directions` and `site_constants` of the model; and the one that
        sums. See `site_moments`.
    """

    columns: tuple[str, ...]
    scale: AgeScale = field(default_factory=AgeScale)
    _: KW_ONLY
    penalty: float | Literal["auto"] = "auto"
    folds: int = 5
    products: bool = True
    correlations: bool = False
    minimum_count: int = 1
    subset: str = "is_train"
    healthy_only: bool = False
    cross_fitted: bool = False
    influence: InfluenceRule | None = None
    all_columns: tuple[str, ...] | None = None
    sites: tuple[str, ...] = ()
    site: str = ""
    name: str = NAME
    per_site: bool = False

    fewest_columns: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if (self.correlations or self.sites) and not self.products:
            raise ValueError("correlations and a discriminant of sites need products of features")
        if self.products and len(self.columns) > _table_sums.MAX_FEATURES:
            raise ValueError(
                f"{len(self.columns)} features are too many for a ridge regression, which sends their products; "
                f"allowed are {_table_sums.MAX_FEATURES}: name fewer in estimator.options.features, "
                'or use table-mlp with start = "mean" and a number as noise'
            )

    @property
    def reducible(self) -> tuple[str, ...]:
        return self.columns

    def reduced(self, kept: Sequence[bool]) -> TablePreparation:
        columns = tuple(name for name, inside in zip(self.columns, kept, strict=True) if inside)
        return replace(self, columns=columns, all_columns=self._all_columns)

    def completed(self, result: Result, kept: Sequence[bool]) -> Result:
        """The result with SD 0 for the features left out, which a model does not look at."""
        inside = np.asarray(kept, dtype=np.bool_)
        model = dict(result["model"])
        for name in ("medians", "means", "sds", "coefficients"):
            if model[name]:
                values = np.zeros(inside.size)
                values[inside] = model[name]
                model[name] = values.tolist()
        if self.correlations:
            square = np.zeros((inside.size, inside.size))
            square[np.ix_(inside, inside)] = model["correlations"]
            with_age = np.zeros(inside.size)
            with_age[inside] = model["age_correlations"]
            model |= {"correlations": square.tolist(), "age_correlations": with_age.tolist()}
        if self.sites:
            directions = np.zeros((len(self.sites), inside.size))
            directions[:, inside] = model["site_directions"]
            model["site_directions"] = directions.tolist()
        return {**result, "features": inside.size, "model": model}

    def sums_products(self, iterate: Iterate) -> bool:
        return "low" not in iterate

    def influence_groups(self, cohort: Cohort, rule: InfluenceRule) -> list[Group]:  # noqa: ARG002
        """The training patients; where patients per column are asked for, each inner fold and those held out too."""
        _, rows = self._rows(cohort)
        groups = [("the training patients", rows)]
        if self._checks_folds:
            fold = self._inner_folds(cohort, rows)
            folds = [rows[fold == k] for k in np.unique(fold)]
            if len(folds) > 1:
                groups += [("the training patients of an inner fold", inside) for inside in folds]
            held_out = np.flatnonzero(self._outside(cohort))
            if self.cross_fitted and held_out.size:
                groups.append(("the training patients held out of a fold", held_out))
        return self._groups(cohort, self.columns, groups, earlier=earlier_columns(cohort))

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - the same for all
        chosen = np.isin(np.arange(cohort.n), self._rows(cohort)[1])
        if self.cross_fitted:  # the sums over those held out follow from the other folds'
            chosen |= self._outside(cohort)
        return columns_read(cohort.where(chosen), needed=("age_years",), judged=self.columns)

    def _groups(
        self,
        cohort: Cohort,
        names: Sequence[str],
        groups: Sequence[tuple[str, NDArray[np.intp]]],
        *,
        earlier: FloatArray | None = None,
    ) -> list[Group]:
        """Groups of rows, each with who they are in words, with the columns of these names."""
        columns = [cohort[name] for name in names]
        enough = enough_present(columns, [inside for _, inside in groups], minimum_count=self.minimum_count)
        read = list(zip(columns, enough, strict=True))
        age = self.scale.from_years(cohort["age_years"])
        none = np.empty((cohort.n, 0))
        return [
            Group(
                of=of,
                columns=np.column_stack(
                    [none[inside], *(column[inside] if is_told else np.zeros(inside.size) for column, is_told in read)]
                ),
                always=age[inside][:, None],
                names_always=("age",),
                products=self.products,
                earlier=None if earlier is None else earlier[inside],
            )
            for of, inside in groups
        ]

    @property
    def _checks_folds(self) -> bool:
        return self.influence is not None and self.influence.patients_per_column > 0

    @property
    def _all_columns(self) -> tuple[str, ...]:
        return self.columns if self.all_columns is None else self.all_columns

    def first(self) -> Iterate:
        return _table_quantiles.first_windows(len(self.columns))

    def check(self, iterate: Iterate) -> None:
        if "low" in iterate:
            _table_quantiles.check_windows(iterate, len(self.columns))
            return
        shape = (len(self.columns),)
        check_iterate(iterate, {"centre": shape, "spread": shape, "error": shape}, bound=2 * _LARGEST)
        if np.any(iterate["spread"] < 0):
            raise IterateRefused("spread must not be negative")

    def counted(self, iterate: Iterate) -> tuple[str, int]:
        exchange = f"windows {iterate['exchange']:.0f}" if "low" in iterate else "sums"
        return exchange, MOST_ITERATES

    def layout(self, iterate: Iterate) -> Layout:
        if "low" in iterate:
            return _table_quantiles.layout(len(self.columns))
        sums = _table_sums.layout(len(self.columns), self._folds, products=self.products)
        return Layout((*sums.fields, *site_moments.fields(len(self.sites), len(self.columns))))

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        asked, rows = self._rows(cohort)
        columns = [cohort[name] for name in self.columns]
        if "low" in iterate:
            statistic = _table_quantiles.local(
                (column[rows] for column in columns), iterate, patients=rows.size, minimum_count=self.minimum_count
            )
        else:
            statistic = _table_sums.local(
                columns,
                self.scale.from_years(cohort["age_years"][rows]),
                rows=rows,
                fold=self._inner_folds(cohort, rows),
                held_out=np.flatnonzero(self._outside(cohort)) if self.cross_fitted else np.empty(0, dtype=np.intp),
                left_out=asked - rows.size,
                centre=iterate["centre"],
                spread=iterate["spread"],
                folds=self._folds,
                products=self.products,
                minimum_count=self.minimum_count,
            )
            own = site_moments.own(statistic, site=self.site, sites=self.sites)
            statistic = replace(
                statistic, layout=self.layout(iterate), vector=np.concatenate([statistic.vector, own.ravel()])
            )
        if not self.cross_fitted:
            return statistic
        held_out = Cell(int(self._outside(cohort).sum()), "training patients held out of one fold")
        smallest = statistic.smallest
        if held_out.count == 0 or (smallest is not None and smallest.count <= held_out.count):
            return statistic
        return replace(statistic, smallest=held_out)

    def check_total(self, vector: FloatArray, iterate: Iterate) -> Statistic:
        p = len(self.columns)
        total = check_total(self.layout(iterate), vector, features=p, products=self.products, scale=self.scale)
        if self.sites:
            site_moments.check(total, reduce(add, _table_sums.moments(total, p, products=self.products)))
        return total

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        if "low" in iterate:
            return self._after_quartiles(total, iterate)
        n = float(total["n"].sum())
        if n < FEWEST_PATIENTS:
            return NotComputable(f"a model needs at least {FEWEST_PATIENTS} training patients, not {n:.0f}")
        return self._after_sums(total, iterate)

    @property
    def _folds(self) -> int:
        return self.folds if self.products and self.penalty == "auto" else 1

    def _chosen(self, cohort: Cohort) -> NDArray[np.bool_]:
        everybody = np.ones(cohort.n, dtype=bool)
        return cohort["healthy"] == 1 if self.healthy_only else everybody

    def _rows(self, cohort: Cohort) -> tuple[int, NDArray[np.intp]]:
        """How many patients are asked for, and the rows of those with a usable age."""
        asked = self._chosen(cohort) & (cohort[self.subset] == 1)
        return int(asked.sum()), np.flatnonzero(asked & self.scale.usable(cohort["age_years"]))

    def _inner_folds(self, cohort: Cohort, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        if self._folds == 1:
            return np.zeros(rows.size, dtype=np.intp)
        fewest, rule = self.minimum_count, self.influence
        if rule is not None:
            fewest = max(fewest, int(np.ceil(rule.patients_per_column * len(self._all_columns))))
        fold = _table_sums.inner_folds(cohort[INNER_PLACE][rows], folds=self._folds, minimum_count=fewest)
        if rule is None or not self._checks_folds:
            return fold
        # Folds join until what passes in all of them together passes in each, so that inner folds cost no column.
        (whole,) = self._groups(cohort, self._all_columns, [("", rows)])
        try:
            ok = passing([whole], rule)
        except InfluenceRefused:
            return fold
        names = [name for name, passes in zip(self._all_columns, ok, strict=True) if passes]
        while (numbers := np.unique(fold, return_counts=True))[0].size > 1:
            inside = [("", rows[fold == k]) for k in numbers[0]]
            if all(all_pass([group], rule) for group in self._groups(cohort, names, inside)):
                break
            smallest, following = numbers[0][np.argsort(numbers[1], kind="stable")[:2]]
            fold = np.where(fold == smallest, following, fold)
        return fold

    def _outside(self, cohort: Cohort) -> NDArray[np.bool_]:
        """Who would be trained on and is held out of this fold, (n,); those set aside are in no fold's sums."""
        outside: NDArray[np.bool_] = cohort[self.subset] != 1
        for aside in (SET_ASIDE, INCOMPLETE):
            outside &= cohort.columns.get(aside, np.zeros(cohort.n)) != 1
        return self._chosen(cohort) & outside & self.scale.usable(cohort["age_years"])

    def _after_quartiles(self, total: Statistic, iterate: Iterate) -> Outcome:
        if not total["present"].any():
            return NotComputable("no site has enough patients with a value in any feature")
        following = _table_quantiles.narrower(total, iterate)
        if following is not None:
            return Again(following)
        quartiles = _table_quantiles.quartiles(total, iterate)
        # A spread of 0 is how the sites are told of a feature that nobody could say anything about.
        error = np.minimum((quartiles.greatest_median - quartiles.least_median) / 2, _LARGEST)
        blocks = {"centre": quartiles.median, "spread": np.minimum(quartiles.spread, _LARGEST), "error": error}
        return Again({name: np.nan_to_num(block, nan=0.0) for name, block in blocks.items()})

    def _after_sums(self, total: Statistic, iterate: Iterate) -> Outcome:
        by_fold = _table_sums.moments(total, len(self.columns), products=self.products)
        everybody = reduce(add, by_fold)
        centre, spread = iterate["centre"], iterate["spread"]
        standard = _ridge.standard_of(everybody)
        sds = spread * standard.sd
        if not standard.varies.any():
            return NotComputable("no feature varies among the training patients")
        result: dict[str, Any] = {
            "n": round(everybody.n),
            **left_out_result(total),
            "features": len(self.columns),
            "stood_in": round(total.scalar("stood_in")),
            "unused": [name for name, sd in zip(self.columns, sds, strict=True) if sd == 0],
            "median_error_in_sd": _largest_and_middle(iterate["error"][sds > 0] / sds[sds > 0]),
        }
        model: dict[str, Any] = {
            "medians": centre.tolist(),
            "means": (centre + spread * standard.mean).tolist(),
            "sds": sds.tolist(),
            "coefficients": [],
            "intercept": standard.t_mean,
            "age_sd": standard.t_sd,
        }
        if self.products:
            penalty, source, errors = self._penalty(by_fold)
            model["coefficients"] = _ridge.fit(everybody, (penalty,))[0].coefficients.tolist()
            result |= {"penalty": penalty, "penalty_from": source, "cross_validation": errors}
        if self.correlations:
            model["correlations"], model["age_correlations"] = _ridge.correlations(everybody)
        if self.sites:
            model |= site_moments.discriminant(total, everybody)
        return Done({**result, "model": model})

    def _penalty(self, by_fold: list[_table_sums.Moments]) -> tuple[float, str, list[list[float]]]:
        if self.penalty != "auto":
            return self.penalty, "campaign", []
        errors = _ridge.cross_validated(by_fold, _ridge.PENALTIES)
        if errors is None:
            return float(len(self.columns)), "too-few-patients", []
        table = [[penalty, float(np.sqrt(max(e, 0.0)))] for penalty, e in zip(_ridge.PENALTIES, errors, strict=True)]
        return _ridge.strongest_of_the_best(errors, patients=sum(sums.n for sums in by_fold)), "inner-folds", table


def _largest_and_middle(values: FloatArray) -> list[float]:
    return [float(values.max()), float(np.median(values))]
