"""Taking over the accounts of earlier releases, which kept a file for each kind, data set, coordinator and campaign.

Attack: a site that is brought up to date begins empty accounts, and a coordinator asks everything once more. Rule: all
rows are taken over in one transaction before the first message, each file once; if one cannot be read, the site answers
nothing. The earlier files stay as they are. Residual risk: an earlier release that is started on the home again knows
of nothing that was answered since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedage.client.consent.accounts.account_file import ACCOUNTS_FILE, TABLES, AccountsUnavailable
from fedage.client.site.durable import DurableFile, named_failures, read_only
from fedage.client.site.sqlite import Connection, insert, insert_all, names_of_tables, scalars


@dataclass(frozen=True, kw_only=True)
class _OlderFile:
    """A file of an earlier release: its tables, and what the file itself said that is a column now."""

    path: Path
    tables: tuple[str, ...]
    scope: dict[str, str] = field(default_factory=dict)


def take_over_older_accounts(home: Path, *, lock_wait_s: float) -> None:
    """Copy the rows of every older account file of a site's home that was not taken over yet.

    Raises
    ------
    AccountsUnavailable
        If an older file cannot be read, or is not of a form that can be taken over.
    """
    older = list(_older_files(home))
    if not older:
        return
    file = DurableFile(home / ACCOUNTS_FILE, tables=TABLES, unavailable=AccountsUnavailable, lock_wait_s=lock_wait_s)
    try:
        with file.reading() as connection:
            known = _known(connection)
        if all(_name(home, each) in known for each in older):
            return
        with file.transaction() as connection:
            known = _known(connection)  # anew, as another process may have been faster
            for each in older:
                if (name := _name(home, each)) not in known:
                    for table, rows in _rows(each, connection):
                        insert_all(connection, table, rows)
                    insert(connection, "taken_over", {"file": name})
    finally:
        file.close()


def _older_files(home: Path) -> Iterator[_OlderFile]:
    if (path := home / "asked.db").is_file():
        yield _OlderFile(path=path, tables=("runs", "runs_of_data_set", "models"))
    for path in sorted(home.glob("accounts/*/thresholds.db")):
        of_thresholds = ("compared", "values_tried", "iterates", "lines")
        yield _OlderFile(path=path, tables=of_thresholds, scope={"account": path.parent.name})
    for path in sorted(home.glob("accounts/*/given-grids.db")):
        of_grids = ("given_years", "time_grids")
        yield _OlderFile(path=path, tables=of_grids, scope={"account": path.parent.name})
    for path in sorted(home.glob("state/*/table-grids.db")):
        yield _OlderFile(path=path, tables=("paths", "given"), scope={"campaign": path.parent.name})


def _name(home: Path, file: _OlderFile) -> str:
    return file.path.relative_to(home).as_posix()


def _known(connection: Connection) -> set[str]:
    return set(scalars(connection, "SELECT file FROM taken_over"))


def _rows(file: _OlderFile, connection: Connection) -> list[tuple[str, list[dict[str, Any]]]]:
    """The rows of a file as they are written down here, by table; tables without rows are left out."""
    rows_by_table = []
    with named_failures(file.path, unavailable=AccountsUnavailable), read_only(file.path) as older:
        names = names_of_tables(older)
        for table in (each for each in file.tables if each in names):
            columns = set(scalars(connection, "SELECT name FROM pragma_table_info(?)", (table,)))
            read = older.execute(f'SELECT * FROM "{table}"')
            rows = [{name: row[name] for name in row.keys() if name != "id"} | file.scope for row in read]  # noqa: SIM118
            if any(set(row) != columns for row in rows):
                raise AccountsUnavailable(
                    file.path,
                    f"its table {table} is not of the form that this release takes over; restore the file from a "
                    "backup",
                )
            if rows:
                rows_by_table.append((table, rows))
    return rows_by_table
