"""BIDS data sets: who comes in, how old, and why volumes are out."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fedage.client.cohort.indexing.bids import BidsLayout, index_bids, is_bids
from fedage.client.cohort.store.query import Selection, select
from fedage.client.cohort.store.store import CohortStore
from fedage.common.errors import FedAgeError

KEY = bytes(range(32))
RNG = np.random.default_rng(1)


def volume(path: Path, *, shape: tuple[int, ...] = (6, 5, 4), affine: Any = None) -> None:
    """A small T1w volume, 1 × 1.5 × 2 mm, LAS, unless said otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = RNG.integers(0, 500, size=shape).astype(np.int16)
    image = nib.Nifti1Image(data, np.diag([-1.0, 1.5, 2.0, 1.0]) if affine is None else affine)
    nib.save(image, path)


def data_set(root: Path, participants: str, *, about: object = None) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "participants.tsv").write_text(participants)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    if about is not None:
        (root / "participants.json").write_text(json.dumps(about))
    return root


def t1w(root: Path, name: str, session: str = "", **about: Any) -> Path:
    folder = root / f"sub-{name}" / (f"ses-{session}" if session else ".") / "anat"
    path = folder / f"sub-{name}{f'_ses-{session}' if session else ''}_T1w.nii.gz"
    volume(path, **about)
    return path


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return CohortStore.open(tmp_path / "home", key=KEY)


def everybody(store: CohortStore) -> Selection:
    return select(store, modalities=("MR",), age_min_years=0, age_max_years=130)


def by_name(store: CohortStore, values: Any, *names: str) -> list[float]:
    found = everybody(store)
    return [float(values(found)[found.keys.index(store.patient_key(f"sub-{name}"))]) for name in names]


def test_participants_come_in_with_age_sex_scanner_and_geometry(store: CohortStore, tmp_path: Path) -> None:
    root = data_set(
        tmp_path / "data",
        "participant_id\tage\tsex\tgroup\nsub-01\t34.5\tF\tx\nsub-02\t61.25\tmale\ty\nsub-03\t89+\to\tz\nsub-04\tn/a\tM\t\n",
    )
    assert is_bids(root)
    sidecar = t1w(root, "01").with_name("sub-01_T1w.json")
    sidecar.write_text(json.dumps({"Manufacturer": "Siemens", "PatientName": "Zwyntarow"}))
    for name in ("02", "03", "04", "05"):
        t1w(root, name)
    (root / "T1w.json").write_text(json.dumps({"Manufacturer": "GE"}))
    report = index_bids(store, root)
    assert (report.files, report.new, report.patients, report.exams, report.images) == (5, 5, 3, 3, 3)
    assert report.rejected == {"no-age": 1, "not-in-table": 1}
    assert by_name(store, lambda found: found.age_years, "01", "02", "03") == [34.5, 61.25, 89.0]
    assert by_name(store, lambda found: found.age_capped, "01", "03") == [0.0, 1.0]
    assert by_name(store, lambda found: found.is_male, "01", "02") == [0.0, 1.0]
    assert np.isnan(by_name(store, lambda found: found.is_male, "03"))
    makers = select(store, modalities=("MR",), age_min_years=0, age_max_years=130, manufacturers=("siemens",))
    assert makers.keys == (store.patient_key("sub-01"),)
    with store.reading() as connection:
        of_volume = "SELECT rows, columns, slices, voxel_mm, orientation, modality FROM images WHERE view = 'T1W'"
        assert tuple(connection.execute(of_volume).fetchone()) == (6, 5, 4, "1 1.5 2", "LAS", "MR")
    raw = b"".join(path.read_bytes() for path in (tmp_path / "home").iterdir())
    assert b"sub-01" not in raw
    assert b"Zwyntarow" not in raw


def test_whole_numbers_are_completed_units_of_what_the_json_says(store: CohortStore, tmp_path: Path) -> None:
    table = "participant_id\tage\tsex\n" + "".join(
        f"sub-{name}\t{age}\t{sex}\n" for name, age, sex in (("a", 18, 1), ("b", 30, 2), ("c", 2000, 1))
    )
    about = {"age": {"Units": "months"}, "sex": {"Levels": {"1": "male sex", "2": {"Description": "Female"}}}}
    root = data_set(tmp_path / "data", table, about=about)
    for name in "abc":
        t1w(root, name)
    assert index_bids(store, root).rejected == {"implausible-age": 1}
    assert by_name(store, lambda found: found.age_years, "a", "b") == pytest.approx([18.5 / 12, 30.5 / 12])
    assert by_name(store, lambda found: found.is_male, "a", "b") == [1.0, 0.0]
    assert by_name(store, lambda found: found.age_resolution_years, "a") == pytest.approx([1 / 12])
    (root / "participants.json").write_text(json.dumps({"age": {"Units": "fortnights"}}))
    with pytest.raises(FedAgeError, match="age is in 'fortnights'; allowed are years"):
        index_bids(store, root)
    assert store.counts()["patients"] == 2


