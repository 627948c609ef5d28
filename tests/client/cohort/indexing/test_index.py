"""Indexing a folder: the bad inputs, the second time, what vanished."""

import os
import zipfile
from pathlib import Path

import pytest
from pydicom.uid import RLELossless

from fedage.client.cohort.dicom import pixel_checks
from fedage.client.cohort.dicom.facts import DicomFacts
from fedage.client.cohort.indexing import index
from fedage.client.cohort.indexing.index import IndexReport, index_folder
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.table_facts import TableFacts
from fedage.common.errors import FedAgeError
from tests.client.cohort.dicoms import all_of, cut, write, write_without_pixels


def test_a_folder_of_bad_files_is_counted_and_the_rest_goes_on(store: CohortStore, data: Path) -> None:
    (data / "text.dcm").write_text("not an image")
    write(data / "cut.dcm", "p1")
    cut(data / "cut.dcm", bytes_off=9)
    write(data / "no-age.dcm", "p2", PatientBirthDate=None)
    write_without_pixels(data / "no-pixels.dcm", "p3")
    first = write(data / "a" / "good.dcm", "p4")
    write(data / "b" / "same.dcm", "p4", SOPInstanceUID=first.SOPInstanceUID)
    report = index_folder(store, data)
    assert report == IndexReport(
        files=6,
        new=6,
        unchanged=0,
        removed=0,
        links=0,
        closed_folders=0,
        patients=1,
        exams=1,
        images=1,
        rejected={"duplicate-image": 1, "no-age": 1, "no-pixels": 1, "not-dicom": 1, "truncated": 1},
    )
    assert all_of(store).images == (("a/good.dcm",),)


def test_an_empty_folder_is_no_error_and_a_missing_one_is(store: CohortStore, data: Path) -> None:
    report = index_folder(store, data)
    assert (report.files, report.patients) == (0, 0)
    assert store.root == data
    assert all_of(store).n == 0
    for path in (data / "gone", data / "file"):
        (data / "file").touch()
        with pytest.raises(FedAgeError, match=f"{path.name} cannot be read as a folder"):
            index_folder(store, path)
    assert store.root == data


def test_a_single_patient(store: CohortStore, data: Path) -> None:
    write(data / "a.dcm", "only")
    assert index_folder(store, data).patients == 1
    found = all_of(store)
    assert found.n == 1
    assert found.age_years.tolist() == [60.0]


