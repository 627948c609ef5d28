"""The groups and strata of survival tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.cohort import Cohort


def groups_of_gap(cohort: Cohort, gap: str | None, split: float) -> tuple[NDArray[np.intp], int]:
    """The group of each patient, low (0) or high (1), and how many groups there are."""
    if not gap:
        return np.zeros(cohort.n, dtype=np.intp), 1
    return (cohort[gap] > split).astype(np.intp), 2


def stratum_of(cohort: Cohort, columns: tuple[str, ...], levels: tuple[tuple[float, ...], ...]) -> NDArray[np.intp]:
    """Number of each patient's stratum (n,); −1 for a value that is no level."""
    stratum, known = np.zeros(cohort.n, dtype=np.intp), np.ones(cohort.n, dtype=bool)
    for column, values in zip(columns, levels, strict=True):
        equal = cohort[column][:, None] == np.asarray(values)
        known &= equal.any(axis=1)
        stratum = stratum * len(values) + equal.argmax(axis=1)
    return np.where(known, stratum, -1)
