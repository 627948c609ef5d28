"""Who is followed for how long, and how times become a grid.

A Cox model by site sees every time rounded up to a multiple of the grid. A table counts every time at the first table
time that is not before it, and whoever is followed for longer than the last one as still followed there. What a site
tells of tables, and how the sites agree on their intervals, is in `table_grid`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.columns import in_subset, require_binary, usable
from fedage.common.statistics.cohort import EVENT_MEANING, Cohort
from fedage.common.statistics.statistic import FloatArray

_ROUNDING = 1e-9  # of a step: 1.1 / 0.1 is 11.000000000000002


@dataclass(frozen=True)
class FollowedPatients:
    """The patients a survival analysis takes.

    Parameters
    ----------
    cohort
        Complete in every needed column.
    time
        Follow-up (n,), in the unit of the outcome column (years).
    event
        (n,), true for an event, false for a censored patient.
    left_out
        Patients of the subset with a missing or impossible value.
    """

    cohort: Cohort
    time: FloatArray
    event: NDArray[np.bool_]
    left_out: int

    @property
    def n(self) -> int:
        """Number of patients followed."""
        return self.cohort.n


def followed(cohort: Cohort, *, subset: str | None, time: str, event: str, needed: tuple[str, ...]) -> FollowedPatients:
    """The patients of `subset` with a time ≥ 0, an event and every `needed` column; the others are left out, counted.

    Raises
    ------
    UnusableColumn
        If the event is coded otherwise than 1 and 0.
    """
    # Of the whole cohort, so that whether a column is refused does not depend on whom an analysis takes.
    require_binary(cohort, event, meaning=EVENT_MEANING)
    chosen = in_subset(cohort, subset)
    kept, left_out = usable(chosen, (time, event, *needed))
    valid = kept[time] >= 0
    left_out += int(np.count_nonzero(~valid))
    kept = kept.where(valid)
    return FollowedPatients(cohort=kept, time=kept[time], event=kept[event] == 1, left_out=left_out)


def round_up(time: FloatArray, grid: float) -> FloatArray:
    """Times (n,) rounded up to multiples of `grid`; as they are if `grid` is 0."""
    if grid == 0:
        return time
    rounded: FloatArray = np.ceil(time / grid - _ROUNDING) * grid
    return rounded


def table_index(time: FloatArray, table_times: tuple[float, ...]) -> NDArray[np.intp]:
    """For each time (n,) the index k of the first table time ≥ it, or T if it is beyond the last: at risk at 0 … k."""
    return np.searchsorted(np.asarray(table_times) * (1 + 1e-12), time, side="left")


def with_start(table_times: tuple[float, ...]) -> tuple[float, ...]:
    """The table times with 0 in front: who leaves at 0 was at risk there, and nobody has been followed for any time.

    Counted at the first table time instead, those patients tie with others, and a fit of exact times was off by 2e-4.

    Examples
    --------
    >>> with_start((1.0, 2.0)), with_start((0.0, 1.0))
    ((0.0, 1.0, 2.0), (0.0, 1.0))
    """
    return table_times if table_times and table_times[0] == 0 else (0.0, *table_times)


def after_start(times: Sequence[float]) -> list[float]:
    """The times above 0."""
    return [time for time in times if time > 0]


def check_table_times(table_times: tuple[float, ...], analysis: str) -> None:
    """Table times must be positive or zero, and rise."""
    if not table_times or min(table_times) < 0 or np.any(np.diff(table_times) <= 0):
        raise ValueError(f"{analysis}: table times must be at least one and rise, not {table_times}")
