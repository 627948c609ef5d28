"""SQLite as the site's files use it: connections that are kept, transactions begun by hand, rows by their names.

Values are always parameters of a statement, never part of its text; names of tables and columns in it are ours. The
driver is asked directly, as a command line that loads an object mapper first takes a third of a second longer.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

Connection = sqlite3.Connection
Row = sqlite3.Row
Tables = Mapping[str, Sequence[str]]
"""By the name of a table, the statements that make it and its indexes."""
Values = Mapping[str, Any]


def connect(file: Path, *, wait_s: float, options: str = "") -> Connection:
    """A connection to a file that begins no transaction by itself; `options` are those of SQLite's addresses."""
    address = f"{file.resolve().as_uri()}?{options}"
    connection = sqlite3.connect(address, timeout=wait_s, isolation_level=None, check_same_thread=False, uri=True)
    connection.row_factory = Row
    return connection


class Connections:
    """Connections to one file, each used by one thread at a time and kept for the next. Safe to use from several
    threads.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._idle: list[Connection] = []

    @contextmanager
    def transaction(self, begin: str) -> Iterator[Connection]:
        """A transaction begun by `BEGIN` or `BEGIN IMMEDIATE`: committed when the block ends, or nothing is written."""
        connection = None
        with suppress(IndexError):
            connection = self._idle.pop()
        connection = connection or self._connect()
        try:
            connection.execute(begin)
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            connection.close()  # which takes back what was not committed
            raise
        self._idle.append(connection)

    def close(self) -> None:
        """Close the connections that nobody uses now."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


def placed(values: Iterable[str]) -> str:
    """Values as one parameter, of which `IN (SELECT value FROM json_each(?))` reads them, however many there are."""
    return json.dumps(list(values))


def scalar(connection: Connection, statement: str, values: Values | Sequence[Any] = ()) -> Any:
    """The first value of the first row; None if there is no row."""
    row = connection.execute(statement, values).fetchone()
    return None if row is None else row[0]


def scalars(connection: Connection, statement: str, values: Values | Sequence[Any] = ()) -> list[Any]:
    """The first value of every row."""
    return [row[0] for row in connection.execute(statement, values)]


def equal(values: Iterable[str]) -> str:
    """A condition: columns of these names have the values given as parameters of these names."""
    return " AND ".join(f'"{name}" = :{name}' for name in values)


def insert(connection: Connection, table: str, values: Values) -> int:
    """Write a row, by its columns; its number."""
    return int(connection.execute(_insertion(table, values), values).lastrowid or 0)


def insert_all(connection: Connection, table: str, rows: Sequence[Values]) -> None:
    """Write rows of the same columns."""
    if rows:
        connection.executemany(_insertion(table, rows[0]), rows)


def names_of_tables(connection: Connection) -> set[str]:
    """The tables that there are."""
    return set(scalars(connection, "SELECT name FROM sqlite_schema WHERE type = 'table'"))


def _insertion(table: str, names: Iterable[str]) -> str:
    columns = ", ".join(f'"{name}"' for name in names)
    return f'INSERT INTO "{table}" ({columns}) VALUES ({", ".join(f":{name}" for name in names)})'
