"""The accounts of what a site has answered: one file beside the audit log, by data set and coordinator.

Here are the runs of campaigns and their models (`run_limits`), thresholds and bias lines (`thresholds`), and the
intervals and time grids of tables (`table_grids`), each with tables of its own. Every row names what it counts for: an
account (a data set and a coordinator), or a campaign whatever data set it is approved for. A simulated site keeps the
same file in its state folder.

Kept elsewhere, and why:

* `nonces.db`: whether a message was answered before is asked before its campaign, and so its data set, is known; it
  forgets whole runs when it is full, which an account never does.
* `accounts/released-columns.db`: over all coordinators and data sets, as subtraction works across them; its values are
  large, and writing them would hold up every other account.
* Models of a run and predictions (`model_continuity`, `predictions`): arrays of a run, in files that are replaced as a
  whole.
* `snapshots.db` and `ledger.db`: cohorts and ε have rules over all campaigns, and are written at approval and before a
  private training only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, MetaData

from fedage.client.disclosure.guard import Withheld
from fedage.client.site.durable import DurableFile, StoreUnavailable

ACCOUNTS_FILE = "accounts.db"

metadata = MetaData()
"""The tables of all accounts in the file; each module of this package adds its own."""


class AccountsUnavailable(StoreUnavailable):
    """The accounts cannot be read or written: nothing may be answered."""


@contextmanager
def account_transaction(path: Path, *, tables: MetaData = metadata) -> Iterator[Connection]:
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
