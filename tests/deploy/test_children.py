"""Chest films of children of nobody: what a site reads of them, and where in them age is to be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.samples.cache import SampleCache
from fedage.client.cohort.store.query import select
from fedage.client.cohort.store.store import CohortStore
from fedage.common.estimators import make
from fedage.common.preprocessing.image import Exam, Image
from fedage.deploy.demo.children import CHILDREN_HOSPITALS, GIRLS_AHEAD_YEARS, ChildSigns, render_child, render_children
from fedage.deploy.demo.hospitals import Hospital

PATIENTS = 4


@pytest.mark.parametrize("hospital", CHILDREN_HOSPITALS, ids=lambda hospital: hospital.name)
def test_a_site_reads_every_child_with_its_age_to_the_day(tmp_path: Path, hospital: Hospital) -> None:
    estimator = make("chest-ca", {"image_size": 64, "age_in": "months", "centre_years": 8.0})
    truths = render_children(hospital, out_dir=tmp_path / "data", seed=3, patients=PATIENTS)
    with CohortStore.open(tmp_path / "home") as store:
        index_folder(store, tmp_path / "data" / "images", outcomes_csv=tmp_path / "data" / "outcomes.csv")
        found = select(store, modalities=("CR", "DX"), age_min_years=0, age_max_years=18, inputs=estimator.inputs)
    assert found.n == PATIENTS
    # A day: well within the month that exams of children have to be known to.
    np.testing.assert_allclose(np.sort(found.age_years), np.sort([t.age_years for t in truths]), atol=1.5 / 365)
    assert sorted(found.is_male) == sorted(float(t.is_male) for t in truths)
    made = SampleCache(tmp_path / "cache", root=tmp_path / "data" / "images").build(found, estimator, workers=1)
    assert made.selection.n == PATIENTS
    assert not made.rejected


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    hospital = CHILDREN_HOSPITALS[0]
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        render_children(hospital, out_dir=tmp_path / name, seed=seed, patients=2)
    one, again, other = (
        b"".join(path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*")))
        for name in ("one", "again", "other")
    )
    assert one == again != other


def test_bones_of_girls_look_older_and_only_they() -> None:
    boys, girls = (
        np.array([[s.bone, s.ribs] for s in (ChildSigns.of(6.0, is_male=male, rng=rng) for _ in range(500))])
        for male, rng in ((True, np.random.default_rng(1)), (False, np.random.default_rng(1)))
    )
    np.testing.assert_allclose((girls - boys).mean(axis=0), [GIRLS_AHEAD_YEARS, 0.0], atol=1e-9)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_mean_grey_value_says_little_of_age(seed: int) -> None:
    rng, estimator = np.random.default_rng(seed), make("chest-ca", {"image_size": 64})
    ages, films = rng.uniform(0.5, 16, 60), []
    for age in ages:
        film = render_child(ChildSigns.of(age, is_male=bool(rng.random() < 0.5), rng=rng), shape=(96, 96), rng=rng)
        assert film.dtype == np.float32
        assert 0 <= film.min() <= film.max() < 1
        films.append(film)
    assert np.corrcoef([film.mean() for film in films], ages)[0, 1] ** 2 < 1 / 3
    sample = estimator.preprocess(Exam({"image": Image(pixels=films[0], spacing_mm=(2.0, 2.0), modality="DX")}))
    assert sample["image"].shape == (1, 64, 64)
