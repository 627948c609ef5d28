"""Phantom heads: files of each hospital, the truth in them, and the same sample whatever file a volume came from."""

from __future__ import annotations

import dataclasses
import hashlib
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from fedage.client.cohort.indexing.bids import index_bids
from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.samples.cache import SampleCache
from fedage.client.cohort.samples.exams import load_eligible
from fedage.client.cohort.store.query import EligibleImage, Selection, select
from fedage.client.cohort.store.store import CohortStore
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators import make
from fedage.common.preprocessing.image import Exam, Image
from fedage.deploy.demo.brains import (
    BRAIN_HOSPITALS,
    BrainHospital,
    draw_patients,
    planted_in_brains,
    render_brain_hospital,
    write_nifti,
    write_series,
)
from fedage.deploy.demo.clinical2d_campaign import with_slices, with_volumes
from fedage.deploy.demo.heads import BrainSigns, Head, render
from fedage.deploy.demo.kinds import demo_of, names

HARBOUR, NORTH, VALLEY = BRAIN_HOSPITALS
OPTIONS = {"shape": [32, 32, 32], "spacing_mm": 6.0, "coarsest_mm": 6.0, "width": 8, "poolings": 3}


def small(hospital: BrainHospital) -> BrainHospital:
    """Few and large voxels, rendered and read in no time."""
    scanner = dataclasses.replace(hospital.scanner, shape=(16, 19, 15), spacing_mm=9.5)
    return dataclasses.replace(hospital, scanner=scanner)


def eligible(path: str, *, files: tuple[str, ...] = ()) -> EligibleImage:
    return EligibleImage(path=path, files=files, rank=3, modality="MR", view="T1W", laterality="")


def sample(image: Image, **options: object) -> np.ndarray:
    return make("brain-sfcn", {**OPTIONS, **options}).preprocess(Exam({"t1w": image}))["t1w"]


# --- one volume, several files ---


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> tuple[Image, np.ndarray]:
    """A volume read from its slices, and as it was before they were written."""
    folder, hospital = tmp_path_factory.mktemp("series"), small(HARBOUR)
    exams, _, volume = draw_patients(hospital, seed=3, patients=1)
    stored = volume(0)
    write_series(folder, stored, exam=exams[0], hospital=hospital)
    slices = tuple(file.name for file in sorted(folder.iterdir()))
    return load_eligible(eligible("\0series", files=slices), root=folder), stored


@pytest.mark.parametrize(
    ("axes", "suffix"), [("RAS", "nii"), ("PSR", "nii.gz"), ("LAS", "nii.gz"), ("LPI", "nii"), ("SAR", "nii.gz")]
)
def test_the_same_volume_is_the_same_sample_from_nifti_and_from_a_series(
    tmp_path: Path, series: tuple[Image, np.ndarray], axes: str, suffix: str
) -> None:
    of_slices, stored = series
    scanner = dataclasses.replace(small(HARBOUR).scanner, axes=axes)
    write_nifti(tmp_path / f"volume.{suffix}", stored, scanner=scanner)
    nifti = load_eligible(eligible(f"volume.{suffix}"), root=tmp_path)
    np.testing.assert_array_equal(of_slices.pixels, stored)
    for options in ({}, {"spacing_mm": 5.0, "intensity": "foreground"}, {"spacing_mm": 4.0, "shape": [40, 48, 40]}):
        for_network = {"coarsest_mm": 9.5, **options}
        np.testing.assert_allclose(sample(of_slices, **for_network), sample(nifti, **for_network), atol=1e-5)


# --- the files of a hospital ---


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brains")
    for hospital in BRAIN_HOSPITALS:
        render_brain_hospital(small(hospital), out_dir=folder / hospital.name, seed=5, patients=3)
    return folder


def indexed(folder: Path, home: Path, hospital: BrainHospital) -> Selection:
    estimator = make("brain-sfcn", {})
    with CohortStore.open(home) as store:
        index = index_bids if hospital.scanner.writes == "bids" else index_folder
        report = index(store, folder / hospital.name / "images")
        assert not report.rejected
        return select(store, modalities=("MR",), age_min_years=0, age_max_years=130, inputs=estimator.inputs)


@pytest.mark.parametrize("hospital", BRAIN_HOSPITALS, ids=lambda hospital: hospital.name)
def test_a_site_reads_every_patient_with_the_right_age(rendered: Path, tmp_path: Path, hospital: BrainHospital) -> None:
    found = indexed(rendered, tmp_path / "home", hospital)
    truths = render_brain_hospital(small(hospital), out_dir=tmp_path / "again", seed=5, patients=3)
    assert found.n == 3
    np.testing.assert_allclose(np.sort(found.age_years), np.sort([t.age_years for t in truths]), atol=0.01)
    assert not found.images_not_taken


