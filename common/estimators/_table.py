"""What estimators on tables share: which columns are features, and what they need of all sites before they can exist.

A sample is one patient's row of raw features (p,), NaN where missing. Its columns are the cohort's: `feature:NAME` for
a column NAME of the site's table, and `is_male` at the end if the options say so. The campaign file may name features
by patterns; each side resolves them against the site's columns, and all sites must resolve to the same list.

Legend: n patients, p features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from fedage.common.analyses._age_scale import AgeScale
from fedage.common.analyses.table_preparation import NAME, TablePreparation
from fedage.common.column_names import normal_name
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import Options
from fedage.common.influence import InfluenceRule

PREPARATION = NAME
"""The registered step whose result makes a table's model."""
FEATURE = "feature:"
"""Prefix of a cohort's feature columns, so that no feature is taken for an age or an outcome."""
Model = Mapping[str, Any]
"""The `model` of a preparation's result."""


class FeaturesMissing(FedAgeError):
    """A site's table has not the features that the campaign file names."""


class TableOptions(Options):
    """Options of every estimator on tables."""

    features: tuple[str, ...] = Field(
        min_length=1,
        strict=False,
        description='columns, or patterns such as "*_ThickAvg"; "*" is every numeric column',
    )
    exclude: tuple[str, ...] = Field(
        default=(), strict=False, description="columns or patterns that are no features after all"
    )
    add_sex: bool = Field(default=False, description="whether sex is a feature too")
    age_scale: Literal["log", "linear"] = Field(default="log", description="what is linear in the features")
    age_offset_years: float = Field(default=0.0, ge=-20, le=130, description="added before the logarithm")
    penalty: Literal["auto"] | float = Field(
        default="auto", description='ridge penalty λ on standardised features, or "auto": by inner cross-validation'
    )
    inner_folds: int = Field(default=5, ge=2, le=20, description='folds of penalty = "auto"')

    @field_validator("features", "exclude")
    @classmethod
    def _normal(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(normal_name(name) for name in names)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.age_scale == "linear" and "age_offset_years" in self.model_fields_set:
            raise ValueError('age_offset_years has no effect with age_scale = "linear"; remove it')
        if self.penalty != "auto" and not 0 < self.penalty <= 1e12:
            raise ValueError(f'penalty={self.penalty:g} must be "auto" or a number above 0, up to 1e12')
        if self.penalty != "auto" and "inner_folds" in self.model_fields_set:
            raise ValueError('inner_folds has no effect with a given penalty; remove it or set penalty = "auto"')
        return self

    @property
    def scale(self) -> AgeScale:
        """The scale of age."""
        return AgeScale(self.age_scale, self.age_offset_years if self.age_scale == "log" else 0.0)

    def resolve(self, available: Sequence[str]) -> tuple[str, ...]:
        """The features among a table's numeric columns, sorted by name.

        Raises
        ------
        FeaturesMissing
            If a name or a pattern finds nothing; with the nearest of what there is.
        """
        return _resolved(self.features, self.exclude, tuple(available))

    def names_features(self) -> bool:
        """Whether the features are plain names, known without any table."""
        return not any(_is_pattern(wanted) for wanted in self.features)


@runtime_checkable
class TableEstimator(Protocol):
    """What an estimator on tables offers beside `Estimator` (whose `preprocess` it does without).

    The life of one: `for_features` with what the tables have, `preparation` run as an analysis, `weights_from` its
    result. If `exact`, that is the finished model, `predict_years` applies it and there are no rounds. Else it is where
    training begins, and a sample goes through the network that `build` makes.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Options: ClassVar[type[Options]]
    exact: ClassVar[bool]
    """Whether the preparation alone gives the model."""

    def for_features(self, features: Sequence[str]) -> Self:
        """A copy that knows its features by name."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The cohort's columns that make a sample, in order."""

    def preparation(
        self,
        *,
        minimum_count: int,
        healthy_only: bool = False,
        cross_fitted: bool = False,
        influence: InfluenceRule | None = None,
    ) -> TablePreparation:
        """The analysis whose result `weights_from` turns into a model."""

    def weights_from(self, result: Mapping[str, Any], *, seed: int) -> dict[str, NDArray[Any]]:
        """The model, from the preparation's result; what is random in it depends on `seed` only."""


class TableBase(ABC):
    """Options, features and preparation of an estimator on tables."""

    @abstractmethod
    def weights_from(self, result: Mapping[str, Any], *, seed: int) -> dict[str, NDArray[Any]]:
        """The model, from the preparation's result; what is random in it depends on `seed` only."""

    modalities: ClassVar[tuple[str, ...]] = ()
    couples_samples: ClassVar[bool] = False
    max_step_norm: ClassVar[float] = 1.0
    max_path_norm: ClassVar[float] = 8.0

    def __init__(self, options: TableOptions, features: tuple[str, ...] | None = None) -> None:
        self._table_options = options
        if features is None and options.names_features():
            features = options.resolve(options.features)
        self._features = features

    def for_features(self, features: Sequence[str]) -> Self:
        """A copy that knows its features by name."""
        return type(self)(self._table_options, tuple(features))

    def on_table(self, available: Sequence[str]) -> Self:
        """A copy whose features are those that the options choose among a table's numeric columns.

        Raises
        ------
        FeaturesMissing
            If a name or a pattern finds nothing.
        """
        return self.for_features(self._table_options.resolve(available))

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the table's columns that are features.

        Raises
        ------
        RuntimeError
            Before patterns are resolved.
        """
        if self._features is None:
            raise RuntimeError("the features are named by patterns; call for_features(options.resolve(columns)) first")
        return self._features

    @property
    def bounds_years(self) -> tuple[float, float]:
        """Least and greatest predicted age."""
        scale = self._table_options.scale
        low, high = scale.to_years(np.array(scale.bounds))
        return float(low), float(high)

    @property
    def products(self) -> bool:
        """Whether sums of products are needed, that is, a ridge regression."""
        return True

    @property
    def columns(self) -> tuple[str, ...]:
        """The cohort's columns that make a sample, in order."""
        sex = ("is_male",) if self._table_options.add_sex else ()
        return (*(FEATURE + name for name in self.features), *sex)

    def sample_shape(self) -> tuple[int, ...]:
        """(p,)."""
        return (len(self.columns),)

    def preparation(
        self,
        *,
        minimum_count: int,
        healthy_only: bool = False,
        cross_fitted: bool = False,
        influence: InfluenceRule | None = None,
    ) -> TablePreparation:
        """The analysis whose result `weights_from` turns into a model."""
        return TablePreparation(
            self.columns,
            self._table_options.scale,
            penalty=self._table_options.penalty,
            folds=self._table_options.inner_folds,
            products=self.products,
            minimum_count=minimum_count,
            healthy_only=healthy_only,
            cross_fitted=cross_fitted,
            influence=influence,
        )


@lru_cache(maxsize=64)
def _resolved(features: tuple[str, ...], exclude: tuple[str, ...], available: tuple[str, ...]) -> tuple[str, ...]:
    """See `TableOptions.resolve`; kept, because every message of a round asks again."""
    found: set[str] = set()
    for wanted in features:
        matching = {name for name in available if fnmatchcase(name, wanted)} if _is_pattern(wanted) else {wanted}
        if not matching <= set(available) or not matching:
            raise FeaturesMissing(
                f"estimator.options.features names {wanted!r}, which no numeric column of the table is "
                f"(there are {_some(available)}); correct the name or the pattern"
            )
        found |= matching
    kept = sorted(name for name in found if not any(fnmatchcase(name, pattern) for pattern in exclude))
    if not kept:
        raise FeaturesMissing("estimator.options.exclude leaves no feature; exclude fewer columns")
    return tuple(kept)


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _some(names: Sequence[str], most: int = 12) -> str:
    """The first of many names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def vector(model: Model, name: str) -> NDArray[np.float64]:
    """One of a model's arrays."""
    return np.array(model[name], dtype=np.float64)
