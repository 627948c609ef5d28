"""How often a site is asked: the runs of a campaign, and the models that a run brings for training.

A model is an iterate too. Whoever may send as many as they like asks as many questions of the same patients: the error
of a model that says 61 for everybody, then of one that says 62, and so on, tells their ages. So a run brings one model
for each round of each fold, as the file has them, and a campaign is run only so often (`requests.runs_per_campaign`).
Another campaign file on the same data is another name for the same questions: the runs of all of them are counted
together for each coordinator and data set (`requests.runs`).
"""

from __future__ import annotations

from pathlib import Path

from fedage.client.consent.accounts.account_file import ACCOUNTS_FILE, TABLES, AccountsUnavailable
from fedage.client.site.durable import LOCK_WAIT_S, DurableFile
from fedage.client.site.sqlite import equal, insert, scalar
from fedage.common.protocol.messages import Request, RequestRefused


class RunLimits:
    """The account of a site's home, kept for good.

    A campaign's runs count whatever data set it is approved for; those of all campaigns count by data set.

    Raises
    ------
    AccountsUnavailable
        If the file cannot be used; from every method too.
    """

    def __init__(self, home: Path, *, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self._file = DurableFile(
            home / ACCOUNTS_FILE, tables=TABLES, unavailable=AccountsUnavailable, lock_wait_s=lock_wait_s
        )

    def begin_run(
        self, request: Request, *, at_most: int, coordinator: str, data_set: str, at_most_in_all: int
    ) -> None:
        """Account for the run of a request.

        Parameters
        ----------
        at_most
            Runs of this campaign file.
        at_most_in_all
            Runs of all campaign files that this coordinator asks of this data set.

        Raises
        ------
        RequestRefused
            Rule `runs` if it is a new one and as many of the campaign, or of all, were begun before.
        """
        account = {"coordinator": coordinator, "data_set": data_set}
        this = {"digest": request.digest, "run": request.run}
        count_this = f"SELECT count(*) FROM runs WHERE {equal(this)}"
        with self._file.reading() as connection:  # which waits for nobody who writes into another account
            if scalar(connection, count_this, this):
                return
        with self._file.transaction() as connection:
            if scalar(connection, count_this, this):
                return
            begun = scalar(connection, "SELECT count(*) FROM runs WHERE digest = :digest", this)
            in_all = scalar(connection, f"SELECT count(*) FROM runs_of_data_set WHERE {equal(account)}", account)
            if begun < at_most and in_all < at_most_in_all:
                insert(connection, "runs", this)
                insert(connection, "runs_of_data_set", account | this)
                return
        raise RequestRefused(
            "runs",
            f"this site answers {at_most} runs of a campaign, and {at_most_in_all} of all campaigns on a data set, and "
            "as many were begun; its administrator may allow more (runs_per_campaign and runs in [requests] of "
            "policy.toml)",
        )

    def bring_model(self, request: Request, *, model: str) -> None:
        """Account for the model of a training request, given by its digest.

        Raises
        ------
        RequestRefused
            Rule `another-model` if the run has brought another one for this round and fold.
        """
        values = {"digest": request.digest, "run": request.run, "fold": request.fold, "round": request.round}
        with self._file.transaction() as connection:
            known = scalar(connection, f"SELECT model FROM models WHERE {equal(values)}", values)
            if known is None:
                insert(connection, "models", {**values, "model": model})
        if known not in (None, model):
            raise RequestRefused("another-model", "this run has brought another model for this round; start a new run")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
