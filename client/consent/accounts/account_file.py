"""The accounts of what a site has answered: one file beside the audit log, by data set and coordinator.

Here are the runs of campaigns and their models (`run_limits`), thresholds and bias lines (`thresholds`), and the
intervals and time grids of tables (`table_grids`), each with tables of its own. Every row names what it counts for: an
account (a data set and a coordinator), or a campaign whatever data set it is approved for. A simulated site keeps the
same file in its state folder.

Kept elsewhere, and why:

* `nonces.db`: whether a message was answered before is asked before its campaign, and so its data set, is known; it
  forgets whole runs when it is full, which an account never does.
* `accounts/released-columns.db` and `accounts/told-bins.db`: over all coordinators and data sets, as subtraction works
  across them; what they hold is large, and writing it would hold up every other account.
* Models of a run and predictions (`model_continuity`, `predictions`): arrays of a run, in files that are replaced as a
  whole.
* `snapshots.db` and `ledger.db`: cohorts and ε have rules over all campaigns, and are written at approval and before a
  private training only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedage.client.disclosure.guard import Withheld
from fedage.client.site.durable import DurableFile, StoreUnavailable
from fedage.client.site.sqlite import Connection, Tables

ACCOUNTS_FILE = "accounts.db"

TABLES: Tables = {
    # run_limits
    "runs": ("CREATE TABLE runs (digest VARCHAR(64) NOT NULL, run VARCHAR(63) NOT NULL, PRIMARY KEY (digest, run))",),
    "runs_of_data_set": (
        "CREATE TABLE runs_of_data_set (coordinator VARCHAR(64) NOT NULL, data_set VARCHAR(64) NOT NULL, "
        "digest VARCHAR(64) NOT NULL, run VARCHAR(63) NOT NULL, PRIMARY KEY (coordinator, data_set, digest, run))",
    ),
    "models": (
        "CREATE TABLE models (digest VARCHAR(64) NOT NULL, run VARCHAR(63) NOT NULL, fold INTEGER NOT NULL, "
        "round INTEGER NOT NULL, model VARCHAR(64) NOT NULL, PRIMARY KEY (digest, run, fold, round))",
    ),
    # thresholds
    "compared": (
        'CREATE TABLE compared (account VARCHAR(128) NOT NULL, run VARCHAR(128) NOT NULL, "column" VARCHAR(63) '
        'NOT NULL, members VARCHAR(64) NOT NULL, PRIMARY KEY (account, run, "column"))',
    ),
    "values_tried": (
        'CREATE TABLE values_tried (account VARCHAR(128) NOT NULL, run VARCHAR(128) NOT NULL, "column" VARCHAR(63) '
        "NOT NULL, value FLOAT NOT NULL, answered BOOLEAN NOT NULL, "
        'PRIMARY KEY (account, run, "column", value))',
    ),
    "iterates": (
        "CREATE TABLE iterates (account VARCHAR(128) NOT NULL, step VARCHAR(128) NOT NULL, members VARCHAR(64) "
        "NOT NULL, exchange VARCHAR(63) NOT NULL, digest VARCHAR(64) NOT NULL, "
        "PRIMARY KEY (account, step, members, exchange, digest))",
    ),
    "lines": (
        "CREATE TABLE lines (account VARCHAR(128) NOT NULL, run VARCHAR(63) NOT NULL, slope FLOAT NOT NULL, "
        "intercept FLOAT NOT NULL, PRIMARY KEY (account, run))",
    ),
    # table_grids
    "paths": (
        "CREATE TABLE paths (campaign VARCHAR(64) NOT NULL, run VARCHAR(128) NOT NULL, ends VARCHAR NOT NULL, "
        "following INTEGER NOT NULL, told VARCHAR NOT NULL, PRIMARY KEY (campaign, run))",
    ),
    "given": ("CREATE TABLE given (campaign VARCHAR(64) NOT NULL, ends VARCHAR NOT NULL, PRIMARY KEY (campaign))",),
    "given_years": (
        "CREATE TABLE given_years (account VARCHAR(128) NOT NULL, patients VARCHAR(64) NOT NULL, time VARCHAR(128) "
        "NOT NULL, years VARCHAR NOT NULL, PRIMARY KEY (account, patients, time))",
    ),
    "time_grids": (
        "CREATE TABLE time_grids (account VARCHAR(128) NOT NULL, patients VARCHAR(64) NOT NULL, time VARCHAR(128) "
        "NOT NULL, years FLOAT NOT NULL, PRIMARY KEY (account, patients, time))",
    ),
    # older_accounts: files of earlier releases whose rows are here, by their paths in the site's home
    "taken_over": ("CREATE TABLE taken_over (file VARCHAR NOT NULL, PRIMARY KEY (file))",),
}


class AccountsUnavailable(StoreUnavailable):
    """The accounts cannot be read or written: nothing may be answered."""


@contextmanager
def account_transaction(path: Path, *, tables: Tables = TABLES) -> Iterator[Connection]:
    """A transaction in the account file at `path`, which is made with these tables if it is not there.

    Raises
    ------
    Withheld
        Rule `store-unavailable` if the account cannot be read or written.
    """
    try:
        file = DurableFile(path, tables=tables)
        try:
            with file.transaction() as connection:
                yield connection
        finally:
            file.close()
    except StoreUnavailable:
        raise Withheld("store-unavailable", "the site cannot keep account of what it has answered") from None
