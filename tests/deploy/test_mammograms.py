"""Phantoms of mammography exams: what their files say, and that a site reads them as the estimator wants them."""

from __future__ import annotations

import csv
import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.samples.cache import SampleCache
from fedage.client.cohort.store.query import select
from fedage.client.cohort.store.store import CohortStore
from fedage.common.estimators import make
from fedage.common.estimators.breast_4view import VIEWS
from fedage.deploy.demo.hospitals import Hospital
from fedage.deploy.demo.mammograms import HOSPITALS, render_mammography

PATIENTS = 8


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mammograms")
    for hospital in HOSPITALS:
        render_mammography(hospital, out_dir=folder / hospital.name, seed=3, patients=PATIENTS)
    return folder


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_the_same_seed_gives_the_same_bytes(rendered: Path, tmp_path: Path) -> None:
    render_mammography(HOSPITALS[1], out_dir=tmp_path / "again", seed=3, patients=PATIENTS)
    render_mammography(HOSPITALS[1], out_dir=tmp_path / "other", seed=4, patients=PATIENTS)
    assert digest(tmp_path / "again") == digest(rendered / HOSPITALS[1].name) != digest(tmp_path / "other")


@pytest.mark.parametrize("hospital", HOSPITALS, ids=lambda hospital: hospital.name)
def test_files_say_side_and_view_and_the_breast_lies_on_that_side(rendered: Path, hospital: Hospital) -> None:
    found = set()
    for path in (rendered / hospital.name).rglob("*.dcm"):
        header = pydicom.dcmread(path)
        assert (header.Modality, header.BodyPartExamined, header.PatientSex) == ("MG", "BREAST", "F")
        found.add((header.ImageLaterality, header.ViewPosition))
        pixels = header.pixel_array.astype(float)
        if header.PhotometricInterpretation == "MONOCHROME1":
            pixels = pixels.max() - pixels
        half = pixels.shape[1] // 2
        assert (pixels[:, :half].mean() > pixels[:, half:].mean()) == (header.ImageLaterality == "L")
    assert found == set(VIEWS.values())


def test_one_hospital_stores_dense_as_dark_and_some_exams_lack_a_view(rendered: Path) -> None:
    stored, counts = {}, []
    for hospital in HOSPITALS:
        studies = sorted((rendered / hospital.name / "images").iterdir())
        files = [sorted(study.rglob("*.dcm")) for study in studies]
        counts += [len(of_study) for of_study in files]
        stored[hospital.name] = pydicom.dcmread(files[0][0], stop_before_pixels=True).PhotometricInterpretation
    assert set(stored.values()) == {"MONOCHROME1", "MONOCHROME2"}
    assert set(counts) == {3, 4}


def test_density_falls_with_biological_age() -> None:
    from fedage.deploy.demo.breast import BreastSigns

    rng = np.random.default_rng(0)
    parts = [np.mean([BreastSigns.of(age, rng=rng).dense_part for _ in range(400)]) for age in (40, 50, 60, 70)]
    assert all(one > other + 0.05 for one, other in pairwise(parts))


def test_a_site_makes_samples_of_them_all(rendered: Path, tmp_path: Path) -> None:
    estimator = make("breast-4view", {"image_height": 64, "image_width": 32})
    hospital = HOSPITALS[1]
    data = rendered / hospital.name
    with CohortStore.open(tmp_path / "home") as store:
        index_folder(store, data / "images", outcomes_csv=data / "outcomes.csv")
        selection = select(store, modalities=("MG",), age_min_years=0, age_max_years=130, inputs=estimator.inputs)
    made = SampleCache(tmp_path / "cache", root=data / "images").build(selection, estimator, workers=1)
    assert made.selection.n == PATIENTS
    assert not made.rejected
    with (data / "outcomes.csv").open() as file:
        densities = [float(row["density"]) for row in csv.DictReader(file)]
    assert sorted(made.selection.outcomes["density"]) == sorted(densities)
    for name in VIEWS:
        there = made.samples[name][made.samples.has(name)]
        # The breast lies on the left, whatever its side and the file's photometric interpretation.
        assert (there[:, 0, :, :8].mean(axis=(1, 2)) > there[:, 0, :, -8:].mean(axis=(1, 2))).all()
