"""A hospital's cohort store: one SQLite file and one key in the site's home.

Identifiers are stored as keyed hashes only. Image files are opened read-only and stay where they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event, func, insert, select, text
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from sqlalchemy.orm import Session

from fedage.client.cohort.keys import Keys, StoreError, read_or_create
from fedage.client.cohort.paths import OBLIQUE, SEPARATOR, FileStamp
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.store.migrations import OLDEST, backup, can_migrate, migrate, migration_lock
from fedage.client.cohort.store.models import (
    SCHEMA_VERSION,
    Base,
    Exam,
    ImageFile,
    Patient,
    RejectedFile,
    Series,
    Setting,
    Slice,
)
from fedage.client.cohort.table.identifiers import with_other_zeros

__all__ = ["CohortStore", "FileStamp", "KnownFile", "StoreError", "Volumes"]

DATABASE, KEY, LOCK = "cohort.db", "store.key", "index.lock"
_BUSY_TIMEOUT_MS = 30_000


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

    def __init__(self, home: Path, engine: Engine, keys: Keys) -> None:
        self._home, self._engine, self._keys = home, engine, keys

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
        # hide_parameters: what a statement held must not stand in an error.
        engine = create_engine(f"sqlite:///{file}", hide_parameters=True)
        event.listen(engine, "connect", _prepare)
        store = cls(home, engine, keys)
        try:
            store._check(file)
        except BaseException:
            engine.dispose()
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
        except OperationalError:
            raise StoreError(f"{file} cannot be opened or is locked; end what holds it, then try again") from None
        except DatabaseError:
            raise StoreError(f"{file} is no cohort store or is damaged; move it away and index again") from None

    def _made_or_known(self) -> int:
        """The version of the file; a new one is made with today's tables."""
        with self._engine.connect() as connection:  # without the write lock, which an indexing may hold for long
            version = int(connection.execute(text("PRAGMA user_version")).scalar_one())
        if version:
            return version
        with self._engine.begin() as connection:
            connection.execute(text("BEGIN IMMEDIATE"))
            version = int(connection.execute(text("PRAGMA user_version")).scalar_one())
            if version == 0 and not connection.execute(text("SELECT count(*) FROM sqlite_schema")).scalar_one():
                Base.metadata.create_all(connection)
                connection.execute(insert(Setting).values(name="key", value=self._keys.check().encode()))
                connection.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))
                version = SCHEMA_VERSION
        return version

    def _migrate(self, file: Path) -> None:
        with self._engine.connect() as connection:
            version = int(connection.execute(text("PRAGMA user_version")).scalar_one())
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
            with self._engine.begin() as connection:
                connection.execute(text("BEGIN IMMEDIATE"))
                migrate(connection, version)
        except DatabaseError as error:
            raise StoreError(
                f"{file} could not be brought from version {version} to {SCHEMA_VERSION} ({type(error.orig).__name__}) "
                f"and is as it was; a copy is {backup_file.name}"
            ) from None

    def _check_key(self, file: Path) -> None:
        with self._engine.connect() as connection:
            stored = connection.execute(select(Setting.value).where(Setting.name == "key")).scalar_one_or_none()
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
        self._engine.dispose()

    def split_uniform(self, patient: str) -> float:
        """A number in [0, 1) of a hashed patient, from a second keyed hash."""
        return self._keys.split_uniform(patient)

    def patient_key(self, patient_id: str) -> str:
        """The keyed hash of an identifier as the hospital writes it."""
        return self._keys.patient(patient_id)

    def known_with_other_zeros(self, patient_ids: Iterable[str]) -> int:
        """Count identifiers that match no patient with images, but would with other leading zeros."""
        with self.reading() as session:
            known = set(session.scalars(select(Patient.key)))
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
    def reading(self) -> Iterator[Session]:
        """A session that sees one state of the store."""
        with Session(self._engine) as session:
            yield session

    @contextmanager
    def transaction(self) -> Iterator[tuple[Connection, Keys]]:
        """One transaction, all of it or nothing, and the store's keys; `writer.writing` writes in it.

        Raises
        ------
        StoreError
            If the file is locked, full or broken.
        """
        try:
            with self._engine.begin() as connection:
                connection.execute(text("BEGIN IMMEDIATE"))
                yield connection, self._keys
        except IntegrityError:
            raise StoreError("the store changed meanwhile; run one index at a time, then index again") from None
        except OperationalError as error:
            raise StoreError(
                f"the store cannot be written ({type(error.orig).__name__}): locked or disk full"
            ) from None

    @property
    def root(self) -> Path:
        """The indexed folder.

        Raises
        ------
        StoreError
            If nothing was indexed yet.
        """
        with self.reading() as session:
            sealed = session.scalar(select(Setting.value).where(Setting.name == "root"))
        if sealed is None:
            raise StoreError("nothing is indexed yet; run fedage site index")
        return Path(self._keys.unseal(sealed))

    @property
    def has_images(self) -> bool:
        """Whether a folder was indexed."""
        with self.reading() as session:
            return session.scalar(select(Setting.name).where(Setting.name == "root")) is not None

    def files(self) -> dict[str, KnownFile]:
        """All files in the store, by relative path."""
        known: dict[str, KnownFile] = {}
        flat = select(ImageFile.path, ImageFile.mtime_ns, ImageFile.size).where(
            ImageFile.key.not_in(select(Series.key))
        )
        slices = select(Slice.path, Slice.mtime_ns, Slice.size)
        with self._engine.connect() as connection:
            for sealed, mtime_ns, size in [*connection.execute(flat), *connection.execute(slices)]:
                path = self._keys.unseal(sealed)
                known[path] = KnownFile(FileStamp(path, mtime_ns, size), None)
            rejected = select(RejectedFile.path, RejectedFile.mtime_ns, RejectedFile.size, RejectedFile.reason)
            for sealed, mtime_ns, size, reason in connection.execute(rejected):
                path = self._keys.unseal(sealed)
                known[path] = KnownFile(FileStamp(path, mtime_ns, size), Reason(reason))
        return known

    def rejected_for(self, reasons: Collection[Reason]) -> dict[str, Reason]:
        """The files that are out for one of these reasons, by relative path."""
        wanted = select(RejectedFile.path, RejectedFile.reason).where(RejectedFile.reason.in_(reasons))
        with self._engine.connect() as connection:
            return {self._keys.unseal(sealed): Reason(reason) for sealed, reason in connection.execute(wanted)}

    def slices(self, volume: str) -> tuple[str, ...]:
        """Relative paths of the files of a series that is in, by the path that stands for it; in no order."""
        of_series = select(Slice.path).where(Slice.series == volume.removeprefix(SEPARATOR)).order_by(Slice.key)
        with self.reading() as session:
            return tuple(self._keys.unseal(sealed) for sealed in session.scalars(of_series))

    def volumes(self) -> Volumes:
        """Totals over the series in the cohort."""
        with self.reading() as session:
            of_series = ImageFile.key.in_(select(Series.key))
            number, files = session.execute(
                select(func.count(), func.coalesce(func.sum(ImageFile.slices), 0)).where(of_series)
            ).one()
            oblique = select(func.count()).where(of_series, ImageFile.orientation.endswith(OBLIQUE))
            return Volumes(number=number, files=files, oblique=session.scalar(oblique) or 0)

    def rejected_by_reason(self) -> dict[str, int]:
        """How many files are out, by reason code."""
        with self.reading() as session:
            rows = session.execute(select(RejectedFile.reason, func.count()).group_by(RejectedFile.reason))
            return dict(sorted(rows))

    def counts(self) -> dict[str, int]:
        """Number of `patients`, `exams` and `images`."""
        with self.reading() as session:
            tables = {"patients": Patient, "exams": Exam, "images": ImageFile}
            return {
                name: session.scalar(select(func.count()).select_from(table)) or 0 for name, table in tables.items()
            }


def _prepare(connection: Any, _record: Any) -> None:
    """Settings of every connection: write-ahead log, foreign keys, patience; transactions are begun by hand."""
    connection.isolation_level = None  # else sqlite3 begins transactions by itself, and late
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
