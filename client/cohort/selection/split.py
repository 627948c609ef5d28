"""Divides patients into parts or folds by a uniform number that each has by keyed hash."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedage.common.campaign.types import Fractions
from fedage.common.statistics.statistic import FloatArray

Mask = NDArray[np.bool_]


def split(split_uniform: FloatArray, fractions: Fractions) -> tuple[Mask, Mask, Mask]:
    """Train, validation and test masks (n,): every patient in exactly one, whoever else there is."""
    parts = (fractions.train, fractions.validation, fractions.test)
    upper_bounds = np.cumsum(parts)
    upper_bounds[max(part for part in range(3) if parts[part] > 0) :] = 1.0  # fractions may sum to a little under 1
    part = np.searchsorted(upper_bounds, split_uniform, side="right")
    return part == 0, part == 1, part == 2


def folds(split_uniform: FloatArray, n_folds: int) -> NDArray[np.intp]:
    """The fold (n,) of each patient, 0 to k − 1."""
    return np.minimum((split_uniform * n_folds).astype(np.intp), n_folds - 1)
