"""What estimators on one row of a table share, whatever is fitted: their input, and which features they take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from fedage.common.analyses.preparation.age_scale import AgeScale
from fedage.common.estimators.base import ROW, Estimator, Input, Output
from fedage.common.estimators.ridge import ROW_INPUT
from fedage.common.estimators.table import FeatureOptions

if TYPE_CHECKING:
    import torch

Chosen = TypeVar("Chosen", bound=FeatureOptions)


class RowEstimator(Estimator, Generic[Chosen]):
    """An estimator on a row (p,) of features.

    Parameters
    ----------
    options
        The campaign file's.
    features
        Names of the features, once a table's columns are known.
    """

    inputs: tuple[Input, ...] = (ROW_INPUT,)

    def __init__(self, options: Chosen, features: tuple[str, ...] | None = None) -> None:
        self.options: Chosen = options
        self._features = features

    def for_table(self, columns: Sequence[str]) -> Self:
        """A copy that knows its features by name. Raises `FeaturesMissing`."""
        return type(self)(self.options, self.options.resolve(columns))

    def for_any_table(self, features: int = 1) -> Self:
        """A copy with so many features of no table."""
        return type(self)(self.options, tuple(f"feature {number}" for number in range(features)))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Predicted age, within the bounds of its scale."""
        return (self.options.age_output,)

    @property
    def row_columns(self) -> tuple[str, ...]:
        """The features' columns, and the sex's."""
        return self.options.row_columns(self._features)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """A row (p,)."""
        return {ROW: (len(self.row_columns),)}


def scaled(age_years: torch.Tensor, scale: AgeScale) -> torch.Tensor:
    """Ages (B,) in years on their scale; those below it, which the preparation leaves out, count as its lowest."""
    import torch

    if scale.kind == "linear":
        return age_years
    return torch.log((age_years + scale.offset_years).clamp(min=math.exp(scale.bounds[0])))


def years(output: torch.Tensor, scale: AgeScale) -> torch.Tensor:
    """Ages (B,) in years from (B,) on the scale, at least 0."""
    import torch

    lower, upper = scale.bounds
    inside = output.clamp(lower, upper)
    return (inside if scale.kind == "linear" else torch.exp(inside) - scale.offset_years).clamp(min=0.0)
