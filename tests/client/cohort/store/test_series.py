"""Series of single files: one image each, or out with a reason; a slice that comes mends, one that goes breaks."""

import hashlib
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from pydicom.uid import EnhancedMRImageStorage

from fedage.client.cohort.decoding.images import load_image
from fedage.client.cohort.decoding.stacks import load_series
from fedage.client.cohort.indexing import index
from fedage.client.cohort.indexing.index import IndexReport, index_folder
from fedage.client.cohort.indexing.rejects_page import rejected_groups
from fedage.client.cohort.store.query import select
from fedage.client.cohort.store.series import is_volume
from fedage.client.cohort.store.store import CohortStore
from fedage.common.preprocessing.image import SampleRefused
from tests.client.cohort.dicoms import AXIAL, BIRTH_DATE, all_of, cut, ramp, slice_at, write

TILT = math.radians(20)
OBLIQUE = (1.0, 0.0, 0.0, 0.0, math.cos(TILT), math.sin(TILT))
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def name_of(depth: float, series: str = "") -> str:
    """A name whose order has nothing to do with the slices'."""
    return hashlib.sha256(f"{series}{depth:g}".encode()).hexdigest()[:8]


def write_series(folder: Path, depths: list[float], patient: str = "p1", **place: Any) -> None:
    for depth in depths:
        where = slice_at(depth, **place)
        pixels = ramp() + np.uint16(100 * depth)
        write(folder / name_of(depth, where["SeriesInstanceUID"]), patient, pixels=pixels, **where)


def images(store: CohortStore) -> list[Any]:
    of_volume = "slices, voxel_mm, orientation"
    with store.reading() as connection:
        rows = connection.execute(f"SELECT {of_volume} FROM images ORDER BY {of_volume}")
        return [tuple(row) for row in rows]


def out(report: IndexReport) -> tuple[int, int, dict[str, int]]:
    return report.files, report.images, report.rejected


def test_a_series_is_one_image_and_its_slices_come_in_the_order_of_the_normal(store: CohortStore, data: Path) -> None:
    depths = [12.0, 0.0, 6.0, 3.0, 9.0]
    write_series(data, depths)
    report = index_folder(store, data)
    assert (report.files, report.new, report.patients, report.exams, report.images) == (5, 5, 1, 1, 1)
    assert (report.volumes, report.oblique, report.rejected) == (1, 0, {})
    assert images(store) == [(5, "0.5 0.8 3", "PLS")]  # rows down to the back, columns to the left, slices to the head
    found = select(store, modalities=("MR",), age_min_years=0, age_max_years=130)
    assert (found.n, found.age_years.tolist(), found.is_male.tolist()) == (1, [60.0], [0.0])
    (volume,) = found.images[0]
    assert is_volume(volume)
    names = store.slices(volume)
    assert sorted(names) == sorted(name_of(depth, "1.2.826.0.1.5") for depth in depths)
    loaded = load_series([store.root / name for name in names])
    assert np.array_equal(loaded.voxels, np.stack([ramp() + 100.0 * depth for depth in (0, 3, 6, 9, 12)]))
    assert loaded.stack.spacing_mm == pytest.approx((3.0, 0.5, 0.8))
    with pytest.raises(SampleRefused) as refused:  # an estimator of flat images gets no slice of it
        load_image(store.root / volume)
    assert refused.value.code == "multi-frame"


@pytest.mark.parametrize(
    ("depths", "reason"),
    [
        ([0, 3, 6, 12, 15], "missing-slices"),  # gaps 3 3 6 3
        ([0, 3, 6, 10.5], "variable-slice-gaps"),  # gaps 3 3 4.5
        ([0, 3, 3.0001, 6], "repeated-positions"),
        ([0, 5], None),
    ],
)
def test_gaps_by_hand(store: CohortStore, data: Path, depths: list[float], reason: str | None) -> None:
    write_series(data, depths)
    write(data / "x-ray", "p2")
    report = index_folder(store, data)
    files = len(depths) + 1
    if reason is None:
        assert out(report) == (files, 2, {})
    else:
        assert out(report) == (files, 1, {reason: len(depths)})
        assert (report.patients, report.exams) == (1, 1)  # whose only series is out is out
        (aside,) = rejected_groups(store)
        assert (aside.code, aside.files) == (reason, len(depths))
        assert [(kind.modality, kind.manufacturer) for kind in aside.kinds] == [("MR", "Phantom Imaging")]


