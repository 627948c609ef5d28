"""Which intervals of survival tables a site has told of: two grids of the same patients, subtracted, single some out.

An interval is told only if every cell of it holds nobody or the minimum count (`fedage.common.analyses.table_grid`).
Two different grids could still be subtracted from each other, and questions about where intervals may end could be
slid along the patients. The rules:

* In a run, the questions follow one path: settled ends stay, only ends that this site has named as tellable are
settled,
  and the next end asked about never goes back. Between two starts of questions there are at least the minimum count of
  patients with an event, or none.
* The first ends of which tables are given are the only ones, or some of them, for every run of the campaign. Later
  questions are answered within them, so that an honest run with other sites gets the same grid or a coarser one.

Kept in the campaign's state folder, for good. Not accounted for: another campaign with other table times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, delete, select

from fedage.client._durable import DurableFile, StoreUnavailable
from fedage.client.guard import Withheld
from fedage.common.analyses.base import Analysis, GridAsked, Gridded, Iterate
from fedage.common.statistic import Statistic

TABLE_GRIDS_FILE = "table-grids.db"
RULE = "table-grid"

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
    """

    def __init__(self, folder: Path, *, run: str, minimum_count: int) -> None:
        self._path = folder / TABLE_GRIDS_FILE
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
        with self._transaction() as connection:
            frozen = connection.execute(select(given.c.ends)).scalar_one_or_none()
            refusal = self._refusal(connection, asked, frozen=None if frozen is None else _read(frozen))
            if not refusal and asked.following is None and frozen is None:
                connection.execute(given.insert().values(id=1, ends=_written(asked.ends)))
        if refusal:
            raise Withheld(RULE, refusal)
        return analysis if frozen is None else analysis.within(_read(frozen))

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
        with self._transaction() as connection:
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

    def _refusal(self, connection: Connection, asked: GridAsked, *, frozen: tuple[int, ...] | None) -> str:
        """Why the iterate is not answered; empty if it is. It follows from what was told before, not from patients."""
        if frozen is not None:
            return (
                ""
                if set(asked.ends) <= set(frozen)
                else "tables of other intervals were given before in this campaign; those, or some of their ends, are "
                "the only ones"
            )
        last = connection.execute(select(paths).where(paths.c.run == self._run)).one_or_none()
        settled, told = (_read(last.ends), _read(last.told)) if last is not None else ((), ())
        if not set(asked.ends) <= {*settled, *told}:
            return "the intervals are finer than, or others than, those that this site has said it can tell in this run"
        if asked.following is None or last is None:
            return ""
        repeated = asked.ends == settled and asked.following == last.following
        onwards = asked.ends[: len(settled)] == settled and asked.following > last.following
        return "" if repeated or onwards else "questions about the intervals go forward only, with the settled ends"

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


def _written(ends: tuple[int, ...]) -> str:
    return " ".join(str(end) for end in ends)


def _read(text: str) -> tuple[int, ...]:
    return tuple(int(end) for end in text.split())
