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

The path of questions is kept by campaign, whatever data set it is approved for, what was given by data set and
coordinator, both for good. Residual risk: campaigns that have not taken a table follow a path of questions each;
cohorts of other patients have other grids; a second column with nearly the same follow-up times is not recognised.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedage.client.consent.accounts.account_file import ACCOUNTS_FILE, account_transaction
from fedage.client.disclosure.guard import Withheld
from fedage.client.site.sqlite import Connection, equal, insert, scalar
from fedage.common.analyses.base import Analysis, GridAsked, Gridded, Iterate, Rounding
from fedage.common.statistics.statistic import Statistic

RULE = "table-grid"
TIME_GRID_RULE = "time-grid"


class TableGrids:
    """The account of one run of one campaign; the file is opened only when there is something to account for.

    Parameters
    ----------
    folder
        Where the account file is: a deployed site's home, or the campaign's state folder in simulation.
    campaign
        The digest of its file.
    run
        The run's name.
    minimum_count
        Fewest patients of a cell; 1 keeps no account, as single patients may be shown then.
    account
        Data set and coordinator, over all campaigns; None in simulation, which has one campaign.
    patients
        Digest of whose cohort it is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        minimum_count: int,
        campaign: str = "",
        account: str | None = None,
        patients: str = "",
    ) -> None:
        self._path = folder / ACCOUNTS_FILE
        self._campaign, self._run = campaign, run
        self._account, self._patients = account, patients
        self._minimum_count = minimum_count

    def accounted(self, analysis: Analysis, iterate: Iterate) -> Analysis:
        """The analysis that may answer this iterate, within the intervals given before if there are any.

        Raises
        ------
        Withheld
            Rule `table-grid` if the iterate leaves the run's path, or asks for tables of other intervals than those
            settled or given before; rule `store-unavailable` if the account cannot be kept.
        """
        question = self._question(analysis, iterate)
        if question is None or not isinstance(analysis, Gridded):
            return analysis
        with account_transaction(self._path) as connection:
            given_ends = scalar(connection, "SELECT ends FROM given WHERE campaign = ?", (self._campaign,))
            in_years = self._given_in_years(connection, analysis)
            frozen = _within(analysis.times, None if given_ends is None else _read(given_ends), in_years)
            refusal = self._refusal(connection, question, times=analysis.times, frozen=frozen)
            if not refusal and question.following is None:
                if given_ends is None:
                    insert(connection, "given", {"campaign": self._campaign, "ends": _written(question.ends)})
                if self._account is not None and in_years is None:
                    self._give(connection, analysis, question.ends if frozen is None else frozen)
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
        if self._minimum_count == 1 or rounding is None or self._account is None:
            return
        column, years = rounding
        this = self._patients_and_time(column)
        with account_transaction(self._path) as connection:
            known = scalar(connection, f"SELECT years FROM time_grids WHERE {equal(this)}", this)
            if known is None:
                insert(connection, "time_grids", {**this, "years": years})
        if known not in (None, years):
            raise Withheld(
                TIME_GRID_RULE,
                "sums of another grid of follow-up times of these patients were given before; that grid "
                "(survival.time_grid_years) is the only one",
            )

    def answered(self, analysis: Analysis, iterate: Iterate, statistic: Statistic) -> None:
        """Remember which ends the site has named in its answer."""
        question = self._question(analysis, iterate)
        if question is None or question.following is None:
            return
        named = np.flatnonzero(statistic["next_end"])
        tellable: tuple[int, ...] = ()
        if named.size and named[0] == question.following:
            single = int(np.flatnonzero(statistic["single_intervals"])[0])
            tellable = tuple(range(question.following, question.following + single + 1))
            if not question.ends and not statistic.scalar("start_together"):
                tellable = (0, *tellable)
        with account_transaction(self._path) as connection:
            connection.execute(f"DELETE FROM paths WHERE {equal(self._this_run)}", self._this_run)
            ends = {"ends": _written(question.ends), "told": _written(tellable)}
            insert(connection, "paths", {**self._this_run, "following": question.following, **ends})

    def _question(self, analysis: Analysis, iterate: Iterate) -> GridAsked | None:
        if self._minimum_count == 1 or not isinstance(analysis, Gridded):
            return None
        return analysis.grid_asked(iterate)

    def _refusal(
        self, connection: Connection, question: GridAsked, *, times: tuple[float, ...], frozen: tuple[int, ...] | None
    ) -> str:
        """Why the iterate is not answered; empty if it is. It follows from what was told before, not from patients."""
        if frozen is not None:
            return (
                ""
                if set(question.ends) <= set(frozen) and any(times[end] > 0 for end in frozen)
                else "tables of other intervals were given before of these patients; those, or some of their ends, are "
                "the only ones"
            )
        if question.of_total:
            return ""
        chosen = f"SELECT ends, told, following FROM paths WHERE {equal(self._this_run)}"
        last = connection.execute(chosen, self._this_run).fetchone()
        settled, tellable = (_read(last["ends"]), _read(last["told"])) if last is not None else ((), ())
        if not set(question.ends) <= {*settled, *tellable}:
            return (
                "these intervals are none that this site has said it can tell in this run; it says so of none in which "
                "too few patients have the event, leave or stay"
            )
        if question.following is None or last is None:
            return ""
        repeated = question.ends == settled and question.following == last["following"]
        onwards = question.ends[: len(settled)] == settled and question.following > last["following"]
        return "" if repeated or onwards else "questions about the intervals go forward only, with the settled ends"

    @property
    def _this_run(self) -> dict[str, str]:
        return {"campaign": self._campaign, "run": self._run}

    def _patients_and_time(self, time: str) -> dict[str, str]:
        return {"account": self._account or "", "patients": self._patients, "time": time}

    def _given_in_years(self, connection: Connection, analysis: Gridded) -> frozenset[float] | None:
        """The ends of which tables were given in any campaign, in years; None if none were, or in simulation."""
        if self._account is None:
            return None
        this = self._patients_and_time(analysis.time)
        known = scalar(connection, f"SELECT years FROM given_years WHERE {equal(this)}", this)
        return None if known is None else frozenset(map(float, known.split()))

    def _give(self, connection: Connection, analysis: Gridded, ends: tuple[int, ...]) -> None:
        # Exact in text, as an end a hair before another one leaves out who is at it: equal only if every bit is.
        years = " ".join(repr(float(analysis.times[end])) for end in ends)
        insert(connection, "given_years", {**self._patients_and_time(analysis.time), "years": years})


def _within(
    times: tuple[float, ...], given_ends: tuple[int, ...] | None, in_years: frozenset[float] | None
) -> tuple[int, ...] | None:
    """The table times (indices) that the campaign's own account and that of all campaigns leave; None for all."""
    if in_years is None:
        return given_ends
    candidates = range(len(times)) if given_ends is None else given_ends
    return tuple(end for end in candidates if times[end] in in_years)


def _written(ends: tuple[int, ...]) -> str:
    return " ".join(str(end) for end in ends)


def _read(text: str) -> tuple[int, ...]:
    return tuple(int(end) for end in text.split())