def test_planes_and_oblique_ones(store: CohortStore, data: Path) -> None:
    planes = {"1.1": AXIAL, "1.2": CORONAL, "1.3": SAGITTAL, "1.4": OBLIQUE}
    for number, (series, plane) in enumerate(planes.items()):
        write_series(data / series, [0, 2, 4], f"p{number}", series=series, study=series, orientation=plane)
    report = index_folder(store, data)
    assert (report.images, report.volumes, report.oblique, report.rejected) == (4, 4, 1, {})
    # coronal: rows go down to the feet, columns to the left, n = x × −z = y; sagittal: n = y × −z = −x, to the right
    assert sorted(found for *_, found in images(store)) == ["ILP", "IPR", "PLS", "PLS oblique"]


def test_series_that_mix_planes_sizes_or_say_nothing_are_out(store: CohortStore, data: Path) -> None:
    write_series(data / "a", [0, 2, 4], series="1.1")
    write(data / "a" / "localiser", "p1", **slice_at(3, series="1.1", orientation=CORONAL))
    write_series(data / "b", [0, 2, 4], series="1.2")
    write(data / "b" / "large", "p1", pixels=ramp(8, 5), **slice_at(6, series="1.2"))
    for number in range(2):
        nowhere = slice_at(0, series="1.3") | {"ImagePositionPatient": None}
        write(
            data / "c" / str(number), "p1", **{k: v for k, v in nowhere.items() if v is not None or k == "ViewPosition"}
        )
    report = index_folder(store, data)
    assert out(report) == (10, 0, {"mixed-orientation": 8, "no-geometry": 2})
    assert report.patients == 0


def test_two_series_of_one_exam_are_two_images_and_those_of_two_patients_never_one(
    store: CohortStore, data: Path
) -> None:
    write_series(data / "a", [0, 2], series="1.1")
    write_series(data / "b", [0, 3], series="1.2")
    write_series(data / "c", [2, 4], "p2", series="1.1", study="1.9")  # the same SeriesInstanceUID, mistakenly
    report = index_folder(store, data)
    assert (report.patients, report.exams, report.images, report.volumes) == (2, 2, 3, 3)


def test_one_slice_alone_is_an_image_and_so_is_an_enhanced_object(store: CohortStore, data: Path) -> None:
    write(data / "alone", "p1", **slice_at(0))
    single = {"SOPClassUID": EnhancedMRImageStorage, "NumberOfFrames": 1}
    for number in range(2):
        write(data / f"enhanced-{number}", "p2", **{**slice_at(0, series="1.7", study="1.7"), **single})
    report = index_folder(store, data)
    assert (report.files, report.images, report.volumes, report.rejected) == (3, 3, 0, {})
    found = select(store, modalities=("MR",), age_min_years=0, age_max_years=130)
    assert sorted(path for paths in found.images for path in paths) == ["alone", "enhanced-0", "enhanced-1"]


