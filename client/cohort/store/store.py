"""A hospital's cohort store: one SQLite file and one key in the site's home.

Identifiers are stored as keyed hashes only. Image files are opened read-only and stay where they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from fedage.client.cohort.keys import Keys, StoreError, read_or_create
from fedage.client.cohort.paths import OBLIQUE, SEPARATOR, FileStamp
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.store.migrations import OLDEST, backup, can_migrate, migrate, migration_lock
from fedage.client.cohort.store.schema import SCHEMA_VERSION, TABLES
from fedage.client.cohort.table.identifiers import with_other_zeros
from fedage.client.site.sqlite import Connection, Connections, connect, insert, placed, scalar, scalars

__all__ = ["CohortStore", "FileStamp", "KnownFile", "StoreError", "Volumes"]

DATABASE, KEY, LOCK = "cohort.db", "store.key", "index.lock"
_LOCK_WAIT_S = 30.0


class KnownFile(NamedTuple):
    """A file in the store; `reason` is None if its image is in the cohort."""

    stamp: FileStamp
    reason: Reason | None


class Volumes(NamedTuple):
    """Number of series in the cohort, of their files, and of oblique series."""

    number: int
    files: int
    oblique: int


class CohortStore:
    """Open with `CohortStore.open`; a context manager. Safe to use from several threads."""

    def __init__(self, home: Path, connections: Connections, keys: Keys) -> None:
        self._home, self._connections, self._keys = home, connections, keys

    @classmethod
    def open(cls, home: Path | str, *, key: bytes | None = None) -> CohortStore:
        """Open the store in a site's home, or make it.

        Parameters
        ----------
        home
            The site's home; made if missing.
        key
            32 bytes of a restored or derived key; without it `store.key` is read, or made of fresh randomness for a new
            store.

        Raises
        ------
        StoreError
            If the key is missing, exposed or another one, or the file is no store of a version known. A store of an
            earlier version is migrated, and a copy of it kept beside it.
        """
        home = Path(home)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = home / DATABASE
        keys = Keys(read_or_create(home / KEY, given=key, may_create=not file.exists()))
        file.touch(mode=0o600)
        store = cls(home, Connections(lambda: _connected(file)), keys)
        try:
            store._check(file)
        except BaseException:
            store.close()
            raise
        return store

    def _check(self, file: Path) -> None:
        """Make the tables of a new file, bring those of an old one up to date; refuse another version or key."""
        try:
            version = self._made_or_known()
            if can_migrate(version):
                with migration_lock(self._home):
                    self._migrate(file)
            elif version != SCHEMA_VERSION:
                raise StoreError(
                    f"{file} has schema version {version}, this fedage reads {OLDEST} to {SCHEMA_VERSION}; use the "
                    "fedage that made it, or move the file away and index again (store.key stays)"
                )
            self._check_key(file)
        except sqlite3.OperationalError:
            raise StoreError(f"{file} cannot be opened or is locked; end what holds it, then try again") from None
        except sqlite3.DatabaseError:
            raise StoreError(f"{file} is no cohort store or is damaged; move it away and index again") from None

    def _made_or_known(self) -> int:
        """The version of the file; a new one is made with today's tables."""
        with self.reading() as connection:  # without the write lock, which an indexing may hold for long
            version = int(scalar(connection, "PRAGMA user_version"))
        if version:
            return version
        with self._writing() as connection:
            version = int(scalar(connection, "PRAGMA user_version"))
            if version == 0 and not scalar(connection, "SELECT count(*) FROM sqlite_schema"):
                for statement in (each for statements in TABLES.values() for each in statements):
                    connection.execute(statement)
                insert(connection, "settings", {"name": "key", "value": self._keys.check().encode()})
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                version = SCHEMA_VERSION
        return version

    def _migrate(self, file: Path) -> None:
        with self.reading() as connection:
            version = int(scalar(connection, "PRAGMA user_version"))
        if not can_migrate(version):
            return  # another process did it while this one waited
        self._check_key(file)
        try:
            backup_file = backup(file, version)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{file} has to be brought from version {version} to {SCHEMA_VERSION} and cannot be backed up first "
                f"({type(error).__name__}); give its folder room and try again"
            ) from None
        try:
            with self._writing() as connection:
                migrate(connection, version)
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{file} could not be brought from version {version} to {SCHEMA_VERSION} ({type(error).__name__}) "
                f"and is as it was; a copy is {backup_file.name}"
            ) from None

    def _check_key(self, file: Path) -> None:
        stored = self.setting("key")
        if stored != self._keys.check().encode():
            raise StoreError(
                f"{file} was made with another key; put the site's saved key back into {file.parent / KEY}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._connections.close()

    def setting(self, name: str) -> bytes | None:
        """A property of the store; None if it has none of this name."""
        with self.reading() as connection:
            value: bytes | None = scalar(connection, "SELECT value FROM settings WHERE name = ?", (name,))
        return value

    def split_uniform(self, patient: str) -> float:
        """A number in [0, 1) of a hashed patient, from a second keyed hash."""
        return self._keys.split_uniform(patient)

    def patient_key(self, patient_id: str) -> str:
        """The keyed hash of an identifier as the hospital writes it."""
        return self._keys.patient(patient_id)

    def known_with_other_zeros(self, patient_ids: Iterable[str]) -> int:
        """Count identifiers that match no patient with images, but would with other leading zeros."""
        with self.reading() as connection:
            known = set(scalars(connection, "SELECT key FROM patients"))
        return sum(
            self.patient_key(patient_id) not in known
            and any(self.patient_key(variant) in known for variant in with_other_zeros(patient_id))
            for patient_id in patient_ids
        )

    def path_of(self, sealed: bytes) -> str:
        """A file's path relative to the root."""
        return self._keys.unseal(sealed)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the store against a second indexing; the lock ends with the process.

        Raises
        ------
        StoreError
            If another process or thread is indexing.
        """
        # Imported here: whoever only reads takes no lock, and it takes a moment.
        from filelock import FileLock, Timeout

        lock = FileLock(self._home / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise StoreError(f"{self._home} is being indexed already; wait until that has ended") from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that must not write: it sees one state of the store, and waits for nobody who writes."""
        with self._connections.transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[tuple[Connection, Keys]]:
        """One transaction, all of it or nothing, and the store's keys; `writer.writing` writes in it.

        Raises
        ------
        StoreError
            If the file is locked, full or broken.
        """
        try:
            with self._writing() as connection:
                yield connection, self._keys
        except sqlite3.IntegrityError:
            raise StoreError("the store changed meanwhile; run one index at a time, then index again") from None
        except sqlite3.OperationalError as error:
            raise StoreError(f"the store cannot be written ({type(error).__name__}): locked or disk full") from None

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._connections.transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @property
    def root(self) -> Path:
        """The indexed folder.

        Raises
        ------
        StoreError
            If nothing was indexed yet.
        """
        sealed = self.setting("root")
        if sealed is None:
            raise StoreError("nothing is indexed yet; run fedage site index")
        return Path(self._keys.unseal(sealed))

    @property
    def has_images(self) -> bool:
        """Whether a folder was indexed."""
        return self.setting("root") is not None

    def files(self) -> dict[str, KnownFile]:
        """All files in the store, by relative path."""
        known: dict[str, KnownFile] = {}
        those_in = (
            "SELECT path, mtime_ns, size FROM images WHERE key NOT IN (SELECT key FROM series) "
            "UNION ALL SELECT path, mtime_ns, size FROM slices"
        )
        with self.reading() as connection:
            for sealed, mtime_ns, size in connection.execute(those_in):
                path = self._keys.unseal(sealed)
                known[path] = KnownFile(FileStamp(path, mtime_ns, size), None)
            rejected = "SELECT path, mtime_ns, size, reason FROM rejected_files"
            for sealed, mtime_ns, size, reason in connection.execute(rejected):
                path = self._keys.unseal(sealed)
                known[path] = KnownFile(FileStamp(path, mtime_ns, size), Reason(reason))
        return known

    def rejected_for(self, reasons: Collection[Reason]) -> dict[str, Reason]:
        """The files that are out for one of these reasons, by relative path."""
        wanted = "SELECT path, reason FROM rejected_files WHERE reason IN (SELECT value FROM json_each(?))"
        with self.reading() as connection:
            rows = connection.execute(wanted, (placed(map(str, reasons)),))
            return {self._keys.unseal(sealed): Reason(reason) for sealed, reason in rows}

    def slices(self, volume: str) -> tuple[str, ...]:
        """Relative paths of the files of a series that is in, by the path that stands for it; in no order."""
        of_series = "SELECT path FROM slices WHERE series = ? ORDER BY key"
        with self.reading() as connection:
            sealed_paths = scalars(connection, of_series, (volume.removeprefix(SEPARATOR),))
        return tuple(map(self._keys.unseal, sealed_paths))

    def volumes(self) -> Volumes:
        """Totals over the series in the cohort."""
        totals = (
            "SELECT count(*), coalesce(sum(slices), 0), coalesce(sum(orientation LIKE '%' || ?), 0) FROM images "
            "WHERE key IN (SELECT key FROM series)"
        )
        with self.reading() as connection:
            return Volumes(*connection.execute(totals, (OBLIQUE,)).fetchone())

    def rejected_by_reason(self) -> dict[str, int]:
        """How many files are out, by reason code."""
        with self.reading() as connection:
            rows = connection.execute("SELECT reason, count(*) FROM rejected_files GROUP BY reason ORDER BY reason")
            return {row[0]: row[1] for row in rows}

    def counts(self) -> dict[str, int]:
        """Number of `patients`, `exams` and `images`."""
        with self.reading() as connection:
            return {
                table: scalar(connection, f"SELECT count(*) FROM {table}") for table in ("patients", "exams", "images")
            }


def _connected(file: Path) -> Connection:
    connection = connect(file, wait_s=_LOCK_WAIT_S)
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection
