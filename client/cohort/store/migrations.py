"""From the tables of an earlier version to today's: ordered steps, one transaction, a backup of the file beforehand.

A new version appends one step to `STEPS` and changes `schema.py` so that a migrated file and a fresh one have the same
tables; the tests compare them.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from fedage.client.cohort.store.schema import SCHEMA_VERSION, WITHOUT_WORDS
from fedage.client.site.sqlite import Connection
from fedage.deploy.machine.atomic import sync

LOCK = "migrate.lock"

_TO_3 = (
    "ALTER TABLE images ADD COLUMN burned_in VARCHAR DEFAULT '' NOT NULL",
    "ALTER TABLE images ADD COLUMN frames INTEGER DEFAULT '1' NOT NULL",
    "ALTER TABLE images ADD COLUMN slices INTEGER DEFAULT '1' NOT NULL",
    "ALTER TABLE images ADD COLUMN voxel_mm VARCHAR DEFAULT '' NOT NULL",
    "ALTER TABLE images ADD COLUMN orientation VARCHAR DEFAULT '' NOT NULL",
    "ALTER TABLE rejected_files ADD COLUMN modality VARCHAR DEFAULT '' NOT NULL",
    "ALTER TABLE rejected_files ADD COLUMN manufacturer VARCHAR DEFAULT '' NOT NULL",
    'CREATE TABLE table_patients (position INTEGER NOT NULL, "key" VARCHAR NOT NULL, PRIMARY KEY (position), '
    'UNIQUE ("key"))',
    "CREATE TABLE table_columns (name VARCHAR NOT NULL, position INTEGER NOT NULL, numbers BLOB NOT NULL, odd BLOB, "
    "words BLOB, PRIMARY KEY (name))",
    "CREATE TABLE table_rejected (reason VARCHAR NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (reason))",
    # The rules for files have changed: no stamp fits any more, so the next indexing reads every file once.
    "UPDATE images SET mtime_ns = -1",
    "UPDATE rejected_files SET mtime_ns = -1",
)
_TO_4 = (
    'CREATE TABLE series ("key" VARCHAR NOT NULL, exam VARCHAR NOT NULL, patient VARCHAR NOT NULL, sex VARCHAR, '
    "age_years DOUBLE NOT NULL, age_source VARCHAR NOT NULL, age_capped BOOLEAN NOT NULL, shifted_day INTEGER, "
    'manufacturer VARCHAR NOT NULL, modality VARCHAR NOT NULL, judged BOOLEAN NOT NULL, PRIMARY KEY ("key"))',
    "CREATE INDEX ix_series_judged ON series (judged)",
    'CREATE TABLE slices ("key" VARCHAR NOT NULL, series VARCHAR NOT NULL, path BLOB NOT NULL, mtime_ns BIGINT '
    'NOT NULL, size BIGINT NOT NULL, place BLOB NOT NULL, "view" VARCHAR NOT NULL, laterality VARCHAR NOT NULL, rows '
    "INTEGER NOT NULL, columns INTEGER NOT NULL, photometric VARCHAR NOT NULL, transfer_syntax VARCHAR NOT NULL, "
    'spacing_known BOOLEAN NOT NULL, burned_in VARCHAR NOT NULL, PRIMARY KEY ("key"), '
    'FOREIGN KEY(series) REFERENCES series ("key") ON DELETE CASCADE, UNIQUE (path))',
    "CREATE INDEX ix_slices_series ON slices (series)",
    # No stamp is touched: files are read again because their reader is another one.
)
_TO_5 = (
    "ALTER TABLE images ADD COLUMN body_part VARCHAR DEFAULT '' NOT NULL",
    "ALTER TABLE images ADD COLUMN intent VARCHAR DEFAULT '' NOT NULL",
    "ALTER TABLE images ADD COLUMN special VARCHAR DEFAULT '' NOT NULL",
    # As above: another reader fills them at the next indexing.
)
_TO_6 = (
    'CREATE TABLE outcome_words (patient VARCHAR NOT NULL, "column" VARCHAR NOT NULL, PRIMARY KEY (patient, "column"), '
    'FOREIGN KEY(patient) REFERENCES patients ("key") ON DELETE CASCADE)',
    f"INSERT INTO settings (name, value) SELECT '{WITHOUT_WORDS}', x'31' WHERE EXISTS (SELECT 1 FROM outcomes)",
)
_PERSON = (
    "study VARCHAR DEFAULT '' NOT NULL",
    "sex VARCHAR",
    "age_from_years DOUBLE",
    "age_until_years DOUBLE",
    "real_day INTEGER",
    "is_placeholder_id BOOLEAN DEFAULT '0' NOT NULL",
)
_TO_7 = tuple(f"ALTER TABLE {table} ADD COLUMN {column}" for table in ("images", "slices") for column in _PERSON)
"""Another reader fills them at the next indexing."""
_TO_8 = tuple(f"ALTER TABLE slices ADD COLUMN {name} VARCHAR DEFAULT '' NOT NULL" for name in ("body_part", "special"))
"""As above."""
STEPS: Mapping[int, tuple[str, ...]] = {2: _TO_3, 3: _TO_4, 4: _TO_5, 5: _TO_6, 6: _TO_7, 7: _TO_8}
"""By version, the statements that lead to the next."""

OLDEST = min(STEPS)


def can_migrate(version: int) -> bool:
    """Whether steps lead from this version to today's."""
    return OLDEST <= version < SCHEMA_VERSION


def migrate(connection: Connection, version: int) -> None:
    """Run the steps from `version` on, inside the caller's transaction."""
    for step in range(version, SCHEMA_VERSION):
        for statement in STEPS[step]:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def migration_lock(home: Path) -> Iterator[None]:
    """Wait until nobody else migrates this home's store, and hold the others back."""
    # Imported here: a store of today is not migrated, and it takes a moment.
    from filelock import FileLock

    with FileLock(home / LOCK):
        yield


def backup(file: Path, version: int) -> Path:
    """A whole copy of the store beside it, for the owner only; the write-ahead log is in it.

    Raises
    ------
    sqlite3.Error, OSError
        If the copy cannot be made; then nothing may be migrated.
    """
    copy = file.with_name(f"{file.name}.v{version}-backup")
    partial = file.with_name(f".{copy.name}.{secrets.token_hex(4)}")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(partial)) as target:
            source.backup(target)
        sync(partial)
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)
    return copy
