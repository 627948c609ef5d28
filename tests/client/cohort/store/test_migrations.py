"""Stores of earlier versions, built from their own DDL, brought up to date."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.keys import Keys
from fedage.client.cohort.store import migrations
from fedage.client.cohort.store.query import select
from fedage.client.cohort.store.schema import SCHEMA_VERSION
from fedage.client.cohort.store.store import CohortStore, StoreError
from tests.client.cohort.dicoms import slice_at, write

KEY = bytes(range(32))
V2 = """
CREATE TABLE settings (name VARCHAR NOT NULL, value BLOB NOT NULL, PRIMARY KEY (name));
CREATE TABLE patients ("key" VARCHAR NOT NULL, sex VARCHAR, PRIMARY KEY ("key"));
CREATE TABLE rejected_files (
    path BLOB NOT NULL, mtime_ns BIGINT NOT NULL, size BIGINT NOT NULL, reason VARCHAR NOT NULL, PRIMARY KEY (path)
);
CREATE INDEX ix_rejected_files_reason ON rejected_files (reason);
CREATE TABLE exams (
    "key" VARCHAR NOT NULL, patient VARCHAR NOT NULL, age_years DOUBLE NOT NULL, age_source VARCHAR NOT NULL,
    age_capped BOOLEAN NOT NULL, shifted_day INTEGER, manufacturer VARCHAR NOT NULL,
    PRIMARY KEY ("key"), FOREIGN KEY(patient) REFERENCES patients ("key") ON DELETE CASCADE
);
CREATE INDEX ix_exams_patient ON exams (patient);
CREATE TABLE outcomes (
    patient VARCHAR NOT NULL, "column" VARCHAR NOT NULL, value DOUBLE NOT NULL, PRIMARY KEY (patient, "column"),
    FOREIGN KEY(patient) REFERENCES patients ("key") ON DELETE CASCADE
);
CREATE TABLE images (
    "key" VARCHAR NOT NULL, exam VARCHAR NOT NULL, path BLOB NOT NULL, mtime_ns BIGINT NOT NULL,
    size BIGINT NOT NULL, modality VARCHAR NOT NULL, "view" VARCHAR NOT NULL, laterality VARCHAR NOT NULL,
    rows INTEGER NOT NULL, columns INTEGER NOT NULL, photometric VARCHAR NOT NULL, transfer_syntax VARCHAR NOT NULL,
    spacing_known BOOLEAN NOT NULL, PRIMARY KEY ("key"),
    FOREIGN KEY(exam) REFERENCES exams ("key") ON DELETE CASCADE, UNIQUE (path)
);
CREATE INDEX ix_images_modality ON images (modality);
CREATE INDEX ix_images_exam ON images (exam);
PRAGMA user_version = 2;
"""


V3 = """
CREATE TABLE settings (name VARCHAR NOT NULL, value BLOB NOT NULL, PRIMARY KEY (name));
CREATE TABLE patients ("key" VARCHAR NOT NULL, sex VARCHAR, PRIMARY KEY ("key"));
CREATE TABLE rejected_files (
    path BLOB NOT NULL, mtime_ns BIGINT NOT NULL, size BIGINT NOT NULL, reason VARCHAR NOT NULL,
    modality VARCHAR DEFAULT '' NOT NULL, manufacturer VARCHAR DEFAULT '' NOT NULL, PRIMARY KEY (path)
);
CREATE INDEX ix_rejected_files_reason ON rejected_files (reason);
CREATE TABLE table_patients (
    position INTEGER NOT NULL, "key" VARCHAR NOT NULL, PRIMARY KEY (position), UNIQUE ("key")
);
CREATE TABLE table_columns (
    name VARCHAR NOT NULL, position INTEGER NOT NULL, numbers BLOB NOT NULL, odd BLOB, words BLOB, PRIMARY KEY (name)
);
CREATE TABLE table_rejected (reason VARCHAR NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (reason));
CREATE TABLE exams (
    "key" VARCHAR NOT NULL, patient VARCHAR NOT NULL, age_years DOUBLE NOT NULL, age_source VARCHAR NOT NULL,
    age_capped BOOLEAN NOT NULL, shifted_day INTEGER, manufacturer VARCHAR NOT NULL,
    PRIMARY KEY ("key"), FOREIGN KEY(patient) REFERENCES patients ("key") ON DELETE CASCADE
);
CREATE INDEX ix_exams_patient ON exams (patient);
CREATE TABLE outcomes (
    patient VARCHAR NOT NULL, "column" VARCHAR NOT NULL, value DOUBLE NOT NULL, PRIMARY KEY (patient, "column"),
    FOREIGN KEY(patient) REFERENCES patients ("key") ON DELETE CASCADE
);
CREATE TABLE images (
    "key" VARCHAR NOT NULL, exam VARCHAR NOT NULL, path BLOB NOT NULL, mtime_ns BIGINT NOT NULL, size BIGINT NOT NULL,
    modality VARCHAR NOT NULL, "view" VARCHAR NOT NULL, laterality VARCHAR NOT NULL, rows INTEGER NOT NULL,
    columns INTEGER NOT NULL, photometric VARCHAR NOT NULL, transfer_syntax VARCHAR NOT NULL,
    spacing_known BOOLEAN NOT NULL, burned_in VARCHAR DEFAULT '' NOT NULL, frames INTEGER DEFAULT '1' NOT NULL,
    slices INTEGER DEFAULT '1' NOT NULL, voxel_mm VARCHAR DEFAULT '' NOT NULL, orientation VARCHAR DEFAULT '' NOT NULL,
    PRIMARY KEY ("key"), FOREIGN KEY(exam) REFERENCES exams ("key") ON DELETE CASCADE, UNIQUE (path)
);
CREATE INDEX ix_images_modality ON images (modality);
CREATE INDEX ix_images_exam ON images (exam);
PRAGMA user_version = 3;
"""


def old_store(home: Path, *, root: Path, key: bytes = KEY) -> None:
    """A store of version 2 as its code left it: one patient with one image, one rejected file, one outcome."""
    home.mkdir(parents=True)
    (home / "store.key").touch(mode=0o600)
    (home / "store.key").write_text(key.hex())
    keys = Keys(key)
    patient, stamp = keys.patient("p1"), (root / "a.dcm").stat()
    with closing(sqlite3.connect(home / "cohort.db")) as db:
        db.executescript(V2)
        settings = [("key", keys.check().encode()), ("root", keys.seal(str(root)))]
        db.executemany("INSERT INTO settings VALUES (?, ?)", settings)
        db.execute("INSERT INTO patients VALUES (?, 'F')", (patient,))
        db.execute("INSERT INTO exams VALUES ('e', ?, 60.5, 'age-years', 0, 5, 'Old')", (patient,))
        db.execute("INSERT INTO outcomes VALUES (?, 'event', 1.0)", (patient,))
        db.execute(
            "INSERT INTO images VALUES ('i', 'e', ?, ?, ?, 'CR', 'PA', '', 6, 5, 'MONOCHROME2', '1.2', 1)",
            (keys.seal("a.dcm"), stamp.st_mtime_ns, stamp.st_size),
        )
        db.execute("INSERT INTO rejected_files VALUES (?, 1, 2, 'no-age')", (keys.seal("gone.dcm"),))
        db.commit()


def tables(file: Path) -> Mapping[str, list[Any]]:
    """Columns, keys and indices of every table, without the order in which columns were added."""
    with closing(sqlite3.connect(file)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {
            name: sorted(map(str, [row[1:] for row in db.execute(f"PRAGMA table_info({name})")]))
            + sorted(map(str, [row[2:] for row in db.execute(f"PRAGMA foreign_key_list({name})")]))
            + sorted(map(str, [row[1:] for row in db.execute(f"PRAGMA index_list({name})")]))
            for name in names
        }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "data/a.dcm", "p1")
    return tmp_path / "data"


def test_a_store_of_version_2_is_migrated_with_everything_in_it(tmp_path: Path, data: Path) -> None:
    old_store(tmp_path / "home", root=data)
    with CohortStore.open(tmp_path / "home") as store:
        assert store.counts() == {"patients": 1, "exams": 1, "images": 1}
        assert store.rejected_by_reason() == {"no-age": 1}
        found = select(store, modalities=("CR",), age_min_years=0, age_max_years=130)
        assert (found.images, found.age_years.tolist()) == ((("a.dcm",),), [60.5])
        assert found.outcomes["event"].tolist() == [1.0]
    CohortStore.open(tmp_path / "fresh", key=KEY).close()
    assert tables(tmp_path / "home/cohort.db") == tables(tmp_path / "fresh/cohort.db")


def test_slices_that_version_3_took_for_images_become_series(tmp_path: Path) -> None:
    """Three slices with even gaps came in as three images; the next indexing reads them and makes one of them."""
    home, root, keys = tmp_path / "home", tmp_path / "data", Keys(KEY)
    for number in range(3):
        write(root / f"{number}.dcm", "p1", **slice_at(3.0 * number))
    write(root / "x.dcm", "p2")
    home.mkdir()
    (home / "store.key").touch(mode=0o600)
    (home / "store.key").write_text(KEY.hex())
    with closing(sqlite3.connect(home / "cohort.db")) as db:
        db.executescript(V3)
        settings = [("key", keys.check().encode()), ("root", keys.seal(str(root))), ("tree", keys.seal("2:digest"))]
        db.executemany("INSERT INTO settings VALUES (?, ?)", settings)
        for patient, files in (("p1", ("0.dcm", "1.dcm", "2.dcm")), ("p2", ("x.dcm",))):
            db.execute("INSERT INTO patients VALUES (?, 'F')", (keys.patient(patient),))
            exam = (patient, keys.patient(patient))
            db.execute("INSERT INTO exams VALUES (?, ?, 60.0, 'dates', 0, 5, 'Phantom Imaging')", exam)
            for name in files:
                stamp = (root / name).stat()
                row = (name, patient, keys.seal(name), stamp.st_mtime_ns, stamp.st_size)
                db.execute(
                    "INSERT INTO images VALUES (?, ?, ?, ?, ?, 'MR', '', '', 6, 5, 'MONOCHROME2', '1.2', 1, '', 1, 1, "
                    "'', '')",
                    row,
                )
        db.commit()
    with CohortStore.open(home) as store:
        assert store.counts() == {"patients": 2, "exams": 2, "images": 4}  # as it was, until the next indexing
        report = index_folder(store, root)
        assert (report.files, report.new, report.patients, report.images, report.volumes) == (4, 0, 2, 2, 1)
        assert index_folder(store, root) == report
    CohortStore.open(tmp_path / "fresh", key=KEY).close()
    assert tables(home / "cohort.db") == tables(tmp_path / "fresh/cohort.db")
    assert (home / "cohort.db.v3-backup").exists()


def test_a_copy_of_the_old_file_is_kept_for_the_owner(tmp_path: Path, data: Path) -> None:
    old_store(tmp_path / "home", root=data)
    CohortStore.open(tmp_path / "home").close()
    kept = tmp_path / "home/cohort.db.v2-backup"
    assert kept.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(kept)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert db.execute("SELECT count(*) FROM images").fetchone() == (1,)
    before = kept.stat().st_mtime_ns
    CohortStore.open(tmp_path / "home").close()
    assert kept.stat().st_mtime_ns == before
    assert sorted(path.name for path in (tmp_path / "home").glob("*backup*")) == [kept.name]


def test_the_next_indexing_reads_every_file_once(tmp_path: Path, data: Path) -> None:
    old_store(tmp_path / "home", root=data)
    with CohortStore.open(tmp_path / "home") as store:
        first = index_folder(store, data)
        assert (first.new, first.unchanged, first.removed, first.images) == (1, 0, 1, 1)
        assert index_folder(store, data).unchanged == 1
        found = select(store, modalities=("CR",), age_min_years=0, age_max_years=130)
    assert found.age_years.round().tolist() == [60.0]  # what the file says, not what the old store said


def test_a_step_that_fails_leaves_the_old_store(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_store(tmp_path / "home", root=data)
    before = tables(tmp_path / "home/cohort.db")
    broken = {2: (*migrations.STEPS[2], "ALTER TABLE nowhere ADD COLUMN x")}
    monkeypatch.setattr(migrations, "STEPS", broken)
    with pytest.raises(StoreError, match=r"from version 2 to 8 .*is as it was"):
        CohortStore.open(tmp_path / "home")
    assert tables(tmp_path / "home/cohort.db") == before
    monkeypatch.undo()
    with CohortStore.open(tmp_path / "home") as store:
        assert store.counts()["images"] == 1


def test_a_store_of_another_key_is_not_migrated(tmp_path: Path, data: Path) -> None:
    old_store(tmp_path / "home", root=data)
    (tmp_path / "home/store.key").write_text(bytes(32).hex())
    with pytest.raises(StoreError, match="another key"):
        CohortStore.open(tmp_path / "home")
    with closing(sqlite3.connect(tmp_path / "home/cohort.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


def test_several_at_once_migrate_once(tmp_path: Path, data: Path) -> None:
    old_store(tmp_path / "home", root=data)
    failed: list[Exception] = []

    def open_it() -> None:
        try:
            CohortStore.open(tmp_path / "home").close()
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with closing(sqlite3.connect(tmp_path / "home/cohort.db.v2-backup")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


def test_steps_lead_from_the_oldest_version_to_today_s() -> None:
    assert sorted(migrations.STEPS) == list(range(migrations.OLDEST, SCHEMA_VERSION))
