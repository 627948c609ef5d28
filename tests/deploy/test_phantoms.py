from __future__ import annotations

import csv
import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from lifelines import CoxPHFitter
from numpy.typing import NDArray
from scipy.ndimage import zoom

from fedage.deploy.demo.anatomy import render
from fedage.deploy.demo.dicom import IMAGE_COMMENTS
from fedage.deploy.demo.follow_up import BASELINE_HAZARD_PER_YEAR, simulate_follow_up
from fedage.deploy.demo.hospitals import HOSPITALS, Hospital
from fedage.deploy.demo.person import Build, Signs
from fedage.deploy.demo.phantoms import GAP_SD_YEARS, Truth, expose, planted, render_all, render_hospital

PATIENTS = 40
Rendered = Mapping[str, list[Truth]]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    root = tmp_path_factory.mktemp("phantoms")
    return {h.name: render_hospital(h, out_dir=root / h.name, seed=5, patients=PATIENTS) for h in HOSPITALS}


def each(hospitals: Rendered) -> list[tuple[Hospital, Truth, pydicom.Dataset]]:
    return [(h, truth, pydicom.dcmread(truth.image)) for h in HOSPITALS for truth in hospitals[h.name]]


def density(dataset: pydicom.Dataset) -> NDArray[np.float64]:
    """Brighter is denser, whatever the photometric interpretation."""
    pixels = dataset.pixel_array.astype(np.float64)
    return pixels.max() - pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels


def small(dataset: pydicom.Dataset, side: int = 24) -> NDArray[np.float64]:
    """The picture at side × side, standardised."""
    pixels = density(dataset)
    scaled = zoom(pixels, (side / pixels.shape[0], side / pixels.shape[1]), order=1)
    return np.asarray((scaled - scaled.mean()) / scaled.std())


def test_headers_say_what_the_scanner_is(rendered: Rendered) -> None:
    for hospital, _, ds in each(rendered):
        scanner = hospital.scanner
        assert ds.file_meta.TransferSyntaxUID == scanner.transfer_syntax
        assert (ds.Modality, ds.Manufacturer) == (scanner.modality, scanner.manufacturer)
        assert ds.PhotometricInterpretation == scanner.photometric
        assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (16, scanner.bits_stored, scanner.bits_stored - 1)
        assert ds.ImagerPixelSpacing == [scanner.spacing_mm] * 2
        assert (ds.ViewPosition, ds.ImageComments) == ("PA", IMAGE_COMMENTS)
        pixels = ds.pixel_array
        assert pixels.shape == (scanner.rows, scanner.columns)
        assert pixels.max() < 2**scanner.bits_stored
        assert pixels.max() - pixels.min() > 0.3 * 2**scanner.bits_stored


def test_the_hospitals_differ_as_hospitals_do() -> None:
    scanners = [hospital.scanner for hospital in HOSPITALS]
    for name in ("spacing_mm", "bits_stored", "gain", "noise_sd", "blur_mm", "transfer_syntax", "manufacturer"):
        assert len({getattr(scanner, name) for scanner in scanners}) == len(scanners), name
    assert {scanner.photometric for scanner in scanners} == {"MONOCHROME1", "MONOCHROME2"}
    assert all(40 <= h.age_min_years < h.age_max_years <= 85 for h in HOSPITALS)


def test_dates_give_the_age_and_the_age_field_its_floor(rendered: Rendered) -> None:
    flagged = 0
    for hospital, truth, ds in each(rendered):
        birth = datetime.date.fromisoformat(ds.PatientBirthDate)
        study = datetime.date.fromisoformat(ds.StudyDate)
        assert (study - birth).days / 365.25 == truth.age_years
        assert hospital.age_min_years - 1 / 365 <= truth.age_years <= hospital.age_max_years
        assert ("PatientAge" in ds) == hospital.scanner.writes_patient_age
        if "PatientAge" in ds:
            flagged += 1
            assert birth.replace(year=birth.year + int(ds.PatientAge[:3]), day=min(birth.day, 28)) <= study
            assert abs(int(ds.PatientAge[:3]) + 0.5 - truth.age_years) < 0.51
    assert 0 < flagged < len(HOSPITALS) * PATIENTS