def test_the_second_time_only_changes_are_read(store: CohortStore, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        write(data / f"{number}.dcm", f"p{number}")
    (data / "text.dcm").write_text("not an image")
    index_folder(store, data)
    read: list[str] = []
    really = index.read_facts
    monkeypatch.setattr(index, "read_facts", lambda path, told: (read.append(path.name), really(path, told))[1])
    before = all_of(store)
    report = index_folder(store, data)
    assert (report.new, report.unchanged, report.removed, read) == (0, 5, 0, [])
    assert all_of(store).snapshot == before.snapshot

    (data / "0.dcm").unlink()
    write(data / "1.dcm", "p1", PatientBirthDate="19710317")
    write(data / "9.dcm", "p9")
    (data / "text.dcm").rename(data / "words.dcm")
    report = index_folder(store, data)
    assert (report.files, report.new, report.unchanged, report.removed) == (5, 3, 2, 2)
    assert (report.patients, report.exams, report.images, report.rejected) == (4, 4, 4, {"not-dicom": 1})
    assert sorted(read) == ["1.dcm", "9.dcm", "words.dcm"]
    after = all_of(store)
    changed = after.age_years[after.keys.index(store.patient_key("p1"))]
    assert changed == (50 * 365 + 13) / 365.25
    assert store.patient_key("p0") not in after.keys


def test_a_fresh_index_equals_an_incremental_one(tmp_path: Path, data: Path) -> None:
    key = bytes(32)
    with CohortStore.open(tmp_path / "a", key=key) as grown, CohortStore.open(tmp_path / "b", key=key) as fresh:
        for number in range(5):
            write(data / f"{number}.dcm", f"p{number}")
            index_folder(grown, data)
        index_folder(fresh, data, workers=3)
        assert all_of(grown).snapshot == all_of(fresh).snapshot
        assert all_of(grown).age_years.tolist() == all_of(fresh).age_years.tolist()


def test_a_duplicate_takes_over_when_its_original_goes(store: CohortStore, data: Path) -> None:
    ds = write(data / "a.dcm", "p1")
    write(data / "b.dcm", "p1", SOPInstanceUID=ds.SOPInstanceUID)
    index_folder(store, data)
    (data / "a.dcm").unlink()
    report = index_folder(store, data)
    assert (report.images, report.rejected, report.removed) == (1, {}, 1)
    assert all_of(store).images == (("b.dcm",),)


def test_links_are_left_alone(store: CohortStore, data: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.dcm", "p1")
    write(data / "b.dcm", "p2")
    (data / "file.dcm").symlink_to(tmp_path / "elsewhere" / "a.dcm")
    (data / "folder").symlink_to(tmp_path / "elsewhere")
    (data / "round").symlink_to(data)
    os.mkfifo(data / "pipe")
    report = index_folder(store, data)
    assert (report.files, report.links, report.patients) == (1, 3, 1)


def test_a_folder_that_cannot_be_opened_keeps_what_is_known(
    store: CohortStore, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(data / "shut" / "a.dcm", "p1")
    write(data / "shutter.dcm", "p2")
    index_folder(store, data)
    (data / "shutter.dcm").unlink()
    really = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return really(path)

    monkeypatch.setattr(os, "scandir", scandir)  # a superuser may open everything
    report = index_folder(store, data)
    assert (report.closed_folders, report.removed, report.patients) == (1, 1, 1)


def test_a_crash_in_the_middle_is_taken_up_again(
    store: CohortStore, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        write(data / f"{number}.dcm", f"p{number}")
    monkeypatch.setattr(index, "_BATCH", 2)
    monkeypatch.setattr(index, "_CHUNK", 1)

    def stop(done: int, total: int) -> None:
        assert total == 7
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_folder(store, data, progress=stop)
    assert store.counts()["images"] == 4
    report = index_folder(store, data)
    assert (report.new, report.unchanged, report.patients) == (3, 4, 7)


def test_outcomes_are_matched_counted_and_replaced(store: CohortStore, data: Path, tmp_path: Path) -> None:
    for number in range(3):
        write(data / f"{number}.dcm", f"p{number}")
    table = tmp_path / "outcomes.csv"
    table.write_text("patient_id,event,time_years\np0,1,2.5\np1,x,1\nstranger,0,1\np0,0,9\n")
    report = index_folder(store, data, outcomes_csv=table)
    assert report.outcomes == {
        "patients-with-outcomes": 2,
        "patients-without-outcomes": 1,
        "unknown-patients": 1,
        "duplicate-rows": 1,
        "rows-without-id": 0,
        "columns-with-unusable-name": 0,
        "not-a-number:event": 1,
    }
    found = all_of(store)
    by_patient = {key: row for row, key in enumerate(found.keys)}
    p0, p1, p2 = (by_patient[store.patient_key(f"p{number}")] for number in range(3))
    assert found.outcomes["time_years"][[p0, p1]].tolist() == [2.5, 1.0]
    assert found.outcomes["event"][p0] == 1.0
    assert [bool(value != value) for value in found.outcomes["event"][[p1, p2]]] == [True, True]
    table.write_text("patient_id,event\np2,1\n")
    assert set(index_folder(store, data, outcomes_csv=table).outcomes) >= {"unknown-patients"}
    assert list(all_of(store).outcomes) == ["event"]
    index_folder(store, data)
    assert all_of(store).outcomes["event"][p2] == 1.0
    with pytest.raises(FedAgeError, match="no column"):
        index_folder(store, data, outcomes_csv=table, id_column="mrn")


def test_sex_is_filled_in_when_another_image_knows_it(store: CohortStore, data: Path) -> None:
    write(data / "a.dcm", "p1", PatientSex=None)
    index_folder(store, data)
    assert all_of(store).is_male[0] != all_of(store).is_male[0]
    write(data / "b.dcm", "p1", PatientSex="M")
    index_folder(store, data)
    assert all_of(store).is_male.tolist() == [1.0]


def test_files_are_read_again_when_they_are_read_in_another_way(
    store: CohortStore, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write(data / f"{number}.dcm", f"p{number}")
    index_folder(store, data)
    read: list[str] = []
    really = index.read_facts
    monkeypatch.setattr(index, "read_facts", lambda path, *told: (read.append(path.name), really(path, *told))[1])
    monkeypatch.setattr(index, "READER_VERSION", "of tomorrow")
    report = index_folder(store, data)
    assert (report.new, report.unchanged, report.images, len(read)) == (0, 3, 3, 3)
    index_folder(store, data)
    assert len(read) == 3


def test_what_no_decoder_read_is_tried_again_and_the_rest_is_not(
    store: CohortStore, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(data / "a.dcm", "p1")
    write(data / "b.dcm", "p2", syntax=RLELossless)
    with monkeypatch.context() as patch:
        patch.setattr(pixel_checks, "decodable", lambda syntax, **_: syntax != RLELossless)
        assert index_folder(store, data).rejected == {"unsupported-transfer-syntax": 1}
    read: list[str] = []
    really = index.read_facts
    monkeypatch.setattr(index, "read_facts", lambda path, *told: (read.append(path.name), really(path, *told))[1])
    report = index_folder(store, data)  # the decoder is there now
    assert (report.new, report.images, report.rejected, set(read)) == (0, 2, {}, {"b.dcm"})


def test_what_still_cannot_be_read_costs_one_look_and_no_more(
    store: CohortStore, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(data / "a.dcm", "p1")
    write(data / "jpeg.dcm", "p2", syntax=RLELossless)
    write(data / "shut.dcm", "p3")
    monkeypatch.setattr(pixel_checks, "decodable", lambda syntax, **_: syntax != RLELossless)
    with zipfile.ZipFile(data / "study.zip", "w") as archive:
        archive.write(data / "jpeg.dcm", "other.dcm")
        archive.write(data / "a.dcm", "same.dcm")
    read: list[str] = []
    really = index.read_facts
    closed = {"shut.dcm"}

    def read_facts(path: Path, told: TableFacts) -> DicomFacts | Rejected:
        read.append(path.name)
        return Rejected(Reason.UNREADABLE) if path.name in closed else really(path, told)  # a superuser may read all

    monkeypatch.setattr(index, "read_facts", read_facts)
    out = {"duplicate-image": 1, "unreadable": 1, "unsupported-transfer-syntax": 2}
    first = index_folder(store, data)
    assert (first.files, first.images, first.rejected) == (5, 1, out)
    read.clear()
    with monkeypatch.context() as patch:
        patch.setattr(CohortStore, "files", lambda _: pytest.fail("what is known of the other files is not looked at"))
        patch.setattr(CohortStore, "transaction", lambda _: pytest.fail("nothing is to be written"))
        again = index_folder(store, data)
    assert (again.new, again.images, again.rejected, sorted(read)) == (0, 1, out, ["jpeg.dcm", "shut.dcm"])
    closed.clear()
    report = index_folder(store, data)
    assert (report.new, report.images) == (0, 2)
    assert report.rejected == {"duplicate-image": 1, "unsupported-transfer-syntax": 2}


def test_a_file_changed_in_place_is_noticed_whatever_the_folder_says(store: CohortStore, data: Path) -> None:
    write(data / "a.dcm", "p1")
    index_folder(store, data)
    state = data.stat()
    write(data / "a.dcm", "p1", PatientBirthDate="19710317")
    os.utime(data, ns=(state.st_atime_ns, state.st_mtime_ns))
    report = index_folder(store, data)
    assert (report.new, all_of(store).age_years.tolist()) == (1, [(50 * 365 + 13) / 365.25])