def test_samples_of_a_series_are_made_and_cached(rendered: Path, tmp_path: Path) -> None:
    selection = indexed(rendered, tmp_path / "home", HARBOUR)
    estimator = make("brain-sfcn", {**OPTIONS, "coarsest_mm": 9.5})
    cache = SampleCache(tmp_path / "cache", root=rendered / "harbour" / "images")
    made = cache.build(selection, estimator, workers=1)
    assert made.samples["t1w"].shape == (3, 1, 32, 32, 32)
    assert not made.rejected
    again = cache.build(selection, make("brain-sfcn", {**OPTIONS, "coarsest_mm": 9.5}), workers=1)
    np.testing.assert_array_equal(again.samples["t1w"], made.samples["t1w"])
    coarse = cache.build(selection, make("brain-sfcn", OPTIONS), workers=1)
    assert (coarse.selection.n, dict(coarse.rejected)) == (0, {"too-coarse": 3})


@pytest.mark.parametrize(("slice_mm", "gap_mm", "count"), [(5.0, 0.0, 24), (5.5, 1.1, 22), (7.0, 2.0, 16)])
@pytest.mark.parametrize("hospital", [HARBOUR, NORTH], ids=lambda hospital: hospital.name)
def test_a_site_reads_thick_slices_for_the_one_estimator_and_sets_them_aside_for_the_other(
    tmp_path: Path, hospital: BrainHospital, slice_mm: float, gap_mm: float, count: int
) -> None:
    clinical = with_slices(small(hospital), slice_mm=slice_mm, gap_mm=gap_mm, slices=count)
    render_brain_hospital(clinical, out_dir=tmp_path / hospital.name, seed=5, patients=2)
    selection = indexed(tmp_path, tmp_path / "home", clinical)
    assert selection.n == 2
    cache = SampleCache(tmp_path / "cache", root=tmp_path / hospital.name / "images")
    taken = make("brain-clinical2d", {**OPTIONS, "coarsest_mm": 9.5, "up_mm": 2.5, "slices": [18, 24]})
    made = cache.build(selection, taken, workers=1)
    assert not made.rejected
    assert made.samples["t1w"].any(axis=(1, 2, 3)).sum(axis=1).tolist() == [count, count]
    assert not made.samples["volume"].any()
    aside = cache.build(selection, make("brain-sfcn", {}), workers=1)
    assert (aside.selection.n, dict(aside.rejected)) == (0, {"too-coarse": 2})


def test_headers_of_thick_slices_say_how_they_lie(tmp_path: Path) -> None:
    clinical = with_slices(small(HARBOUR), slice_mm=5.5, gap_mm=1.1, slices=20)
    render_brain_hospital(clinical, out_dir=tmp_path, seed=5, patients=1)
    headers = [pydicom.dcmread(file) for file in sorted((tmp_path / "images").rglob("*.dcm"))]
    assert len(headers) == 20
    assert {(h.MRAcquisitionType, h.SliceThickness, h.SpacingBetweenSlices) for h in headers} == {("2D", 5.5, 6.6)}
    np.testing.assert_allclose(np.diff([h.ImagePositionPatient[2] for h in headers]), 6.6, atol=1e-6)


def test_thick_slices_are_the_volume_of_the_same_head_under_their_profile() -> None:
    quiet = dataclasses.replace(small(HARBOUR).scanner, noise_sd=0.0, blur_mm=1e-6, gamma=1.0)
    same = dataclasses.replace(small(HARBOUR), scanner=quiet)
    thick = with_slices(same, slice_mm=6.0, gap_mm=1.0, slices=21)
    _, _, of_slices = draw_patients(thick, seed=3, patients=1)
    fine = dataclasses.replace(with_volumes(same).scanner, shape=(16, 19, 600), up_mm=0.25)
    _, _, of_volume = draw_patients(dataclasses.replace(same, scanner=fine), seed=3, patients=1)
    slices, volume = of_slices(0).astype(float), of_volume(0).astype(float)
    z_mm = (np.arange(600) - 299.5) * 0.25
    best = []
    for phase in np.linspace(-0.5, 0.5, 101):
        centres_mm = (np.arange(21) - 10 + phase) * 7.0
        profile = np.exp(-(((z_mm[:, None] - centres_mm) / (6.0 / 2.3548)) ** 2) / 2)
        expected = (volume @ (profile / profile.sum(axis=0)))[..., 2:-2]
        gain = (slices[..., 2:-2] * expected).sum() / (expected**2).sum()
        best.append(np.abs(slices[..., 2:-2] - gain * expected).mean() / slices.mean())
    assert min(best) < 0.02
    assert max(best) > 0.1


