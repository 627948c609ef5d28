"""The median of all sites without anybody's value: two histograms in which no small number of patients stands alone.

A site sorts its patients by value and cuts them into runs of at least `minimum_count`. Of each run it gives only the
grid cell of its lowest and of its highest value, so all patients of the run are known to lie between the two. The
median of all lower ends and the median of all upper ends then enclose the true median, whatever it is; with
`minimum_count` 1 they are one grid cell apart. [own]
"""

from __future__ import annotations

import numpy as np

from fedage.common.analyses.columns import MAX_PATIENTS
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

GRID_YEARS = 0.25
_LOWEST, _BINS = -60.0, 480
HISTOGRAM = Layout(
    (
        Field("lower", (_BINS,), lower=0.0, upper=MAX_PATIENTS, whole=True),
        Field("upper", (_BINS,), lower=0.0, upper=MAX_PATIENTS, whole=True),
    )
)


def histograms(values: FloatArray, *, minimum_count: int) -> Statistic:
    """One site's two histograms of values (n,) in years; those beyond ±60 count in the outermost cells."""
    runs = max(values.size // minimum_count, 1)
    starts = np.arange(runs) * minimum_count
    ends = np.append(starts[1:], values.size)
    bins = np.clip(np.floor((np.sort(values) - _LOWEST) / GRID_YEARS), 0, _BINS - 1).astype(np.intp)
    sizes = ends - starts if values.size else np.zeros(0)
    lower, upper = (bins[starts], bins[ends - 1]) if values.size else (bins, bins)
    return Statistic.of(
        HISTOGRAM,
        {
            "lower": np.bincount(lower, weights=sizes, minlength=_BINS).astype(np.float64),
            "upper": np.bincount(upper, weights=sizes, minlength=_BINS).astype(np.float64),
        },
        [Cell(int(size), "patients whose gap lies between two values") for size in sizes],
    )


def bracket(total: Statistic) -> tuple[float, float] | None:
    """Two grid values that enclose the median of all sites, or None if there is nobody."""
    n = float(total["lower"].sum())
    if n < 1:
        return None
    low = int(np.searchsorted(np.cumsum(total["lower"]), n / 2))
    high = int(np.searchsorted(np.cumsum(total["upper"]), n / 2))
    return _LOWEST + low * GRID_YEARS, _LOWEST + (high + 1) * GRID_YEARS
