"""Which intervals of survival tables a site has told of: two grids of the same patients, subtracted, single some out.

An interval is told only if every cell of it holds nobody or the minimum count
(`fedage.common.analyses.survival.table_grid`). Two different grids could still be subtracted from each other, and
questions about where intervals may end could be slid along the patients. The rules:

* In a run, the questions follow one path: settled ends stay, only ends that this site has named as tellable are
  settled, and the next end asked about never goes back. Between two starts of questions there are at least the minimum
  count of patients with an event, or none.
* The first ends of which tables are given are the only ones, or some of them, for every run of the campaign. Later
  questions are answered within them, so that an honest run with other sites gets the same grid or a coarser one.
* At a deployed site the same holds for all campaigns of the coordinator on the same patients and follow-up times, in
  years: table times 1 and 1.03 of two files would tell who leaves between them. Other groups, strata and events of the
  same times are allowed.
* Follow-up times are rounded to one grid for all these campaigns: sums of a model by site at grids of 0.25 and 0.250004
  years differ by what changes when one patient enters another slot.

The path of questions is kept in the campaign's state folder, what was given in the account of the data set and its
coordinator, both for good. Residual risk: campaigns that have not taken a table follow a path of questions each;
cohorts of other patients have other grids; a second column with nearly the same follow-up times is not recognised.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import Column, Connection, Float, Integer, MetaData, String, Table, delete, select

from fedage.client.consent.accounts.account_file import account_transaction
from fedage.client.disclosure.guard import Withheld
from fedage.common.analyses.base import Analysis, GridAsked, Gridded, Iterate, Rounding
from fedage.common.statistics.statistic import Statistic

TABLE_GRIDS_FILE = "table-grids.db"
GIVEN_FILE = "given-grids.db"
RULE = "table-grid"
TIME_GRID_RULE = "time-grid"

metadata = MetaData()
paths = Table(
    "paths",
    metadata,
    Column("run", String(128), primary_key=True),
    Column("ends", String, nullable=False),
    Column("following", Integer, nullable=False),
    Column("told", String, nullable=False),
)
given = Table("given", metadata, Column("id", Integer, primary_key=True), Column("ends", String, nullable=False))

account_metadata = MetaData()
given_years = Table(
    "given_years",
    account_metadata,
    Column("patients", String(64), primary_key=True),
    Column("time", String(128), primary_key=True),
    Column("years", String, nullable=False),
)
time_grids = Table(
    "time_grids",
    account_metadata,
    Column("patients", String(64), primary_key=True),
    Column("time", String(128), primary_key=True),
    Column("years", Float, nullable=False),
)


class TableGrids:
    """The account of one run of one campaign; the file is opened only when there is something to account for.

    Parameters
    ----------
    folder
        The campaign's state folder at the site.
    run
        The run's name.
    minimum_count
        Fewest patients of a cell; 1 keeps no account, as single patients may be shown then.
    account
        Where a deployed site keeps account over all campaigns; None where the campaign's folder is all there is.
    patients
        Digest of whose cohort it is.
    """

    def __init__(
        self, folder: Path, *, run: str, minimum_count: int, account: Path | None = None, patients: str = ""
    ) -> None:
        self._path = folder / TABLE_GRIDS_FILE
        self._account_path = None if account is None else account / GIVEN_FILE
        self._patients = patients
        self._run = run
        self._minimum_count = minimum_count

    def accounted(self, analysis: Analysis, iterate: Iterate) -> Analysis:
        """The analysis that may answer this iterate, within the intervals given before if there are any.

        Raises
        ------
        Withheld
            Rule `table-grid` if the iterate leaves the run's path, or asks for tables of other intervals than those
            settled or given before; rule `store-unavailable` if the account cannot be kept.
        """
        asked = self._asked(analysis, iterate)
        if asked is None or not isinstance(analysis, Gridded):
            return analysis
        with account_transaction(self._path, tables=metadata) as connection, self._account() as account:
            kept = connection.execute(select(given.c.ends)).scalar_one_or_none()
            in_years = None if account is None else self._given_in_years(account, analysis)
            frozen = _within(analysis.times, None if kept is None else _read(kept), in_years)
            refusal = self._refusal(connection, asked, times=analysis.times, frozen=frozen)
            if not refusal and asked.following is None:
                if kept is None:
                    connection.execute(given.insert().values(id=1, ends=_written(asked.ends)))
                if account is not None and in_years is None:
                    self._give(account, analysis, asked.ends if frozen is None else frozen)
        if refusal:
            raise Withheld(RULE, refusal)
        return analysis if frozen is None else analysis.within(frozen)

    def require_rounding(self, analysis: Analysis) -> None:
        """Account for the grid to which the analysis rounds the follow-up times.

        Raises
        ------
        Withheld
            Rule `time-grid` if times of these patients were rounded to another grid before; rule `store-unavailable`.
        """
        rounding = analysis.rounding if isinstance(analysis, Rounding) else None
        if self._minimum_count == 1 or rounding is None:
            return
        column, years = rounding
        where = (time_grids.c.patients == self._patients) & (time_grids.c.time == column)
        with self._account() as account:
            if account is None:
                return
            known = account.execute(select(time_grids.c.years).where(where)).scalar_one_or_none()
            if known is None:
                account.execute(time_grids.insert().values(patients=self._patients, time=column, years=years))
        if known not in (None, years):
            raise Withheld(
                TIME_GRID_RULE,
                "sums of another grid of follow-up times of these patients were given before; that grid "
                "(survival.time_grid_years) is the only one",
            )

    def answered(self, analysis: Analysis, iterate: Iterate, statistic: Statistic) -> None:
        """Remember which ends the site has named in its answer."""
        asked = self._asked(analysis, iterate)
        if asked is None or asked.following is None:
            return
        named = np.flatnonzero(statistic["next_end"])
        told: tuple[int, ...] = ()
        if named.size and named[0] == asked.following:
            single = int(np.flatnonzero(statistic["single_intervals"])[0])
            told = tuple(range(asked.following, asked.following + single + 1))
            if not asked.ends and not statistic.scalar("start_together"):
                told = (0, *told)
        with account_transaction(self._path, tables=metadata) as connection:
            connection.execute(delete(paths).where(paths.c.run == self._run))
            connection.execute(
                paths.insert().values(
                    run=self._run, ends=_written(asked.ends), following=asked.following, told=_written(told)
                )
            )

    def _asked(self, analysis: Analysis, iterate: Iterate) -> GridAsked | None:
        if self._minimum_count == 1 or not isinstance(analysis, Gridded):
            return None
        return analysis.grid_asked(iterate)

    def _refusal(
        self, connection: Connection, asked: GridAsked, *, times: tuple[float, ...], frozen: tuple[int, ...] | None
    ) -> str:
        """Why the iterate is not answered; empty if it is. It follows from what was told before, not from patients."""
        if frozen is not None:
            return (
                ""
                if set(asked.ends) <= set(frozen) and any(times[end] > 0 for end in frozen)
                else "tables of other intervals were given before of these patients; those, or some of their ends, are "
                "the only ones"
            )
        last = connection.execute(select(paths).where(paths.c.run == self._run)).one_or_none()
        settled, told = (_read(last.ends), _read(last.told)) if last is not None else ((), ())
        if not set(asked.ends) <= {*settled, *told}:
            return (
                "these intervals are none that this site has said it can tell in this run; it says so of none in which "
                "too few patients have the event, leave or stay"
            )
        if asked.following is None or last is None:
            return ""
        repeated = asked.ends == settled and asked.following == last.following
        onwards = asked.ends[: len(settled)] == settled and asked.following > last.following
        return "" if repeated or onwards else "questions about the intervals go forward only, with the settled ends"

    def _given_in_years(self, account: Connection, analysis: Gridded) -> frozenset[float] | None:
        """The ends of which tables were given in any campaign, in years; None if none were."""
        where = (given_years.c.patients == self._patients) & (given_years.c.time == analysis.time)
        known = account.execute(select(given_years.c.years).where(where)).scalar_one_or_none()
        return None if known is None else frozenset(map(float, known.split()))

    def _give(self, account: Connection, analysis: Gridded, ends: tuple[int, ...]) -> None:
        # Exact in text, as an end a hair before another one leaves out who is at it: equal only if every bit is.
        years = " ".join(repr(float(analysis.times[end])) for end in ends)
        account.execute(given_years.insert().values(patients=self._patients, time=analysis.time, years=years))

    @contextmanager
    def _account(self) -> Iterator[Connection | None]:
        """A transaction in the account over all campaigns; None where there is none."""
        if self._account_path is None:
            yield None
            return
        with account_transaction(self._account_path, tables=account_metadata) as connection:
            yield connection


def _within(
    times: tuple[float, ...], kept: tuple[int, ...] | None, in_years: frozenset[float] | None
) -> tuple[int, ...] | None:
    """The table times (indices) that the campaign's own account and that of all campaigns leave; None for all."""
    if in_years is None:
        return kept
    candidates = range(len(times)) if kept is None else kept
    return tuple(end for end in candidates if times[end] in in_years)


def _written(ends: tuple[int, ...]) -> str:
    return " ".join(str(end) for end in ends)


def _read(text: str) -> tuple[int, ...]:
    return tuple(int(end) for end in text.split())
