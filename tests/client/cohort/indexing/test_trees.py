"""Trees as archives hold them: zipped studies, DICOMDIRs, closed and circular folders; nothing is counted twice."""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pydicom.data
import pytest

from fedage.client.cohort.decoding import archive
from fedage.client.cohort.decoding.archive import open_image
from fedage.client.cohort.decoding.images import load_image
from fedage.client.cohort.indexing import index, tree
from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.samples.cache import SampleCache
from fedage.client.cohort.store.store import CohortStore
from fedage.common.preprocessing.image import SampleRefused
from tests.client.cohort.dicoms import all_of, ramp, write, write_without_pixels
from tests.client.cohort.samples.test_samples import Corner


def zipped(target: Path, files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", method) as made:
        for name, content in files.items():
            made.writestr(name, content)


def image(tmp_path: Path, patient: str, number: int = 0) -> bytes:
    write(tmp_path / "one.dcm", patient, pixels=ramp() + np.uint16(number))
    return (tmp_path / "one.dcm").read_bytes()


def test_a_zipped_study_is_read_where_it_lies(store: CohortStore, data: Path, tmp_path: Path) -> None:
    for name, method in (("a.zip", zipfile.ZIP_DEFLATED), ("b", zipfile.ZIP_STORED)):
        files = {f"x/y/{number}": image(tmp_path, f"{name}-{number}", number) for number in range(2)}
        zipped(data / name, files | {"x/../../../etc/readme.txt": b"words"}, method=method)
    report = index_folder(store, data)
    assert (report.files, report.new, report.patients, report.images, report.rejected) == (6, 6, 4, 4, {"not-dicom": 2})
    found = all_of(store)
    samples = SampleCache(tmp_path / "cache", root=data).build(found, Corner())  # type: ignore[arg-type]
    assert samples.selection.n == 4
    assert sorted(samples.samples["image"][:, 0, 0, 0].tolist()) == [3.0, 3.0, 4.0, 4.0]
    assert {"0", "1", "x", "readme.txt"}.isdisjoint(path.name for path in tmp_path.rglob("*"))  # nothing was unpacked
    report = index_folder(store, data)
    assert (report.new, report.unchanged) == (0, 6)


def test_a_changed_archive_is_read_again_whole(store: CohortStore, data: Path, tmp_path: Path) -> None:
    kept = image(tmp_path, "kept")
    zipped(data / "a.zip", {"1": kept, "2": image(tmp_path, "goes")})
    index_folder(store, data)
    zipped(data / "a.zip", {"1": kept, "3": image(tmp_path, "comes"), "4": image(tmp_path, "too")})
    report = index_folder(store, data)
    assert (report.new, report.unchanged, report.patients) == (3, 0, 3)
    assert store.patient_key("goes") not in all_of(store).keys
    (data / "a.zip").unlink()
    assert index_folder(store, data).files == 0


def test_an_image_beside_its_archive_is_counted_once(store: CohortStore, data: Path, tmp_path: Path) -> None:
    content = image(tmp_path, "p1")
    zipped(data / "a.zip", {"1": content, "2": content})
    (data / "b.dcm").write_bytes(content)
    report = index_folder(store, data)
    assert (report.images, report.rejected) == (1, {"duplicate-image": 2})
    (data / "a.zip").unlink()
    report = index_folder(store, data)
    assert (report.files, report.images, report.rejected) == (1, 1, {})


def test_archives_that_are_not_read_say_why(store: CohortStore, data: Path, tmp_path: Path) -> None:
    content = image(tmp_path, "p1")
    zipped(data / "encrypted.zip", {"secret": content})
    raw = bytearray((data / "encrypted.zip").read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    (data / "encrypted.zip").write_bytes(raw)
    zipped(data / "cut.zip", {"1": content, "2": content})
    (data / "cut.zip").write_bytes((data / "cut.zip").read_bytes()[:-40])
    zipped(data / "empty.zip", {})
    zipped(data / "inner.zip", {"1": content})
    zipped(data / "outer.zip", {"inner.zip": (data / "inner.zip").read_bytes()})
    (data / "inner.zip").unlink()
    zipped(data / "spoilt.zip", {"1": content}, method=zipfile.ZIP_STORED)
    raw = bytearray((data / "spoilt.zip").read_bytes())
    raw[500] ^= 0xFF
    (data / "spoilt.zip").write_bytes(raw)
    report = index_folder(store, data)
    assert (report.files, report.images) == (5, 0)
    assert report.rejected == {"broken-archive": 3, "encrypted-archive": 1, "nested-archive": 1}


def test_zip_bombs_are_not_unpacked(
    store: CohortStore, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "EXPANSION_FREE_BYTES", 1_000_000)
    zipped(data / "bomb.zip", {"zeros": bytes(20_000_000)})
    monkeypatch.setattr(archive, "MAX_MEMBERS", 20)
    zipped(data / "many.zip", {f"{number}": b"x" for number in range(21)})
    # A directory that promises less than there is: the member ends where it promised to, and its checksum is wrong.
    zipped(data / "liar.zip", {"zeros": bytes(30_000)})
    raw = bytearray((data / "liar.zip").read_bytes())
    at = raw.index(b"PK\x01\x02") + 24
    raw[at : at + 4] = (100).to_bytes(4, "little")
    (data / "liar.zip").write_bytes(raw)
    report = index_folder(store, data)
    assert (report.files, report.rejected) == (3, {"archive-too-large": 2, "broken-archive": 1})
    monkeypatch.setattr(archive, "EXPANSION_FREE_BYTES", 2**30)
    monkeypatch.setattr(archive, "MAX_INFLATED_BYTES", 10_000)
    zipped(data / "large.zip", {"zeros": bytes(20_000), "image": image(tmp_path, "p1")})
    report = index_folder(store, data)
    assert (report.images, report.rejected.get("too-large")) == (1, 1)


def test_a_central_directory_of_gigabytes_is_not_read(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped(data / "a.zip", {f"{number:0100d}": b"" for number in range(100)})
    monkeypatch.setattr(archive, "MAX_DIRECTORY_BYTES", 10_000)
    with pytest.raises(archive.Refused) as refused:
        list(archive.members(data / "a.zip"))
    assert refused.value.code == "archive-too-large"


def test_a_member_that_is_gone_is_refused_like_a_file_that_is_gone(data: Path) -> None:
    zipped(data / "a.zip", {"1": b"x"})
    with open_image(data / "a.zip\0001") as stream:
        assert stream.read() == b"x"
    for path in ("a.zip\0002", "b.zip\0001", "c"):
        with pytest.raises(SampleRefused, match="undecodable"):
            load_image(data / path)


MEDIUM = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests"


@pytest.fixture
def medium(data: Path) -> Path:
    """A DICOMDIR as it came on a disc, 31 small files that it names, and an image that it does not."""
    (data / "disc").mkdir()
    shutil.copy(MEDIUM / "DICOMDIR", data / "disc" / "DICOMDIR")
    for folder in ("77654033", "98892001", "98892003"):
        shutil.copytree(MEDIUM / folder, data / "disc" / folder)
    write(data / "disc" / "not-named.dcm", "p9")
    return data / "disc"


def test_a_dicomdir_is_followed_and_what_it_names_in_vain_is_told(store: CohortStore, data: Path, medium: Path) -> None:
    report = index_folder(store, data)
    # 4 radiographs, 4 slices alone, one stack of 5; two planes in one series four times, a CT with a gap
    series = {"missing-slices": 4, "mixed-orientation": 15}
    assert (report.files, report.images, report.rejected) == (33, 9, {"dicomdir": 1, **series})
    lost = medium / "77654033" / "CR1" / "6154"
    content = lost.read_bytes()
    lost.unlink()
    report = index_folder(store, data)
    assert (report.files, report.removed, report.rejected["missing-file"], report.rejected["dicomdir"]) == (33, 1, 1, 1)
    shutil.move(medium / "77654033" / "CR1", medium / "77654033" / "cr1")  # as media are often mounted
    (medium / "77654033" / "cr1" / "6154").write_bytes(content)
    report = index_folder(store, data)
    assert (report.files, report.rejected["dicomdir"]) == (33, 1)
    assert "missing-file" not in report.rejected


def test_a_dicomdir_that_names_files_elsewhere_is_not_followed(store: CohortStore, data: Path, medium: Path) -> None:
    raw = (medium / "DICOMDIR").read_bytes()
    (medium / "DICOMDIR").write_bytes(raw.replace(b"77654033\\", b"..      \\"))
    gone = sum(path.is_file() for path in (medium / "98892001").rglob("*"))
    shutil.rmtree(medium / "98892001")
    report = index_folder(store, data)
    assert report.rejected["missing-file"] == gone > 0  # of the folder that is gone; none of those above the disc
    (medium / "DICOMDIR").write_bytes(raw[: len(raw) // 2])
    report = index_folder(store, data)
    assert report.images + report.rejected["missing-slices"] + report.rejected["mixed-orientation"] == 32 - gone
    assert set(report.rejected) <= {"dicomdir", "truncated", "unreadable", "missing-slices", "mixed-orientation"}


def test_a_folder_mounted_into_itself_ends(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A circle of folders, as a broken network file system may show one: below `data` lies `data`, without end."""
    write(data / "1.dcm", "p1")
    (data / "again").mkdir()
    scandir, stat = os.scandir, os.stat

    def within(path: str) -> str:
        return str(path).replace("/again", "")

    monkeypatch.setattr(os, "scandir", lambda path: scandir(within(path)))
    monkeypatch.setattr(os, "stat", lambda path, **how: stat(within(path), **how))
    found = tree.walk(data)
    assert 1 <= len(found.files) <= tree.DEEP + 3


def test_files_nobody_may_read_are_counted_and_tried_again() -> None:
    """As another OS user where this is a superuser, who may read everything."""
    script = """
        import os, sys
        from pathlib import Path
        from fedage.client.cohort.indexing.index import index_folder
        from fedage.client.cohort.store.store import CohortStore
        for name in ("as-myself", "home"):  # once before, so that all is imported that the other may not read either
            with CohortStore.open(Path(sys.argv[1], name)) as store:
                report = index_folder(store, Path(sys.argv[1], "data"))
            if os.getuid() == 0:
                os.seteuid(65534)
        print(report.files, report.patients, report.closed_folders, report.rejected)
    """

    def indexed(folder: str) -> str:
        command = [sys.executable, "-c", textwrap.dedent(script), folder]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        data = Path(folder, "data")
        write(data / "open.dcm", "p1")
        write(data / "shut.dcm", "p2")
        write(data / "folder" / "a.dcm", "p3")
        (data / "shut.dcm").chmod(0)
        (data / "folder").chmod(0)
        assert indexed(folder) == "2 1 1 {'unreadable': 1}"
        (data / "shut.dcm").chmod(0o644)
        (data / "folder").chmod(0o755)
        assert indexed(folder) == "3 3 0 {}"


def test_files_without_extension_and_reports_among_them(store: CohortStore, data: Path) -> None:
    write(data / "IM000001", "p1")
    write_without_pixels(data / "SR000001", Modality="SR")
    (data / "VERSION").write_text("1")
    report = index_folder(store, data)
    assert (report.images, report.rejected) == (1, {"not-an-image": 1, "not-dicom": 1})


def test_all_of_an_archive_is_kept_or_nothing(
    store: CohortStore, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(data / "a.zip", {f"{number}": image(tmp_path, f"a{number}") for number in range(5)})
    zipped(data / "b.zip", {f"{number}": image(tmp_path, f"b{number}") for number in range(5)})
    monkeypatch.setattr(index, "_BATCH", 1)
    monkeypatch.setattr(index, "_CHUNK", 1)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_folder(store, data, progress=stop)
    assert store.counts()["images"] == 5
    report = index_folder(store, data)
    assert (report.new, report.unchanged, report.patients) == (5, 5, 10)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [["IM1", "IM1"], ["a/IM1", "IM2", "a/IM1", "a/IM1"], ["IM1", "IM1", "IM2", "IM2"]])
def test_members_of_one_name_are_all_counted(store: CohortStore, data: Path, tmp_path: Path, names: list[str]) -> None:
    """The last is read, as by every program that unpacks; the others were in no count."""
    with zipfile.ZipFile(data / "a.zip", "w") as made:
        for number, name in enumerate(names):
            made.writestr(name, image(tmp_path, f"p{number}"))

    for _ in range(2):
        report = index_folder(store, data)

        different = len(set(names))
        assert (report.files, report.images) == (len(names), different)
        assert report.rejected == {"repeated-name": len(names) - different}


@pytest.mark.parametrize("within", ["", "disc/", "a/b/"])
def test_what_a_zipped_dicomdir_names_in_vain_is_told(store: CohortStore, data: Path, within: str) -> None:
    files = [path for path in sorted((MEDIUM / "77654033").rglob("*")) if path.is_file()]
    content = {f"{within}{path.relative_to(MEDIUM).as_posix()}": path.read_bytes() for path in files}
    zipped(data / "disc.zip", {f"{within}DICOMDIR": (MEDIUM / "DICOMDIR").read_bytes(), **content})

    report = index_folder(store, data)

    assert report.rejected["dicomdir"] == 1
    assert report.rejected["missing-file"] == 31 - len(files)
    assert report.files == 32
    assert index_folder(store, data).unchanged == 32


@pytest.mark.parametrize("inner", ["study.zip", "IM1", "a/b/c.dcm"])
@pytest.mark.parametrize("flag", [0x1, 0x41], ids=["password", "strong encryption"])
def test_a_zip_of_a_zip_a_secret_and_an_image_counts_each(
    store: CohortStore, data: Path, tmp_path: Path, inner: str, flag: int
) -> None:
    content = image(tmp_path, "p1")
    zipped(tmp_path / "inner.zip", {"1": content})
    zipped(data / "a.zip", {inner: (tmp_path / "inner.zip").read_bytes(), "secret": content, "plain": content})
    raw = bytearray((data / "a.zip").read_bytes())
    for start, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        name = raw.index(b"secret") if at == 6 else raw.rindex(b"secret")
        raw[raw.rindex(start, 0, name) + at] |= flag
    (data / "a.zip").write_bytes(raw)

    report = index_folder(store, data)

    assert (report.files, report.images) == (3, 1)
    assert report.rejected == {"encrypted-archive": 1, "nested-archive": 1}