@pytest.mark.parametrize("hospital", BRAIN_HOSPITALS, ids=lambda hospital: hospital.name)
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    rendered: Path, tmp_path: Path, hospital: BrainHospital
) -> None:
    def digests(folder: Path) -> dict[str, str]:
        return {
            file.relative_to(folder).as_posix(): hashlib.sha256(_content(file)).hexdigest()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }

    for seed, same in ((5, True), (6, False)):
        render_brain_hospital(small(hospital), out_dir=tmp_path / str(seed), seed=seed, patients=3)
        assert (digests(tmp_path / str(seed)) == digests(rendered / hospital.name)) is same


def _content(file: Path) -> bytes:
    if file.name.endswith(".gz"):  # whose header has the time
        return np.asarray(nib.load(file).dataobj).tobytes()
    return file.read_bytes()


def test_headers_and_tables_say_phantom_and_no_more_than_a_scanner_would(rendered: Path) -> None:
    header = pydicom.dcmread(next((rendered / "harbour" / "images").rglob("*.dcm")))
    assert (header.Modality, header.BodyPartExamined, header.SeriesDescription) == ("MR", "HEAD", "T1W 3D rendered")
    assert "phantom rendered by FedAge" in header.ImageComments
    volume = nib.load(next((rendered / "north" / "images").rglob("*.nii.gz")))
    assert nib.aff2axcodes(volume.affine) == ("P", "S", "R")
    assert b"phantom rendered by FedAge" in bytes(volume.header["descrip"])
    for site in ("harbour", "north", "valley"):
        outcomes = (rendered / site / "outcomes.csv").read_text().splitlines()
        assert outcomes[0] == "patient_id,time_years,event,healthy,true_gap_years"
        assert len(outcomes) == 4


# --- the truth in a head ---


def head_of(age: float, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    signs = BrainSigns.of(age, rng=rng, scatter_years=0.0)
    plain = dataclasses.replace(
        Head.of(is_male=True, rng=rng),
        bias=(0.0,) * 9,
        tissue=(0.9, 0.06, 0.15, 0.5, 0.8),
        shift_mm=(0.0,) * 3,
        turn_rad=(0.0,) * 3,
    )
    return render(signs, plain, shape=(48, 56, 48), spacing_mm=4.0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ventricles_widen_and_the_ribbon_thins_with_age(seed: int) -> None:
    young, old = head_of(42.0, seed=seed), head_of(82.0, seed=seed)

    def fluid_inside(volume: np.ndarray) -> int:
        inner = volume[14:34, 16:40, 16:36]
        return int(np.count_nonzero(inner < 0.3))

    def grey(volume: np.ndarray) -> int:
        return int(np.count_nonzero((volume > 0.4) & (volume < 0.6)))

    assert fluid_inside(old) > 2 * fluid_inside(young)
    assert grey(old) < 0.9 * grey(young)
    assert head_of(62.0, seed=seed).shape == (48, 56, 48)


def test_what_is_planted_and_the_campaign_file() -> None:
    planted = planted_in_brains()
    assert planted.gap_sd_years == 3.5
    assert all(2.4 < mae < 2.8 for mae in planted.irreducible_mae_years.values())
    for name, quick in product(("brain-sfcn", "brain-clinical2d", "brain-contrastive"), (True, False)):
        text = demo_of(name).campaign_file(planted, sites=("harbour", "north", "valley"), seed=1, quick=quick)
        campaign = parse_campaign(text)
        assert campaign.estimator is not None
        assert campaign.estimator.name == name


def test_a_demo_that_there_is_not_is_said_in_a_line() -> None:
    assert demo_of("brain-sfcn").sites == ("harbour", "north", "valley")
    assert demo_of("chest-ca").shown == "chest radiographs"
    with pytest.raises(FedAgeError, match="there is no demo of estimator 'table-ridge'; there are those of") as refused:
        demo_of("table-ridge")
    assert {"brain-clinical2d", "brain-sfcn", "chest-ca-children"} <= set(names())
    assert str(refused.value).endswith(", ".join(names()))
