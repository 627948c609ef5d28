"""One transaction in an account of what a site has answered; without it nothing may be answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, MetaData

from fedage.client.disclosure.guard import Withheld
from fedage.client.site.durable import DurableFile, StoreUnavailable


@contextmanager
def account_transaction(path: Path, *, tables: MetaData) -> Iterator[Connection]:
    """A transaction in the account at `path`, which is made with these tables if it is not there.

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
