"""Options of estimators on tables: which of the sites' columns are features, and on which scale age is.

A row is one patient's raw features (p,), NaN where missing. Its columns are the cohort's: `feature:NAME` for a column
NAME of the site's table, and `is_male` at the end if the options say so. The campaign file may name features by
patterns; each side resolves them against the site's columns, and all sites must resolve to the same list.

Legend: n patients, p features.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from fedage.common.analyses.preparation.age_scale import AgeScale
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import PREDICTED_YEARS, Options, Output
from fedage.common.toml.column_names import normal_name

FEATURE = "feature:"
"""Prefix of a cohort's feature columns, so that no feature is taken for an age or an outcome."""


class FeaturesMissing(FedAgeError):
    """A site's table has not the features that the campaign file names."""


class FeatureOptions(Options):
    """Options of every estimator on tables."""

    features: tuple[str, ...] = Field(
        min_length=1,
        strict=False,
        description='columns, or patterns such as "*_ThickAvg"; "*" is every numeric column',
    )
    exclude: tuple[str, ...] = Field(
        default=(), strict=False, description="columns or patterns that are no features after all"
    )
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
    def _offset_only_for_log(self) -> Self:
        if self.age_scale == "linear" and "age_offset_years" in self.model_fields_set:
            raise ValueError('age_offset_years has no effect with age_scale = "linear"; remove it')
        return self

    @model_validator(mode="after")
    def _penalty_allowed(self) -> Self:
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

    @property
    def has_patterns(self) -> bool:
        """Whether the features are named by patterns, not all plainly."""
        return any(_is_pattern(wanted) for wanted in self.features)

    def row_columns(self, features: Sequence[str] | None) -> tuple[str, ...]:
        """The cohort's columns that make a row, from resolved features; None where the options name them plainly.

        Raises
        ------
        RuntimeError
            Before patterns are resolved.
        """
        if features is None:
            if self.has_patterns:
                raise RuntimeError("the features are named by patterns; call for_table(columns) first")
            features = self.resolve(self.features)
        return tuple(FEATURE + name for name in features)

    @property
    def age_output(self) -> Output:
        """Predicted age, with the least and greatest that the scale has."""
        low, high = self.scale.to_years(np.array(self.scale.bounds))
        return Output(column=PREDICTED_YEARS, lower=float(low), upper=float(high))


class TableOptions(FeatureOptions):
    """Options of the estimators on any features of a table, sex among them."""

    add_sex: bool = Field(default=False, description="whether sex is a feature too")

    def row_columns(self, features: Sequence[str] | None) -> tuple[str, ...]:
        """As of the features, with the column of the sex behind them."""
        return (*super().row_columns(features), *(("is_male",) if self.add_sex else ()))


@lru_cache(maxsize=64)
def _resolved(features: tuple[str, ...], exclude: tuple[str, ...], available: tuple[str, ...]) -> tuple[str, ...]:
    """See `TableOptions.resolve`; kept, because every message of a round asks again."""
    chosen: set[str] = set()
    for wanted in features:
        matching = {name for name in available if fnmatchcase(name, wanted)} if _is_pattern(wanted) else {wanted}
        if not matching <= set(available) or not matching:
            raise FeaturesMissing(
                f"estimator.options.features names {wanted!r}, which no numeric column of the table is "
                f"(there are {_some(available)}); correct the name or the pattern"
            )
        chosen |= matching
    kept = sorted(name for name in chosen if not any(fnmatchcase(name, pattern) for pattern in exclude))
    if not kept:
        raise FeaturesMissing("estimator.options.exclude leaves no feature; exclude fewer columns")
    return tuple(kept)


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _some(names: Sequence[str], most: int = 12) -> str:
    """The first of many names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
