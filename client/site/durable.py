"""A site's own SQLite files: what has been committed is on disk, and what goes wrong has a name.

Write-ahead logging with `synchronous=FULL` (one fsync a commit). A transaction takes the write lock when it begins, so
that reading and then writing is atomic between processes too; one that only reads waits for no writer.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fedage.client.site.sqlite import Connection, Connections, Tables, connect, names_of_tables
from fedage.common.errors import FedAgeError
from fedage.deploy.machine.atomic import sync

LOCK_WAIT_S = 60.0
"""How long a transaction waits for another process's.

A commit waits for the disk, and on a busy machine the process that holds the lock may not run for seconds. A message
has minutes, and one that fails for a lock costs the campaign a site.
"""
_ROOM_BYTES = 1_000_000
DISK_FULL = "DiskFull"
"""What a coordinator is told of a site whose disk is full, in place of an exception's type."""
_RETRY_S = 0.02
_on_disk = True

_REASONS = {
    sqlite3.SQLITE_BUSY: "locked by another process; end that process, or wait",
    sqlite3.SQLITE_LOCKED: "locked by another process; end that process, or wait",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "read-only; give the agent's user the right to write it and its folder",
    sqlite3.SQLITE_PERM: "not permitted; give the agent's user the right to write it",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; give the agent's user the right to write the folder",
    sqlite3.SQLITE_IOERR: "cannot be written (disk full, quota, or a disk error); check the disk",
    sqlite3.SQLITE_CORRUPT: "damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "not a database; restore it from a backup",
    sqlite3.SQLITE_ERROR: "not of the expected form; restore it from a backup",
}


class StoreUnavailable(FedAgeError):
    """One of the site's own files cannot be read or written. The message names the file and the mend.

    `disk_full` is whether that is all that is wrong.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.disk_full = reason == _REASONS[sqlite3.SQLITE_FULL]
        super().__init__(f"{path.name} in {path.parent}: {reason}")


class DurableFile:
    """One SQLite file with its tables.

    Parameters
    ----------
    path
        The file; made with mode 0600 if it does not exist, its folder must.
    tables
        Made if they do not exist.
    unavailable
        What is raised when the file cannot be read or written.
    lock_wait_s
        How long a transaction waits for another process's.
    """

    def __init__(
        self,
        path: Path,
        *,
        tables: Tables,
        unavailable: type[StoreUnavailable] = StoreUnavailable,
        lock_wait_s: float = LOCK_WAIT_S,
    ) -> None:
        self.path = path
        self._unavailable = unavailable
        with self._named():
            _make(path)
        self._connections = Connections(lambda: _connected(path, lock_wait_s=lock_wait_s))
        with self.reading() as connection:
            is_complete = tables.keys() <= names_of_tables(connection)
        if not is_complete:
            with self.transaction() as connection:
                there = names_of_tables(connection)  # anew, as another process may have been faster
                for statement in (each for name in tables.keys() - there for each in tables[name]):
                    connection.execute(statement)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its first moment; committed, and on disk, when the block ends.

        Raises
        ------
        StoreUnavailable
            (or the type given) if the file is locked, full, read-only or damaged. Nothing is written then.
        """
        with self._named(), self._connections.transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that must not write: it sees one state of the file, and waits for nobody who writes.

        Raises
        ------
        StoreUnavailable
            As `transaction`, but not for another process's transaction.
        """
        with self._named(), self._connections.transaction("BEGIN") as connection:
            yield connection

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        with named_failures(self.path, unavailable=self._unavailable):
            yield


@contextmanager
def named_failures(path: Path, *, unavailable: type[StoreUnavailable]) -> Iterator[None]:
    """Raise `unavailable` with a reason in words for whatever SQLite or the file system refuses."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISUSE):
            raise  # a mistake of ours, not of the file
        if code == sqlite3.SQLITE_IOERR and is_full(path.parent):
            code = sqlite3.SQLITE_FULL
        raise unavailable(path, _REASONS.get(code, "cannot be used; check the disk")) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise unavailable(path, _REASONS[sqlite3.SQLITE_FULL]) from None
        raise unavailable(path, f"{os.strerror(error.errno or 0).lower()}; check the folder and the disk") from None


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder has no room for anything worth writing."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < _ROOM_BYTES


@contextmanager
def read_only(path: Path) -> Iterator[Connection]:
    """A connection that cannot write `path`; a copy on read-only media is readable too."""
    wal = path.with_name(path.name + "-wal")
    shm = path.with_name(path.name + "-shm")
    writable = os.access(path.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
    mode = "mode=ro" if wal.exists() or shm.exists() or writable else "immutable=1"
    with closing(connect(path, wait_s=LOCK_WAIT_S, options=mode)) as connection:
        connection.text_factory = lambda raw: raw.decode(errors="replace")  # a spoilt text is shown, not fatal
        yield connection


def _make(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    sync(path.parent)


def only_while_running() -> None:
    """Let files of this process survive no loss of power: a simulation's are removed when it ends."""
    global _on_disk
    _on_disk = False


def _connected(path: Path, *, lock_wait_s: float) -> Connection:
    connection = connect(path, wait_s=lock_wait_s)
    if not _on_disk:
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        return connection
    _switch_to_wal(connection, until=time.monotonic() + lock_wait_s)
    for pragma in ("synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _switch_to_wal(connection: Connection, *, until: float) -> None:
    """Two processes that open a new file at once: SQLite answers "locked" to one of them without waiting."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(_RETRY_S)
