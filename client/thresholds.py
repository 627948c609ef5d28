"""Which thresholds a site has answered: two values near each other give away, by subtraction, who lies between them.

A threshold is a value of the iterate that a column is compared with patient by patient: the mean age of all sites, the
split of the gap. A new value is answered only if, against every value answered before, nobody changes sides or at least
the minimum count of patients do. As a refusal tells something too (that a few lie in between), only a few different
values are tried at all; an honest coordinator needs one, and another one each time a site leaves.

Kept in the campaign's state folder, for good: by subset and column, so that analyses which compare the same patients
share the account whatever the subset is called, and by run where the column comes from the run's model. A subset is
who is in it, as it is another one in each fold. A run has one model and, where the file asks for a pooled bias line,
one line.

Sums over disjoint parts add up: several parts asked at values within `NEAR_YEARS` of one another are one more subset,
their union, and a value for nearly that union has to keep its distance from theirs too. Each fold's own mean age is
farther from the other folds' than that, so an honest campaign with folds is answered throughout. (What parts asked at
values *farther* apart give away together is not accounted for.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Boolean, Column, Connection, Float, LargeBinary, MetaData, String, Table, select

from fedage.client._durable import DurableFile, StoreUnavailable
from fedage.client.guard import Withheld
from fedage.common.analyses.base import Analysis, Iterate, Thresholded, thresholds_of
from fedage.common.cohort import Cohort
from fedage.common.statistic import FloatArray

BoolArray = NDArray[np.bool_]

THRESHOLDS_FILE = "thresholds.db"
MOST_VALUES = 4
"""Different values of one threshold that are tried, answered or not."""
NEAR_YEARS = 0.01
"""Values of disjoint parts within this of one another count as one value of their union."""

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
    Column("members", LargeBinary, nullable=False),
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
        patients, inside = analysis.compared(cohort), _inside(cohort, analysis.subset)
        for column, value in values.items():
            run = self._run if column in _OF_THE_MODEL else ""
            with self._transaction() as connection:
                asked = _Asked(value, inside)
                refusal = self._account(
                    connection, run, column, asked, patients=patients[column], everybody=cohort[column]
                )
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

    def _account(
        self,
        connection: Connection,
        run: str,
        column: str,
        asked: _Asked,
        *,
        patients: FloatArray,
        everybody: FloatArray,
    ) -> str:
        """Why the value is not answered; empty if it is."""
        known = connection.execute(select(tried).where((tried.c.run == run) & (tried.c.column == column))).all()
        before = {row.value: row.answered for row in known if row.subset == asked.subset}
        too_near = (
            f"fewer than {self._minimum_count} patients lie between this value of the threshold on {column} and one "
            "answered before; repeat that one"
        )
        if asked.value in before:
            return "" if before[asked.value] else too_near
        if len(before) >= MOST_VALUES:
            return f"{MOST_VALUES} values of the threshold on {column} were tried before; repeat one that was answered"
        changed = [
            int(np.count_nonzero((patients > asked.value) != (patients > value)))
            for value, answered in before.items()
            if answered
        ]
        others = [
            _Asked(row.value, _unpacked(row.members, everybody.size))
            for row in known
            if row.answered and row.subset != asked.subset
        ]
        changed += _between(asked, others, everybody, minimum_count=self._minimum_count)
        near = any(0 < count < self._minimum_count for count in changed)
        connection.execute(
            tried.insert().values(
                run=run,
                subset=asked.subset,
                column=column,
                value=asked.value,
                answered=not near,
                members=np.packbits(asked.inside).tobytes(),
            )
        )
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


@dataclass(frozen=True)
class _Asked:
    """A value and who of the site's patients is in the subset that is compared with it, (n,)."""

    value: float
    inside: BoolArray

    @property
    def subset(self) -> str:
        """Digest of who is in it."""
        return hashlib.sha256(np.packbits(self.inside).tobytes()).hexdigest()


def _between(new: _Asked, answered: list[_Asked], column: FloatArray, *, minimum_count: int) -> list[int]:
    """How many patients lie between a value for a whole and the near values of parts that nearly make it up.

    The new one may be the whole, or the last part of one answered before. `answered` are other subsets than its own.
    """
    counts = []
    for whole in [new, *answered]:
        parts = [part for part in [*answered, new] if part is not whole and not np.any(part.inside & ~whole.inside)]
        for anchor in parts if whole is new else [new]:
            covered, between = np.zeros_like(whole.inside), 0
            near = [part for part in parts if abs(part.value - anchor.value) <= NEAR_YEARS]
            for part in sorted(near, key=lambda part: abs(part.value - anchor.value)):
                if np.any(part.inside & covered):
                    continue
                covered |= part.inside
                inside = column[part.inside]
                between += int(np.count_nonzero((inside > part.value) != (inside > whole.value)))
            if covered.any() and np.count_nonzero(whole.inside & ~covered) < minimum_count:
                counts.append(between)
    return counts


def _unpacked(members: bytes, n: int) -> BoolArray:
    """Who was in a subset; of a cohort that has changed since, nobody can be told to be the same."""
    bits = np.frombuffer(members, dtype=np.uint8)
    return np.unpackbits(bits, count=n).astype(np.bool_) if bits.size == -(-n // 8) else np.zeros(n, dtype=np.bool_)


def _inside(cohort: Cohort, subset: str | None) -> BoolArray:
    """Who is in a subset, (n,): by the site's own parts, which no message can change.

    Not who has a plausible prediction: a model that makes one patient's implausible would open a new account.
    """
    return np.ones(cohort.n, dtype=np.bool_) if subset is None else np.asarray(cohort[subset] == 1)