def test_a_later_session_needs_its_own_age_or_times(store: CohortStore, tmp_path: Path) -> None:
    root = data_set(tmp_path / "data", "participant_id\tage\nsub-a\t40.0\nsub-b\t50.5\nsub-c\t60.5\nsub-d\t70.5\n")
    for name, session in (("a", "1"), ("a", "2"), ("b", "2"), ("b", "1"), ("c", "1"), ("c", "2"), ("d", "2")):
        t1w(root, name, session)
    (root / "sub-d/ses-1/func").mkdir(parents=True)  # d's only volume is not of the first session
    (root / "sub-a/sub-a_sessions.tsv").write_text("session_id\tage\nses-1\t40.2\nses-2\t43.7\n")
    (root / "sub-b/sub-b_sessions.tsv").write_text(  # the second label was scanned first
        "session_id\tacq_time\nses-1\t1901-03-02T10:00:00\nses-2\t1900-03-02T10:00:00\n"
    )
    report = index_bids(store, root)
    assert (report.images, report.exams, report.rejected) == (5, 5, {"no-age-of-session": 2})
    assert by_name(store, lambda found: found.age_years, "a", "b", "c") == [40.2, 50.5, 60.5]
    later = select(store, modalities=("MR",), age_min_years=51, age_max_years=55)
    assert later.age_years.tolist() == [pytest.approx(50.5 + 365 / 365.25)]
    assert later.keys == (store.patient_key("sub-b"),)
    assert later.images == (("sub-b/ses-1/anat/sub-b_ses-1_T1w.nii.gz",),)


def test_volumes_that_are_none_are_out_by_reason(store: CohortStore, tmp_path: Path) -> None:
    names = ["4d", "zero", "nocode", "nan", "cut", "text", "flat", "huge", "good"]
    root = data_set(tmp_path / "data", "participant_id\tage\n" + "".join(f"sub-{name}\t40.5\n" for name in names))
    t1w(root, "4d", shape=(4, 4, 4, 3))
    nocode = t1w(root, "nocode")
    header = bytearray(gzip.decompress(nocode.read_bytes()))
    header[252:256] = bytes(4)  # qform_code and sform_code
    nocode.write_bytes(gzip.compress(header))
    t1w(root, "good")
    t1w(root, "huge", affine=np.diag([100.0, 1, 1, 1]))
    cut = t1w(root, "cut", shape=(20, 20, 20))
    cut.write_bytes(cut.read_bytes()[:-2000])
    zero = t1w(root, "zero")
    image: Any = nib.load(zero)
    image.set_sform(np.zeros((4, 4)), code=1)
    nib.save(image, zero)
    for name, value in (("nan", np.nan), ("flat", 0.0)):
        path = t1w(root, name)
        data = np.zeros((4, 4, 4), dtype=np.float32)
        data[0, 0, 0] = value
        nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    t1w(root, "text").write_text("no volume")
    (root / "sub-good/func").mkdir()
    (root / "sub-good/func/sub-good_task-rest_bold.nii.gz").write_text("not looked at")
    report = index_bids(store, root)
    assert report.rejected == {
        "not-3d": 1,
        "bad-affine": 3,
        "not-finite": 1,
        "truncated": 1,
        "not-nifti": 1,
        "no-contrast": 1,
    }
    assert (report.files, report.images) == (9, 1)


def test_only_what_changed_is_read_again(store: CohortStore, tmp_path: Path) -> None:
    table = "participant_id\tage\nsub-a\t40.5\nsub-b\t50.5\nsub-c\t60.5\n"
    root = data_set(tmp_path / "data", table)
    for name in "abc":
        t1w(root, name)
    assert index_bids(store, root).new == 3
    unit = dict(zip(everybody(store).keys, everybody(store).split_uniform, strict=True))
    assert (index_bids(store, root).new, index_bids(store, root).unchanged) == (0, 3)
    (root / "participants.tsv").write_text(table.replace("50.5", "51.5"))
    assert index_bids(store, root).new == 1
    assert by_name(store, lambda found: found.age_years, "a", "b", "c") == [40.5, 51.5, 60.5]
    (root / "sub-c/anat/sub-c_T1w.json").write_text('{"Manufacturer": "Philips"}')
    assert index_bids(store, root).new == 1
    (root / "sub-a/anat/sub-a_T1w.nii.gz").unlink()
    (root / "participants.tsv").write_text(table + "sub-d\t20.5\n")
    t1w(root, "d")
    report = index_bids(store, root)
    assert (report.new, report.removed, report.patients) == (2, 1, 3)  # b's age is as it was again
    assert all(
        unit.get(key, value) == value
        for key, value in zip(everybody(store).keys, everybody(store).split_uniform, strict=True)
    )