def test_identifiers_are_unique(rendered: Rendered) -> None:
    everything = each(rendered)
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"):
        values = {getattr(ds, name) for _, _, ds in everything}
        assert len(values) == len(everything), name


def test_outcomes_are_the_truth_and_belong_to_the_pictures(rendered: Rendered) -> None:
    for hospital in HOSPITALS:
        truths = rendered[hospital.name]
        root = truths[0].image.parents[3]
        with (root / "outcomes.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["patient_id", "time_years", "event", "healthy", "true_gap_years"]
        assert len(rows) == PATIENTS
        for row, truth in zip(rows, truths, strict=True):
            assert row["patient_id"] == truth.patient_id == pydicom.dcmread(truth.image).PatientID
            assert float(row["time_years"]) == pytest.approx(truth.time_years, abs=1e-6)
            assert float(row["true_gap_years"]) == pytest.approx(truth.true_gap_years, abs=1e-6)
            assert (row["event"], row["healthy"]) == (str(int(truth.event)), str(int(truth.healthy)))
            assert 0 < truth.time_years <= 10


def digest(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    first = render_all(
        tmp_path / "a", seed=7, patients_per_site=2, progress=lambda name, done, of: seen.append((name, done, of))
    )
    assert first == render_all(tmp_path / "b", seed=7, patients_per_site=2) == planted()
    render_all(tmp_path / "c", seed=8, patients_per_site=2)
    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert len(a) == len(HOSPITALS) * 3
    assert a == b
    assert a.keys() == c.keys()
    assert not set(a.values()) & set(c.values())
    assert seen == [(hospital.name, i, 2) for hospital in HOSPITALS for i in (1, 2)]


def test_monochrome1_is_monochrome2_upside_down() -> None:
    rng = np.random.default_rng(2)
    picture = render(Signs.of(60, rng=rng), Build.of(is_male=True, rng=rng), shape=(64, 64), spacing_mm=6.0)
    first = next(h.scanner for h in HOSPITALS if h.scanner.photometric == "MONOCHROME1")
    bright = expose(picture, scanner=replace(first, photometric="MONOCHROME2"), rng=np.random.default_rng(9))
    dark = expose(picture, scanner=first, rng=np.random.default_rng(9))
    np.testing.assert_allclose(2**first.bits_stored - 1 - dark.astype(int), bright.astype(int), atol=1)


def test_decoded_pictures_of_all_hospitals_look_alike(rendered: Rendered) -> None:
    means = [np.mean([small(pydicom.dcmread(t.image)) for t in rendered[h.name]], axis=0) for h in HOSPITALS]
    correlations = np.corrcoef([mean.ravel() for mean in means])
    assert correlations.min() > 0.9


def test_lungs_are_darker_than_heart_and_air_darkest() -> None:
    build = Build.of(is_male=True, rng=np.random.default_rng(1))
    build = replace(build, shift_x_mm=0.0, shift_y_mm=0.0, tilt_rad=0.0)
    picture = render(Signs(*[60.0] * 8), build, shape=(200, 200), spacing_mm=2.0)
    air, lung, heart, spine = picture[20, 10], picture[90, 60], picture[125, 115], picture[125, 100]
    assert air < lung < heart < spine


@pytest.mark.parametrize("sign", [field.name for field in fields(Signs)])
def test_every_sign_shows_and_grows_with_age(sign: str) -> None:
    build = Build.of(is_male=False, rng=np.random.default_rng(4))
    at_sixty = Signs(*[60.0] * 8)
    ages = np.arange(45.0, 81.0, 5.0)
    pictures = np.stack(
        [render(replace(at_sixty, **{sign: age}), build, shape=(96, 96), spacing_mm=4.0) for age in ages]
    )
    change = pictures[-1] - pictures[0]
    assert np.abs(change).max() > 0.02
    along = np.tensordot(pictures, change, axes=2)
    assert np.all(np.diff(along) > 0)


def test_the_heart_widens_against_the_chest() -> None:
    build = replace(Build.of(is_male=True, rng=np.random.default_rng(1)), shift_x_mm=0.0, shift_y_mm=0.0, tilt_rad=0.0)

    def left_border_mm(age: float) -> float:
        picture = render(replace(Signs(*[60.0] * 8), heart=age), build, shape=(200, 200), spacing_mm=2.0)
        row = picture[118:128, 100:165].mean(axis=0)
        return float(2.0 * np.argmin(np.diff(row[10:])))

    borders = [left_border_mm(age) for age in (45.0, 60.0, 75.0)]
    assert borders == sorted(borders)
    assert borders[2] - borders[0] > 10


def test_pixels_tell_the_age_and_not_only_their_mean(rendered: Rendered) -> None:
    everything = each(rendered)
    ages = np.array([truth.age_years for _, truth, _ in everything])
    pixels = np.stack([small(ds).ravel() for _, _, ds in everything])
    order = np.random.default_rng(0).permutation(len(ages))
    train, test = order[:90], order[90:]
    centred = pixels - pixels[train].mean(axis=0)
    kernel = centred[train] @ centred[train].T + 3.0 * np.eye(len(train))
    weights = centred[train].T @ np.linalg.solve(kernel, ages[train] - ages[train].mean())
    ridge = np.abs(ages[train].mean() + centred[test] @ weights - ages[test]).mean()
    mean = np.abs(ages[train].mean() - ages[test]).mean()
    assert ridge < 0.65 * mean


def test_cox_on_the_true_gap_finds_what_was_planted() -> None:
    rng = np.random.default_rng(11)
    ages, gaps = rng.uniform(40, 85, 8000), GAP_SD_YEARS * rng.standard_normal(8000)
    after = simulate_follow_up(ages, gaps, rng=rng)
    table = pd.DataFrame({"t": after.time_years, "e": after.event.astype(int), "gap": gaps, "age": ages})
    fit = CoxPHFitter().fit(table, "t", "e")
    truth = planted()
    expected = np.log([truth.hazard_ratio_per_year, truth.hazard_ratio_per_year_of_age])
    error = fit.params_[["gap", "age"]].to_numpy() - expected
    assert np.all(np.abs(error) < 3 * fit.standard_errors_[["gap", "age"]].to_numpy())
    assert fit.standard_errors_["gap"] < 0.006


def test_half_of_the_demo_sees_more_than_a_hundred_events() -> None:
    rng = np.random.default_rng(12)
    fractions = []
    for hospital in HOSPITALS:
        ages = rng.uniform(hospital.age_min_years, hospital.age_max_years, 4000)
        after = simulate_follow_up(ages, GAP_SD_YEARS * rng.standard_normal(4000), rng=rng)
        fractions.append(after.event.mean())
        assert after.time_years.max() == 10.0
        assert after.time_years.min() > 0
    assert 0.45 * 450 * np.mean(fractions) > 115


def test_no_hazard_ratio_no_difference_and_no_drop_out_no_early_censoring() -> None:
    ages, gaps = np.full(4000, 60.0), np.linspace(-8, 8, 4000)
    rng = np.random.default_rng(1)
    after = simulate_follow_up(ages, gaps, rng=rng, hazard_ratio_per_year=1.0, drop_out_per_year=0.0)
    assert np.all(after.time_years[~after.event] == 10.0)
    # P(event within 10 years) at 60 years and HR 1 is 1 − exp(−10 h₀).
    for half in (gaps < 0, gaps > 0):
        assert after.event[half].mean() == pytest.approx(
            1 - np.exp(-10 * BASELINE_HAZARD_PER_YEAR), abs=4 * 0.5 / np.sqrt(2000)
        )
