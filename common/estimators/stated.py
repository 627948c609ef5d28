"""A standardisation that follows from the campaign file alone: of stated ranges, so that no patient is summed for it.

Legend: p features, x a feature with the stated range [low, high]: mean (low + high) / 2, SD (high − low) / 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.errors import FedAgeError
from fedage.common.estimators.ridge import FEATURE, AgeScale
from fedage.common.statistics.statistic import FloatArray

Range = tuple[float, float]
IS_MALE = "is_male"
_SDS = 4.0
"""SDs in a range."""


class RangeMissing(FedAgeError):
    """A feature has no stated range."""


def is_range(stated: Range) -> bool:
    """Whether it is two finite numbers in order."""
    return bool(np.isfinite(stated).all() and stated[0] < stated[1])


def check_stated(
    *, is_stated: bool, ranges: Mapping[str, Range], age_range_years: Range | None, scale: AgeScale
) -> None:
    """Raise `ValueError` for ranges that are none, are missing, or have no effect."""
    ages = age_range_years
    if not is_stated:
        if ranges or ages is not None:
            given = "ranges" if ranges else "age_range_years"
            raise ValueError(f'{given} has no effect without start = "stated"; remove it')
        return
    if not ranges or ages is None:
        raise ValueError('start = "stated" needs ranges of the features and age_range_years; add them')
    if wrong := [name for name, stated in ranges.items() if not is_range(stated)]:
        raise ValueError(f"ranges.{wrong[0]} must be two numbers, the smaller one first")
    if not (is_range(ages) and scale.usable(np.array(ages)).all()):
        raise ValueError(f"age_range_years={list(ages)} must be two ages on the age scale, the younger one first")


def ranges_of(columns: Sequence[str], ranges: Mapping[str, Range]) -> FloatArray:
    """The range (p, 2) of each column of a row: that of the first name or pattern that fits.

    Raises
    ------
    RangeMissing
    """
    from_ranges = []
    for column in columns:
        name = column.removeprefix(FEATURE)
        fitting = [stated for pattern, stated in ranges.items() if fnmatchcase(name, pattern)]
        if column == IS_MALE and not fitting:
            fitting = [(0.0, 1.0)]
        if not fitting:
            raise RangeMissing(
                f"estimator.options.ranges states no range of the feature {name!r}; add one, by name or pattern"
            )
        from_ranges.append(fitting[0])
    return np.array(from_ranges, dtype=np.float64).reshape(-1, 2)


def stated_standard(
    columns: Sequence[str], ranges: Mapping[str, Range], *, scale: AgeScale, age_range_years: Range
) -> dict[str, NDArray[Any]]:
    """Medians, means and units (p,), and the middle and SD of age on its scale.

    Raises
    ------
    RangeMissing
    """
    stated = ranges_of(columns, ranges)
    low, high = scale.from_years(np.array(age_range_years, dtype=np.float64))
    middle = stated.mean(axis=1)
    return {
        "medians": middle,
        "means": middle,
        "units": _SDS / (stated[:, 1] - stated[:, 0]),
        "coefficients": np.zeros(len(stated)),
        "intercept": np.array([(low + high) / 2]),
        "age_sd": np.array([(high - low) / _SDS]),
    }
