"""The scale on which a table's model is linear in age: years, or their logarithm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.columns import MAX_AGE_YEARS
from fedage.common.statistics.statistic import FloatArray

Scale = Literal["log", "linear"]

_SHORTEST_YEARS = 0.01
"""Least age + offset of which a logarithm is taken."""


@dataclass(frozen=True)
class AgeScale:
    """t = log(Ω + offset) or t = Ω, for ages Ω in years.

    Parameters
    ----------
    kind
        "log" or "linear".
    offset_years
        Added before the logarithm; of no effect on a linear scale.
    """

    kind: Scale = "log"
    offset_years: float = 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest t."""
        if self.kind == "linear":
            return 0.0, MAX_AGE_YEARS
        return math.log(_SHORTEST_YEARS), math.log(MAX_AGE_YEARS + self.offset_years)

    def usable(self, age_years: FloatArray) -> NDArray[np.bool_]:
        """Which ages (n,) have a place on the scale."""
        shortest = 0.0 if self.kind == "linear" else max(0.0, _SHORTEST_YEARS - self.offset_years)
        mask: NDArray[np.bool_] = (age_years >= shortest) & (age_years <= MAX_AGE_YEARS)
        return mask

    def from_years(self, age_years: FloatArray) -> FloatArray:
        """Ages (n,) to t."""
        return age_years if self.kind == "linear" else np.log(age_years + self.offset_years)

    def to_years(self, t: FloatArray) -> FloatArray:
        """Any t (n,) to ages between 0 and the greatest one."""
        inside = np.clip(t, *self.bounds)
        years = inside if self.kind == "linear" else np.exp(inside) - self.offset_years
        return np.clip(years, 0.0, MAX_AGE_YEARS)
