"""Which thresholds a site has answered: two values near each other give away, by subtraction, who lies between them.

A threshold is a value of the iterate that a column is compared with patient by patient: the mean age of all sites, the
split of the gap. The rules, for each column:

* One group of patients. The first one asked about is the only one for good: sums over parts add up, whatever values
  they were asked at, so no other part, fold or whole is answered beside it. An honest campaign compares its test
  patients (with folds: everybody, once every fold has its model) and no others; the error of each round's model is
  asked for without a threshold.
* A new value is answered only if, against every value answered before, nobody lies between or at least the minimum
  count of patients do, those who are exactly at either value counted or not.
* As a refusal tells something too (that a few lie in between), only a few different values are tried at all; an honest
  coordinator needs one, and another one each time it starts over with other sites.

That a single value leaves few patients on one side is the analyses' own business: a Kaplan-Meier group is a cell, and
`Evaluation` folds a small side into the other. An analysis that can leave out what the threshold makes of its sums
(`Sparing`) answers without it where this account refuses, so that an honest run which meets the account of an earlier
one loses that figure and nothing else.

Of a table's preparation (`Counted`) only a bounded number of different iterates is answered, for good; what those say
does not depend on where they are (`_guarded_groups`, `_table_missing`).

Kept for good, at a deployed site for each data set and coordinator, over all campaigns: by column, so that analyses
share the account, and by run where the column comes from the run's model. A run has one model and, where the file asks
for a pooled bias line, one line.
Not accounted for: two runs whose models differ by a hair have gaps that differ by a hair and an account each (how often
a campaign is run is for the site's policy to bound); campaigns of another coordinator or data set on the same patients;
and a threshold at one site together with what other analyses tell of the same column.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np

from fedage.client.consent.accounts.account_file import ACCOUNTS_FILE, account_transaction
from fedage.client.disclosure.guard import Withheld
from fedage.client.site.sqlite import Connection, equal, insert, scalar, scalars
from fedage.common.analyses.base import Analysis, Counted, Iterate, Sparing, Thresholded, thresholds_of
from fedage.common.protocol.messages import payload_digest
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray, Statistic

logger = logging.getLogger(__name__)

MOST_VALUES = 4
"""Different values of one threshold that are tried, answered or not."""

_OF_THE_MODEL = frozenset(
    {"predicted_years", "raw_gap_years", "corrected_years", "gap_years", "cole_gap_years", "mape_floor"}
)
"""What is compared that the model has made; `mape_floor` weighs its errors."""


class Thresholds:
    """The account of one run of one campaign; the file is opened only when there is something to compare.

    Parameters
    ----------
    folder
        Where the account file is: a deployed site's home, or the campaign's state folder in simulation.
    account
        Data set and coordinator, over all campaigns; empty in simulation.
    run
        The run's name, told apart from those of other campaigns.
    patients
        Digest of whose cohort it is; two cohorts of the same size are not the same group.
    has_model
        Whether the columns of the model are the run's own; those of a table are the same for every run.
    minimum_count
        Fewest patients between two answered values; 1 keeps no account, as single patients may be shown then.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        minimum_count: int,
        account: str = "",
        patients: str = "",
        has_model: bool = True,
    ) -> None:
        self._path = folder / ACCOUNTS_FILE
        self._account, self._run, self._patients = account, run, patients
        self._of_the_run = _OF_THE_MODEL if has_model else frozenset[str]()
        self._minimum_count = minimum_count

    def accounted(self, analysis: Analysis, cohort: Cohort, iterate: Iterate, statistic: Statistic) -> Statistic:
        """The statistic if the iterate's thresholds may be answered; else what is left of it without them.

        Raises
        ------
        Withheld
            As `require`, for an analysis that has nothing to say without its thresholds.
        """
        try:
            self.require(analysis, cohort, iterate)
        except Withheld as refusal:
            if isinstance(analysis, Sparing):
                logger.warning("%s leaves out what its threshold makes of it: %s", analysis.name, refusal.detail)
                return analysis.spared(statistic)
            raise
        return statistic

    def require(self, analysis: Analysis, cohort: Cohort, iterate: Iterate) -> None:
        """Account for the iterate's thresholds, or withhold the answer to it.

        Raises
        ------
        Withheld
            Rule `iterate` if few patients lie between a value and an answered one, too many values were tried, or
            another group of patients was compared before; rule `store-unavailable` if the account cannot be kept.
        """
        if self._minimum_count == 1:
            return
        values = thresholds_of(analysis, iterate)
        if not values or not isinstance(analysis, Thresholded):
            return
        patients, members = analysis.compared(cohort), self._members(cohort, analysis.subset)
        for column, value in values.items():
            run = self._run if column in self._of_the_run else ""
            with account_transaction(self._path) as connection:
                refusal = self._refusal(connection, run, column, value, patients=patients[column], members=members)
            if refusal:  # raised outside of the transaction: that the value was tried stays on record
                logger.warning("%s: %s", analysis.name, refusal)
                # The same words whichever limit it was: how near a value lies is what the refusal must not tell.
                raise Withheld(
                    "iterate", f"this value of the threshold on {column} is not answered here; repeat one that was"
                )

    def require_counted(self, analysis: Analysis, cohort: Cohort, iterate: Iterate) -> None:
        """Account for an iterate of which only so many different ones are computed, before anything is.

        One that is refused counts too: whether it is tells of the patients, and would be asked without end.

        Raises
        ------
        Withheld
            Rule `iterate` if as many others were asked for; rule `store-unavailable` if the account cannot be kept.
        """
        if self._minimum_count > 1 and isinstance(analysis, Counted):
            members = self._members(cohort, analysis.subset)
            exchange, most = analysis.counted(iterate)
            if (grid := getattr(analysis, "edges_counted", None)) is not None:
                # Cells that a model's predictions make are another model's in another run.
                run = self._run if self._of_the_run else ""
                members = hashlib.sha256(f"{run} {members}".encode()).hexdigest()
                iterate = {**iterate, "grid": grid}
            self._require_few(analysis, members, exchange, most, iterate=iterate)

    def _require_few(self, analysis: Counted, members: str, exchange: str, most: int, *, iterate: Iterate) -> None:
        """Account for an iterate of which only so many different ones are answered, by step and patients for good."""
        # By what is computed where an analysis says so: a model under another name is the same model.
        step = str(getattr(analysis, "account", analysis.name))
        this = {"account": self._account, "step": step, "members": members, "exchange": exchange}
        digest = payload_digest({name: np.asarray(block, dtype=np.float64) for name, block in iterate.items()})
        with account_transaction(self._path) as connection:
            known = set(scalars(connection, f"SELECT digest FROM iterates WHERE {equal(this)}", this))
            if digest not in known and len(known) < most:
                insert(connection, "iterates", {**this, "digest": digest})
                return
        if digest not in known:
            raise Withheld("iterate", f"{most} different iterates of {step} ({exchange}) were answered before")

    def _members(self, cohort: Cohort, subset: str | None) -> str:
        """Digest of who is in a subset, by the site's own parts, which no message can change.

        Not of who has a plausible prediction: a model that makes one patient's implausible would be another group.
        """
        inside = np.ones(cohort.n, dtype=np.bool_) if subset is None else np.asarray(cohort[subset] == 1)
        whose = f"{self._patients} {cohort.n} ".encode()
        return hashlib.sha256(whose + np.packbits(inside).tobytes()).hexdigest()

    def require_line(self, *, slope: float, intercept: float) -> None:
        """Account for the bias line that a request brings; a run corrects by one line only.

        Raises
        ------
        Withheld
            Rule `bias-line` if the run has used another one; rule `store-unavailable`.
        """
        if self._minimum_count == 1:
            return
        with account_transaction(self._path) as connection:
            this = {"account": self._account, "run": self._run}
            chosen = f"SELECT slope, intercept FROM lines WHERE {equal(this)}"
            known = connection.execute(chosen, this).fetchone()
            if known is None:
                insert(connection, "lines", {**this, "slope": slope, "intercept": intercept})
        if known is not None and tuple(known) != (slope, intercept):
            raise Withheld("bias-line", "this run has used another bias line before; a run has one")

    def _refusal(
        self, connection: Connection, run: str, column: str, value: float, *, patients: FloatArray, members: str
    ) -> str:
        """Why the value is not answered; empty if it is."""
        this = {"account": self._account, "run": run, "column": column}
        known = scalar(connection, f"SELECT members FROM compared WHERE {equal(this)}", this)
        if known is None:
            insert(connection, "compared", {**this, "members": members})
        elif known != members:
            return f"another group of patients has been compared with a threshold on {column} before; there is one only"
        rows = connection.execute(f"SELECT value, answered FROM values_tried WHERE {equal(this)}", this)
        before = {value: bool(answered) for value, answered in rows}
        too_near = (
            f"fewer than {self._minimum_count} patients lie between this value of the threshold on {column} and one "
            "answered before; repeat that one"
        )
        if value in before:
            return "" if before[value] else too_near
        if len(before) >= MOST_VALUES:
            return f"{MOST_VALUES} values of the threshold on {column} were tried before; repeat one that was answered"
        counts = [count for other, answered in before.items() if answered for count in _between(patients, value, other)]
        near = any(0 < count < self._minimum_count for count in counts)
        insert(connection, "values_tried", {**this, "value": value, "answered": not near})
        return too_near if near else ""


def _between(patients: FloatArray, a: float, b: float) -> tuple[int, ...]:
    """How many patients lie between two values: without those exactly at either, with those at one, with both."""
    low, high = min(a, b), max(a, b)
    above, below = (patients > low, patients >= low), (patients < high, patients <= high)
    return tuple(int(np.count_nonzero(one & other)) for one in above for other in below)