def test_a_slice_that_comes_mends_its_series_and_one_that_goes_breaks_it(
    store: CohortStore, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    really = index.read_facts
    monkeypatch.setattr(index, "read_facts", lambda path, told: (read.append(path.name), really(path, told))[1])
    write_series(data, [0, 3, 9, 12])
    write_series(data / "other", [0, 3, 9], "p2", series="1.8", study="1.8")
    assert out(index_folder(store, data)) == (7, 0, {"missing-slices": 7})
    before = select(store, modalities=(), age_min_years=0, age_max_years=130)
    read.clear()
    write_series(data, [6])
    report = index_folder(store, data)
    assert read == [name_of(6, "1.2.826.0.1.5")]  # the others are not read again
    assert out(report) == (8, 1, {"missing-slices": 3})
    assert (report.new, report.unchanged, report.patients) == (1, 7, 1)
    whole = select(store, modalities=(), age_min_years=0, age_max_years=130)
    assert (before.n, whole.n) == (0, 1)
    assert images(store) == [(5, "0.5 0.8 3", "PLS")]

    (data / name_of(3, "1.2.826.0.1.5")).unlink()
    report = index_folder(store, data)
    assert out(report) == (7, 0, {"missing-slices": 7})
    assert (report.removed, report.patients, report.exams) == (1, 0, 0)
    for depth in (0, 9):
        (data / name_of(depth, "1.2.826.0.1.5")).unlink()
    report = index_folder(store, data)
    assert (report.images, report.rejected) == (1, {"missing-slices": 3})  # of two slices nobody knows what is between
    assert images(store) == [(2, "0.5 0.8 6", "PLS")]
    (data / name_of(6, "1.2.826.0.1.5")).unlink()
    assert index_folder(store, data).volumes == 0
    assert images(store) == [(1, "", "")]
    (data / name_of(12, "1.2.826.0.1.5")).unlink()
    shutil.rmtree(data / "other")
    assert out(index_folder(store, data)) == (0, 0, {})
    assert store.counts()["exams"] == 0


def test_grown_and_fresh_stores_are_equal_and_a_slice_replaced_shows(tmp_path: Path, data: Path) -> None:
    with (
        CohortStore.open(tmp_path / "a", key=bytes(32)) as grown,
        CohortStore.open(tmp_path / "b", key=bytes(32)) as new,
    ):
        for depth in (6.0, 0.0, 12.0, 9.0, 3.0):
            write_series(data, [depth])
            index_folder(grown, data)
        report = index_folder(new, data)
        assert (report.volumes, report.images) == (1, 1)
        assert all_of(grown).snapshot == all_of(new).snapshot
        assert (before := all_of(grown).files_digest) == all_of(new).files_digest
        name = name_of(9, "1.2.826.0.1.5")
        ds = pydicom.dcmread(data / name)
        ds.PixelData = (ramp() + np.uint16(1)).tobytes()
        ds.save_as(data / name)
        index_folder(grown, data)
        assert all_of(grown).snapshot == all_of(new).snapshot  # who is in and with what is as it was
        assert all_of(grown).files_digest != before  # samples of it are made anew


def test_a_truncated_or_repeated_slice_has_its_own_reason(store: CohortStore, data: Path) -> None:
    write_series(data, [0, 3, 6, 9])
    shutil.copy(data / name_of(6, "1.2.826.0.1.5"), data / "zz-copy")
    report = index_folder(store, data)
    assert out(report) == (5, 1, {"duplicate-image": 1})
    (data / name_of(6, "1.2.826.0.1.5")).unlink()  # the copy takes its place
    assert out(index_folder(store, data)) == (4, 1, {})
    cut(data / "zz-copy", bytes_off=9)
    assert out(index_folder(store, data)) == (4, 0, {"missing-slices": 3, "truncated": 1})


def test_an_indexing_that_is_cut_off_judges_at_the_next_one(
    store: CohortStore, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(data, [0, 3, 6, 9])
    monkeypatch.setattr(index, "_BATCH", 2)
    monkeypatch.setattr(index, "_CHUNK", 1)

    def stop(done: int, _total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_folder(store, data, progress=stop)
    assert store.counts()["images"] == 0
    report = index_folder(store, data)
    assert (report.new, report.unchanged, report.volumes) == (2, 2, 1)


def test_a_series_in_an_archive_is_put_together(store: CohortStore, data: Path, tmp_path: Path) -> None:
    write_series(tmp_path / "scratch", [0, 3, 6])
    with zipfile.ZipFile(data / "study.zip", "w") as archive:
        for path in sorted((tmp_path / "scratch").iterdir()):
            archive.write(path, path.name)
    report = index_folder(store, data)
    assert (report.files, report.images, report.volumes) == (3, 1, 1)
    ((volume,),) = select(store, modalities=(), age_min_years=0, age_max_years=130).images
    assert len(load_series([data / name for name in store.slices(volume)]).voxels) == 3
    (data / "study.zip").unlink()
    assert out(index_folder(store, data)) == (0, 0, {})


def test_series_of_a_real_medium(store: CohortStore) -> None:
    """Files that pydicom ships, their pixels taken down to 16 × 16; judged by their headers, gaps read off by hand."""
    root = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests"
    for folder, expected, oblique in (
        ("98892001/CT5N", {}, 0),  # five slices, every 2.5 mm
        ("77654033/CT2", {"missing-slices": 4}, 0),  # gaps 202.5, 1.25 and 1.25 mm
        ("98892001/CT2N", {"mixed-orientation": 2}, 0),  # a coronal and a sagittal scout
        ("98892003/MR700", {"mixed-orientation": 7}, 0),  # an angiogram, looked at from seven sides
    ):
        report = index_folder(store, root / folder)
        assert (report.rejected, report.volumes, report.oblique) == (expected, int(not expected), oblique), folder
    index_folder(store, root / "98892001/CT5N")
    assert images(store) == [(5, "0.4883 0.4883 2.5", "PLS")]


def test_no_uid_of_a_series_is_in_the_store(store: CohortStore, data: Path, tmp_path: Path) -> None:
    write_series(data / "Zwyntarow", [0, 3, 6], "MRN-7714423", series="1.2.826.0.1.55555")
    index_folder(store, data)
    found = b"".join(path.read_bytes() for path in sorted((tmp_path / "home").rglob("*")) if path.is_file())
    assert b"CREATE TABLE slices" in found
    names = [path.name for path in (data / "Zwyntarow").iterdir()]
    for secret in ("1.2.826.0.1.55555", "1.2.826.0.1.4", "MRN-7714423", "Zwyntarow", BIRTH_DATE, "20210317", *names):
        for encoding in ("utf-8", "utf-16-le"):
            assert secret.encode(encoding) not in found, secret
