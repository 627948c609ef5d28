"""The store's key, its file, and what is not in it."""

import logging
import os
import pickle
import sqlite3
from pathlib import Path

import pytest

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.keys import Keys
from fedage.client.cohort.store.store import CohortStore, StoreError
from fedage.client.cohort.store.writer import writing
from tests.client.cohort.dicoms import BIRTH_DATE, NAME, write

KEY = bytes(range(32))


def test_key_and_database_are_the_owner_s_only(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        CohortStore.open(tmp_path / "home").close()
    finally:
        os.umask(previous)
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    for name in ("store.key", "cohort.db"):
        assert (tmp_path / "home" / name).stat().st_mode & 0o777 == 0o600, name
    key = (tmp_path / "home" / "store.key").read_text()
    assert len(bytes.fromhex(key)) == 32
    CohortStore.open(tmp_path / "home").close()
    assert (tmp_path / "home" / "store.key").read_text() == key


def test_fresh_keys_differ_and_a_given_key_is_kept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        CohortStore.open(tmp_path / name).close()
    assert (tmp_path / "a/store.key").read_bytes() != (tmp_path / "b/store.key").read_bytes()
    CohortStore.open(tmp_path / "c", key=KEY).close()
    assert (tmp_path / "c/store.key").read_text() == KEY.hex() + "\n"
    with CohortStore.open(tmp_path / "c") as again, CohortStore.open(tmp_path / "d", key=KEY) as other:
        assert again.patient_key("x") == other.patient_key(" x ") != other.patient_key("X")


def test_a_key_that_is_wrong_lost_or_exposed_is_refused(tmp_path: Path) -> None:
    CohortStore.open(tmp_path, key=KEY).close()
    file = tmp_path / "store.key"
    with pytest.raises(StoreError, match="another key than the one given"):
        CohortStore.open(tmp_path, key=bytes(32))
    file.chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        CohortStore.open(tmp_path)
    file.chmod(0o600)
    for text in ("", "ff", "not hexadecimal " * 4):
        file.write_text(text)
        with pytest.raises(StoreError, match="64 hexadecimal digits"):
            CohortStore.open(tmp_path)
    file.write_text(bytes(32).hex())
    with pytest.raises(StoreError, match="made with another key"):
        CohortStore.open(tmp_path)
    file.unlink()
    with pytest.raises(StoreError, match="put the site's saved key back"):
        CohortStore.open(tmp_path)
    assert not file.exists()
    CohortStore.open(tmp_path, key=KEY).close()


def test_another_version_or_no_store_is_refused(tmp_path: Path) -> None:
    CohortStore.open(tmp_path / "a").close()
    with sqlite3.connect(tmp_path / "a/cohort.db") as connection:
        connection.execute("PRAGMA user_version = 77")
    connection.close()
    with pytest.raises(StoreError, match="schema version 77"):
        CohortStore.open(tmp_path / "a")
    CohortStore.open(tmp_path / "b", key=KEY).close()
    (tmp_path / "b/cohort.db").write_bytes(b"no database at all " * 100)
    with pytest.raises(StoreError, match="no cohort store"):
        CohortStore.open(tmp_path / "b")


def test_the_key_shows_nowhere(tmp_path: Path) -> None:
    with CohortStore.open(tmp_path, key=KEY) as store:
        keys = Keys(KEY)
        assert KEY.hex() not in repr(store) + repr(keys)
        assert repr(KEY) not in repr(keys)
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(keys)


def test_hashes_of_different_uses_do_not_compare_and_paths_open_with_their_key_only() -> None:
    keys, others = Keys(KEY), Keys(bytes(32))
    assert len({keys.patient("1"), keys.image("1"), others.patient("1"), others.image("1")}) == 4
    for path in ("a/b.dcm", "Müller/ü.dcm", os.fsdecode(b"\xff\xfe.dcm"), "x" * 4000):
        assert keys.unseal(keys.seal(path)) == path
        assert keys.seal(path) == keys.seal(path) != others.seal(path)
    with pytest.raises(StoreError, match="another key"):
        others.unseal(keys.seal("a"))
    assert keys.shifted_day("p", 700_000) - keys.shifted_day("p", 699_000) == 1000
    assert keys.shifted_day("p", 700_000) != keys.shifted_day("q", 700_000)


def test_no_identifier_is_in_the_files_or_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Raw bytes of everything in the home, write-ahead log included, while the store is open and after."""
    caplog.set_level(logging.DEBUG)
    home, data = tmp_path / "home", tmp_path / "data"
    secrets = {"MRN-7714423", NAME, "Zwyntarow", BIRTH_DATE, "1961-03-17", "20210317", "MRN-7714423.dcm"}
    ds = write(data / "Zwyntarow" / "MRN-7714423.dcm", "MRN-7714423")
    write(data / "MRN-7714423-b.dcm", "MRN-7714423", PatientBirthDate=None)  # a rejected one, too
    secrets |= {ds.SOPInstanceUID, ds.StudyInstanceUID}
    table = tmp_path / "outcomes.csv"
    table.write_text("patient_id,event,doctor\nMRN-7714423,1,Zwyntarow\n")

    def look() -> None:
        found = b"".join(path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file())
        assert b"CREATE TABLE patients" in found
        for secret in secrets:
            for encoding in ("utf-8", "utf-16-le"):
                assert secret.encode(encoding) not in found, secret

    with CohortStore.open(home) as store:
        report = index_folder(store, data, outcomes_csv=table)
        assert (report.images, report.rejected) == (1, {"no-age": 1})
        assert (home / "cohort.db-wal").stat().st_size > 0
        look()
    look()
    for secret in secrets:
        assert secret not in caplog.text + repr(report)


def test_a_second_indexing_is_refused_while_one_runs(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    other = CohortStore.open(tmp_path / "home")
    with CohortStore.open(tmp_path / "home") as store, store.exclusive():
        with pytest.raises(StoreError, match="being indexed already"):
            index_folder(other, tmp_path / "data")
        assert other.counts() == {"patients": 0, "exams": 0, "images": 0}
    assert index_folder(other, tmp_path / "data").files == 0


def test_a_locked_or_full_store_says_so_and_keeps_what_it_had(tmp_path: Path) -> None:
    def fill(store: CohortStore) -> None:
        with writing(store) as writer:
            writer.set_root(tmp_path)
            writer._connection.execute("PRAGMA max_page_count = 1")
            writer._connection.execute("CREATE TABLE filler (x)")
            writer._connection.execute("INSERT INTO filler VALUES (zeroblob(1000000))")

    with CohortStore.open(tmp_path) as store:
        with pytest.raises(StoreError, match="locked or disk full"):
            fill(store)
        with pytest.raises(StoreError, match="nothing is indexed yet"):
            _ = store.root