def test_links_are_left_and_other_layouts_found(store: CohortStore, tmp_path: Path) -> None:
    root = data_set(tmp_path / "data", "participant_id\tage\n1\t40.5\n2\t50.5\n")
    volume(root / "train/raw/sub-1/ses-1/sub-1_T1w.nii.gz")
    (root / "train/raw/sub-2").symlink_to(root / "train/raw/sub-1")
    report = index_bids(store, root, layout=BidsLayout(bases=("train/raw", "val/raw"), anat="."))
    assert (report.images, report.links) == (1, 1)
    assert index_bids(store, root).images == 0


def test_a_folder_that_fails_keeps_what_is_known(
    store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = data_set(tmp_path / "data", "participant_id\tage\nsub-a\t40.5\nsub-b\t50.5\n")
    t1w(root, "a")
    t1w(root, "b")
    assert index_bids(store, root).images == 2
    really = Path.iterdir

    def failing(folder: Path) -> Any:
        if folder.name == "sub-a":
            raise OSError(5, "Input/output error")
        return really(folder)

    monkeypatch.setattr(Path, "iterdir", failing)
    report = index_bids(store, root)
    assert (report.images, report.removed, report.closed_folders) == (2, 0, 1)
    monkeypatch.undo()
    assert index_bids(store, root).new == 0


@pytest.mark.parametrize(
    ("participants", "says"),
    [
        ("id\tage\nsub-1\t3\n", "no column 'participant_id', it has 2 columns"),
        ("", "no column 'participant_id', it has 0 columns"),
    ],
)
def test_a_table_without_participants_is_refused(
    store: CohortStore, tmp_path: Path, participants: str, says: str
) -> None:
    with pytest.raises(FedAgeError, match=says):
        index_bids(store, data_set(tmp_path / "data", participants))
    with pytest.raises(FedAgeError, match=r"has no participants\.tsv"):
        index_bids(store, tmp_path)


@pytest.mark.timeout(20)
def test_pipes_among_descriptions_are_not_waited_for(store: CohortStore, tmp_path: Path) -> None:
    root = data_set(tmp_path / "data", "participant_id\tage\nsub-a\t40.5\n")
    beside = t1w(root, "a").with_name("sub-a_T1w.json")
    beside.unlink(missing_ok=True)
    os.mkfifo(beside)
    os.mkfifo(root / "T1w.json")
    assert index_bids(store, root).images == 1
    os.mkfifo(root / "participants.json")
    with pytest.raises(FedAgeError, match=r"participants\.json is no file"):
        index_bids(store, root)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", ["_T1w.nii", "_T1w.nii.gz", "_MPRAGE.nii"])
def test_a_pipe_named_as_a_volume_is_set_aside_with_a_reason(store: CohortStore, tmp_path: Path, suffix: str) -> None:
    root = data_set(tmp_path / "data", "participant_id\tage\nsub-a\t40.5\nsub-b\t50.5\n")
    os.mkfifo(t1w(root, "a").with_name(f"sub-a_run-2{suffix}"))
    report = index_bids(store, root)
    assert (report.images, report.rejected) == (1, {"unreadable": 1})


def regions(*, values: int, kind: str, noise: float) -> Any:
    """(40, 36, 32): balls in balls of so many values, background 0, noise inside."""
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 36, 32)), indexing="ij")
    inside = np.sqrt(i * i + j * j + k * k) < 0.95
    level = np.ceil((1 - np.sqrt(i * i + j * j + k * k)) * values) * inside * (100 / values)
    return np.where(inside, np.maximum(level + RNG.normal(0, noise, level.shape), 1), 0).astype(kind)


@pytest.mark.parametrize(
    ("data", "taken"),
    [
        (regions(values=4, kind="uint8", noise=0), False),
        (regions(values=1, kind="int16", noise=0), False),
        (regions(values=5, kind="float32", noise=0), False),
        (regions(values=4, kind="uint8", noise=3), True),
        (regions(values=4, kind="int16", noise=1.5), True),
        (regions(values=4, kind="float32", noise=0.2), True),
    ],
)
def test_labels_of_regions_are_no_head(store: CohortStore, tmp_path: Path, data: Any, taken: bool) -> None:
    root = data_set(tmp_path / "data", "participant_id\tage\nsub-a\t40.5\n")
    nib.save(nib.Nifti1Image(data, np.diag([1.0, 1.0, 1.0, 1.0])), t1w(root, "a"))
    report = index_bids(store, root)
    assert (report.images, report.rejected) == ((1, {}) if taken else (0, {"not-grey-values": 1}))
