"""What was set aside, summed up: every reason counted, no name and no path unless asked for."""

import zipfile
from pathlib import Path

import pytest
from rich.console import Console

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.indexing.rejects_page import (
    ScannerCount,
    rejected_groups,
    rejects_table,
    render_rejects,
    write_rejects_page,
)
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.store.store import CohortStore
from tests.client.cohort.dicoms import cut, write, write_without_pixels


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    data = tmp_path / "data"
    for number in range(3):
        write(data / "Zwyntarow" / f"burned-{number}.dcm", f"p{number}", BurnedInAnnotation="YES", Modality="DX")
    write(data / "Zwyntarow" / "cut.dcm", "p4", Manufacturer="<b>Maker & Sons</b>")
    cut(data / "Zwyntarow" / "cut.dcm", bytes_off=9)
    write_without_pixels(data / "report.dcm", Modality="SR")
    write(data / "good.dcm", "p9")
    with zipfile.ZipFile(data / "study.zip", "w") as archive:
        archive.writestr("inner/notes.txt", "nothing")
    found = CohortStore.open(tmp_path / "home")
    index_folder(found, data)
    return found


def test_counts_by_reason_and_by_scanner(store: CohortStore) -> None:
    found = {one.code: one for one in rejected_groups(store)}
    assert {code: one.files for code, one in found.items()} == {
        "burned-in-annotation": 3,
        "truncated": 1,
        "not-an-image": 1,
        "not-dicom": 1,
    }
    assert found["burned-in-annotation"].kinds == (ScannerCount("DX", "Phantom Imaging", 3),)
    assert found["truncated"].kinds == (ScannerCount("CR", "<b>Maker & Sons</b>", 1),)
    assert found["not-dicom"].kinds == (ScannerCount("not said", "not said", 1),)
    assert next(iter(rejected_groups(store))).code == "burned-in-annotation"
    assert all(one.paths == () for one in found.values())


def test_the_page_tells_what_to_do_and_names_nobody(store: CohortStore, tmp_path: Path) -> None:
    page = write_rejects_page(store, tmp_path / "home")
    assert page == tmp_path / "home" / "rejects.html"
    assert page.stat().st_mode & 0o777 == 0o600
    text = page.read_text()
    for code in ("burned-in-annotation", "truncated", "not-an-image", "not-dicom"):
        assert code in text
        assert Reason(code).remedy.split("'")[0] in text
    assert "1 images of 1 patients" in text
    assert "6 files are out" in text
    assert "&lt;b&gt;Maker &amp; Sons&lt;/b&gt;" in text
    assert "<b>Maker" not in text
    for secret in ("Zwyntarow", ".dcm", "notes.txt", "http", "src=", "MRN"):
        assert secret not in text, secret
    assert [path.name for path in (tmp_path / "home").iterdir() if "rejects" in path.name] == ["rejects.html"]


def test_paths_are_listed_where_the_hospital_asks(store: CohortStore) -> None:
    text = render_rejects(store, paths=True)
    assert "Zwyntarow/cut.dcm" in text
    assert "study.zip → inner/notes.txt" in text
    assert "Do not pass it on" in text


def test_an_empty_store_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with CohortStore.open(tmp_path / "home") as store:
        index_folder(store, tmp_path / "data")
        assert "0 files are out." in render_rejects(store)
        assert rejects_table(store).row_count == 0


def test_the_terminal_s_table_fits_and_says_what_to_do(store: CohortStore) -> None:
    console = Console(width=100, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(rejects_table(store))
    text = captured.get()
    assert "burned-in-annotation" in text
    assert "nothing to mend" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_every_reason_has_words_for_it() -> None:
    for reason in Reason:
        assert reason.description
        assert reason.remedy
        assert not reason.description.endswith((".", ";"))
        assert reason.sentence == f"{reason.description}; {reason.remedy}"
