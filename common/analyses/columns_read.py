"""By which columns of a site's table, and of which patients, an analysis makes its sums.

A site keeps account of them over all campaigns (`fedage.client.consent.accounts.released_columns`): sums by two columns
that are equal but for one patient are subtracted, whichever campaigns they were asked in. It gives the columns that
left before to the analysis as columns of the cohort that no campaign file can name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.base import Analysis, Iterate
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray

ROW = "\x00row"
"""Cohort column with the place of each patient in the site's whole cohort."""
EARLIER = "\x00earlier "
"""How the cohort columns begin that hold columns whose sums left before; not finite where they did not."""


@dataclass(frozen=True, kw_only=True)
class ColumnsRead:
    """Columns behind sums.

    Parameters
    ----------
    rows
        Places (n,) of the patients in the site's cohort.
    needed
        Columns that the analysis cannot do without, such as times and events.
    judged
        Columns that the analysis holds to the influence rule itself, together with the earlier ones.
    made
        Values (patients of the cohort,) of those of `needed` that are not columns of the cohort as they stand.
    leave
        Those by which sums leave; None where the sites still agree on the columns and no sums do.
    """

    rows: NDArray[np.intp]
    needed: tuple[str, ...]
    judged: tuple[str, ...] = ()
    leave: tuple[str, ...] | None
    made: Mapping[str, FloatArray] = field(default_factory=dict)


@runtime_checkable
class ReadsColumns(Protocol):
    """An analysis that says by which columns it makes its sums."""

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:
        """The columns and patients behind the sums for this iterate; `cohort` has the column `ROW`."""


def columns_read(
    patients: Cohort,
    *,
    needed: tuple[str, ...],
    judged: tuple[str, ...] = (),
    made: Mapping[str, FloatArray] | None = None,
) -> ColumnsRead:
    """The columns of these patients, who are some of a cohort with the column `ROW`."""
    return ColumnsRead(
        rows=patients[ROW].astype(np.intp),
        needed=tuple(dict.fromkeys(needed)),
        judged=tuple(dict.fromkeys(judged)),
        leave=tuple(dict.fromkeys((*needed, *judged))),
        made=made or {},
    )


def columns_read_by(analysis: Analysis, cohort: Cohort, iterate: Iterate) -> ColumnsRead:
    """The columns of another analysis, whose sums one makes too.

    Raises
    ------
    TypeError
        If that one does not say which it reads.
    """
    if not isinstance(analysis, ReadsColumns):
        raise TypeError(f"{analysis.name} does not say which columns it reads")
    return analysis.columns_read(cohort, iterate)


def with_rows(cohort: Cohort) -> Cohort:
    """The cohort with the column `ROW`."""
    return cohort.with_columns(**{ROW: np.arange(cohort.n, dtype=np.float64)})


def with_earlier(cohort: Cohort, earlier: FloatArray) -> Cohort:
    """The cohort with columns (n, r) whose sums left before."""
    return cohort.with_columns(**{f"{EARLIER}{number}": column for number, column in enumerate(earlier.T)})


def earlier_columns(cohort: Cohort) -> FloatArray | None:
    """The columns (n, r) whose sums left before; None if there are none to compare with."""
    names = tuple(name for name in cohort.columns if name.startswith(EARLIER))
    return cohort.matrix(names) if names else None
