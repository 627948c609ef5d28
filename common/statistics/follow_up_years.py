"""Events by whole years of follow-up, and which years can be told apart.

Shape legend: n patients, Y years. A patient had the event *by year t* if it came at most t years after the exam, and
had not if followed for at least t years without it; whoever was censored before is unknown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray


def by_year(time_years: FloatArray, event: FloatArray, *, years: int) -> FloatArray:
    """1, 0 or NaN (unknown) by patient and year (n, Y).

    Examples
    --------
    >>> by_year(np.array([1.5, 2.0, 2.0, np.nan]), np.array([1.0, 0.0, 1.0, 0.0]), years=3)
    array([[ 0.,  1.,  1.],
           [ 0.,  0., nan],
           [ 0.,  1.,  1.],
           [nan, nan, nan]])
    """
    ends = np.arange(1, years + 1)
    time = np.where(time_years >= 0, time_years, np.nan)[:, None]
    had = (event == 1)[:, None]
    labels = np.where(had & (time <= ends), 1.0, np.where(time >= ends, 0.0, np.nan))
    labels[~(np.isfinite(time_years) & np.isfinite(event))] = np.nan
    return labels


def usable_years(time_years: FloatArray, event: FloatArray, *, years: int, minimum_count: int) -> NDArray[np.bool_]:
    """Which years (Y,) can be told apart: between one and the next, and by the first, nobody or at least the minimum
    count had the event, and nobody or as many were censored; as many remain. None where too few are known or unknown.

    From the first year on, each that can be told is.
    """
    told = np.zeros(years, dtype=np.bool_)
    known = np.isfinite(time_years) & np.isfinite(event) & (time_years >= 0)
    unknown = int(np.count_nonzero(~known))
    if np.count_nonzero(known) < minimum_count or 0 < unknown < minimum_count:
        return told
    time, had = time_years[known], event[known] == 1
    last_events = last_censored = 0
    for year in range(1, years + 1):
        events, censored = int((had & (time <= year)).sum()), int((~had & (time < year)).sum())
        steps = (events - last_events, censored - last_censored)
        if time.size - events - censored < max(minimum_count, 1):
            break
        if all(step == 0 or step >= minimum_count for step in steps):
            told[year - 1] = True
            last_events, last_censored = events, censored
    return told
