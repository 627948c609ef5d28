"""Which thresholds a site has answered: two values near each other give away, by subtraction, who lies between them.

A threshold is a value of the iterate that a column is compared with patient by patient: the mean age of all sites, the
split of the gap. A new value is answered only if, against every value answered before, nobody changes sides or at least
the minimum count of patients do. As a refusal tells something too (that a few lie in between), only a few different
values are tried at all; an honest coordinator needs one, and another one each time a site leaves.

Kept in the campaign's state folder, for good: by subset and column, so that analyses which compare the same patients
share the account, and by run where the column comes from the run's model. A subset is who is in it, as it is another
one in each fold. A run has one model and, where the file asks for a pooled bias line, one line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import Boolean, Column, Connection, Float, MetaData, String, Table, select

from fedage.client._durable import DurableFile, StoreUnavailable
from fedage.client.guard import Withheld
from fedage.common.analyses.base import Analysis, Iterate, Thresholded, thresholds_of
from fedage.common.cohort import Cohort
from fedage.common.statistic import FloatArray

THRESHOLDS_FILE = "thresholds.db"
MOST_VALUES = 4
"""Different values of one threshold that are tried, answered or not."""

_OF_THE_MODEL = frozenset({"predicted_years", "raw_gap_years", "corrected_years", "gap_years", "cole_gap_years"})

metadata = MetaData()
tried = Table(
    "tried",
    metadata,
    Column("run", String(63), primary_key=True),
    Column("subset", String(128), primary_key=True),
    Column("column", String(63), primary_key=True),
    Column("value", Float, primary_key=True),
    Column("answered", Boolean, nullable=False),
)
lines = Table(
    "lines",
    metadata,
    Column("run", String(63), primary_key=True),
    Column("slope", Float, nullable=False),
    Column("intercept", Float, nullable=False),
)


class Thresholds:
    """The account of one run of one campaign; the file is opened only when there is something to compare.

    Parameters
    ----------
    folder
        The campaign's state folder at the site.
    run
        The run's name.
    minimum_count
        Fewest patients between two answered values; 1 keeps no account, as single patients may be shown then.
    """

    def __init__(self, folder: Path, *, run: str, minimum_count: int) -> None:
        self._path = folder / THRESHOLDS_FILE
        self._run = run
        self._minimum_count = minimum_count

    def require(self, analysis: Analysis, cohort: Cohort, iterate: Iterate) -> None:
        """Account for the iterate's thresholds, or withhold the answer to it.

        Raises
        ------
        Withheld
            Rule `iterate` if few patients lie between a value and an answered one, or too many values were tried;
            rule `store-unavailable` if the account cannot be kept.
        """
        values = thresholds_of(analysis, iterate)
        if self._minimum_count == 1 or not values or not isinstance(analysis, Thresholded):
            return
        patients = analysis.compared(cohort)
        for column, value in values.items():
            run = self._run if column in _OF_THE_MODEL else ""
            with self._transaction() as connection:
                key = (run, _members(cohort, analysis.subset), column)
                refusal = self._account(connection, key, value, patients=patients[column])
            if refusal:  # raised outside of the transaction: that the value was tried stays on record
                raise Withheld("iterate", refusal)

    def require_line(self, *, slope: float, intercept: float) -> None:
        """Account for the bias line that a request brings; a run corrects by one line only.

        Raises
        ------
        Withheld
            Rule `bias-line` if the run has used another one; rule `store-unavailable`.
        """
        if self._minimum_count == 1:
            return
        with self._transaction() as connection:
            known = connection.execute(select(lines).where(lines.c.run == self._run)).one_or_none()
            if known is None:
                connection.execute(lines.insert().values(run=self._run, slope=slope, intercept=intercept))
        if known is not None and (known.slope, known.intercept) != (slope, intercept):
            raise Withheld("bias-line", "this run has used another bias line before; a run has one")

    def _account(self, connection: Connection, key: tuple[str, str, str], value: float, *, patients: FloatArray) -> str:
        """Why the value is not answered; empty if it is."""
        run, subset, column = key
        same = (tried.c.run == run) & (tried.c.subset == subset) & (tried.c.column == column)
        before = {row.value: row.answered for row in connection.execute(select(tried).where(same))}
        too_near = (
            f"fewer than {self._minimum_count} patients lie between this value of the threshold on {column} and one "
            "answered before; repeat that one"
        )
        if value in before:
            return "" if before[value] else too_near
        if len(before) >= MOST_VALUES:
            return f"{MOST_VALUES} values of the threshold on {column} were tried before; repeat one that was answered"
        changed = [
            int(np.count_nonzero((patients > value) != (patients > known)))
            for known, answered in before.items()
            if answered
        ]
        near = any(0 < count < self._minimum_count for count in changed)
        connection.execute(tried.insert().values(run=run, subset=subset, column=column, value=value, answered=not near))
        return too_near if near else ""

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            file = DurableFile(self._path, tables=metadata)
            try:
                with file.transaction() as connection:
                    yield connection
            finally:
                file.close()
        except StoreUnavailable:
            raise Withheld("store-unavailable", "the site cannot keep account of what it has answered") from None


def _members(cohort: Cohort, subset: str | None) -> str:
    """Name of a subset with a digest of who is in it: of the site's own parts, which no message can change.

    Not of who has a plausible prediction: a model that makes one patient's implausible would open a new account.
    """
    inside = np.ones(cohort.n, dtype=np.bool_) if subset is None else cohort[subset] == 1
    return f"{subset or ''}:{hashlib.sha256(np.packbits(inside).tobytes()).hexdigest()[:32]}"
