"""Who takes part, in which part, and that it stays so."""

from pathlib import Path

import numpy as np
import pytest

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.selection.split import folds, split
from fedage.client.cohort.store.one_person import SEVERAL_PEOPLE
from fedage.client.cohort.store.query import select
from fedage.client.cohort.store.statements import count_not_one_person
from fedage.client.cohort.store.store import CohortStore
from fedage.common import estimators
from fedage.common.campaign.types import Fractions
from fedage.common.estimators.takes import Takes
from tests.client.cohort.dicoms import write


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return CohortStore.open(tmp_path / "home", key=bytes(range(32)))


def test_earliest_eligible_exam_a_patient(store: CohortStore, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data / "a1.dcm", "a", StudyDate="20100317", Modality="MG")  # too early, were it not a mammogram
    write(data / "a2.dcm", "a", StudyDate="20120317")
    write(data / "a3.dcm", "a", StudyDate="20140317")
    write(data / "b1.dcm", "b", StudyDate="20190317", Modality="DX")
    write(data / "c1.dcm", "c", Modality="MG")
    write(data / "d1.dcm", "d", StudyDate="19910317")
    write(data / "d2.dcm", "d", StudyDate="19890317")
    write(data / "e1.dcm", "e", StudyDate="20010317", PatientSex="M")
    index_folder(store, data)
    found = select(store, modalities=("CR", "DX"), age_min_years=40, age_max_years=60)
    assert list(found.keys) == sorted(found.keys)
    files = dict(zip(found.keys, found.images, strict=True))
    assert files == {
        store.patient_key("a"): ("a2.dcm",),
        store.patient_key("b"): ("b1.dcm",),
        store.patient_key("e"): ("e1.dcm",),
    }
    ages = dict(zip(found.keys, found.age_years, strict=True))
    assert ages[store.patient_key("a")] == pytest.approx(51, abs=1e-2)
    assert ages[store.patient_key("e")] == 40.0  # bounds are included
    sexes = dict(zip(found.keys, found.is_male, strict=True))
    assert (sexes[store.patient_key("a")], sexes[store.patient_key("e")]) == (0.0, 1.0)
    assert found.excluded == {"no-image-of-modality": 1, "age-outside-cohort": 1}
    assert "a2.dcm" not in repr(found)


def test_exams_of_one_age_are_told_apart_by_day(store: CohortStore, tmp_path: Path) -> None:
    for number, day in enumerate(("20200901", "20200301", "20201201")):
        write(tmp_path / f"data/{number}.dcm", "a", PatientBirthDate=None, PatientAge="050Y", StudyDate=day)
    index_folder(store, tmp_path / "data")
    found = select(store, modalities=(), age_min_years=0, age_max_years=130)
    assert found.images == (("1.dcm",),)
    assert (found.age_years.tolist(), found.age_resolution_years.tolist()) == ([50.5], [1.0])


@pytest.mark.parametrize(
    ("dates", "is_in"),
    [
        ({"PatientBirthDate": None, "PatientAge": "004Y"}, False),
        ({"PatientBirthDate": None, "PatientAge": "048M"}, True),
        ({"PatientBirthDate": None, "PatientAge": "200W"}, True),
        ({"PatientBirthDate": None, "PatientAge": "999D"}, True),
        ({"PatientBirthDate": "20160203", "StudyDate": "20200301", "PatientAge": "004Y"}, True),
    ],
)
def test_whole_years_are_too_coarse_for_an_estimator_in_months(
    store: CohortStore, tmp_path: Path, dates: dict[str, str | None], is_in: bool
) -> None:
    write(tmp_path / "data/a.dcm", "a", **dates)
    index_folder(store, tmp_path / "data")
    limits = {"modalities": (), "age_min_years": 0, "age_max_years": 130}
    assert select(store, **limits).n == 1
    chest = estimators.make("chest-ca", {"age_in": "months", "centre_years": 8.0})
    found = select(store, **limits, coarsest_age_years=chest.coarsest_age_years)
    assert found.n == is_in
    assert found.excluded == ({} if is_in else {"age-too-coarse": 1})


def test_capped_ages_are_flagged(store: CohortStore, tmp_path: Path) -> None:
    write(tmp_path / "data/a.dcm", "a", PatientBirthDate=None, PatientAge="090Y")
    index_folder(store, tmp_path / "data")
    found = select(store, modalities=(), age_min_years=0, age_max_years=130)
    assert (found.age_years.tolist(), found.age_capped.tolist()) == ([90.0], [True])


def test_all_images_of_the_exam_frontal_first(store: CohortStore, tmp_path: Path) -> None:
    ds = write(tmp_path / "data/lateral.dcm", "a", ViewPosition="LL")
    for view in ("AP", "PA", "RL"):
        write(tmp_path / f"data/{view}.dcm", "a", ViewPosition=view, StudyInstanceUID=ds.StudyInstanceUID)
    index_folder(store, tmp_path / "data")
    takes = Takes(views=("PA", "AP"))
    found = select(store, modalities=("CR",), age_min_years=0, age_max_years=130, takes=takes)
    assert found.images == (("PA.dcm", "AP.dcm"),)
    assert found.images_not_taken == {"other-view": 2}
    (every,) = select(store, modalities=("CR",), age_min_years=0, age_max_years=130).images
    assert set(every) == {"PA.dcm", "AP.dcm", "RL.dcm", "lateral.dcm"}


def test_other_manufacturers_are_out_by_reason(store: CohortStore, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data / "a.dcm", "a", Manufacturer="Agfa ")
    write(data / "b1.dcm", "b", Manufacturer="Philips", StudyDate="20100317")
    write(data / "b2.dcm", "b", Manufacturer="AGFA", StudyDate="20120317")
    write(data / "c.dcm", "c", Manufacturer="Philips")
    write(data / "d.dcm", "d", Manufacturer="Agfa", Modality="MG")
    index_folder(store, data)
    found = select(store, modalities=("CR",), age_min_years=0, age_max_years=130, manufacturers=("agfa",))
    assert {store.patient_key("a"): ("a.dcm",), store.patient_key("b"): ("b2.dcm",)} == dict(
        zip(found.keys, found.images, strict=True)
    )
    assert found.excluded == {"other-manufacturer": 1, "no-image-of-modality": 1}
    assert select(store, modalities=("CR",), age_min_years=0, age_max_years=130).n == 3


def test_units_are_spread_evenly_and_do_not_move(store: CohortStore, tmp_path: Path) -> None:
    units = np.array([store.split_uniform(store.patient_key(str(number))) for number in range(4000)])
    assert units.min() >= 0
    assert units.max() < 1
    counts = np.bincount(folds(units, 10), minlength=10)
    # 9 degrees of freedom: above 33.7 once in ten thousand keys
    assert float(((counts - 400) ** 2 / 400).sum()) < 33.7
    write(tmp_path / "data/a.dcm", "a")
    index_folder(store, tmp_path / "data")
    before = select(store, modalities=("CR",), age_min_years=0, age_max_years=130)
    for number in range(20):
        write(tmp_path / f"data/{number}.dcm", f"p{number}")
    index_folder(store, tmp_path / "data")
    after = select(store, modalities=("CR",), age_min_years=0, age_max_years=130)
    assert after.split_uniform[after.keys.index(before.keys[0])] == before.split_uniform[0]
    assert before.snapshot != after.snapshot
    again = after.keep(np.array([after.keys.index(before.keys[0])]))
    assert (again.snapshot, again.n) == (before.snapshot, 1)
    with CohortStore.open(tmp_path / "other", key=bytes(32)) as other:
        assert other.split_uniform(other.patient_key("a")) != before.split_uniform[0]


def test_split_by_hand() -> None:
    unit = np.array([0.0, 0.699, 0.7, 0.849, 0.85, 0.999])
    parts = split(unit, Fractions(train=0.7, validation=0.15, test=0.15))
    assert [part.tolist() for part in parts] == [
        [True, True, False, False, False, False],
        [False, False, True, True, False, False],
        [False, False, False, False, True, True],
    ]


@pytest.mark.parametrize(
    "fractions",
    [(0.7, 0.3, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.6, 0.0, 0.4), (0.1, 0.7, 0.2), (0.9, 0.1, 0.0)],
)
def test_everybody_is_in_one_part_of_those_there_are(fractions: tuple[float, float, float]) -> None:
    unit = np.concatenate([np.linspace(0, 1, 999, endpoint=False), [np.nextafter(1, 0)]])
    train, validation, test = fractions
    parts = split(unit, Fractions(train=train, validation=validation, test=test))
    assert (np.sum(parts, axis=0) == 1).all()
    assert [part.mean() for part in parts] == pytest.approx(fractions, abs=2e-3)
    assert [bool(part.any()) for part in parts] == [fraction > 0 for fraction in fractions]


def test_folds() -> None:
    assert folds(np.array([0.0, 0.1999, 0.2, 0.99, np.nextafter(1, 0)]), 5).tolist() == [0, 0, 1, 4, 4]


@pytest.mark.parametrize(
    ("births", "people"),
    [
        (("19300317", "19810101", "19610317"), "several"),  # ANONYMOUS in every file
        (("19610317", "19640101"), "several"),
        (("19610317", "19620317"), "one"),  # a slip of the pen
        (("19900610", None), "one"),  # of 20 years a year later
        (("19610317", "19610317"), "one"),
        (("19610317",), "one"),
        ((None, "19610317"), "several"),  # 20 years old in 2010
    ],
)
def test_one_identifier_of_people_born_years_apart_is_no_patient(
    store: CohortStore, tmp_path: Path, births: tuple[str | None, ...], people: str
) -> None:
    for number, birth in enumerate(births):
        about = {
            "PatientBirthDate": birth or "",
            "PatientAge": "" if birth else "020Y",
            "StudyDate": f"201{number}0317",
        }
        write(tmp_path / f"data/{number}.dcm", "4711-C", **about)
    write(tmp_path / "data/other.dcm", "other")
    index_folder(store, tmp_path / "data")
    found = select(store, modalities=("CR",), age_min_years=0, age_max_years=130)
    assert (found.n, dict(found.excluded)) == ((1, {SEVERAL_PEOPLE: 1}) if people == "several" else (2, {}))
    assert count_not_one_person(store) == ({SEVERAL_PEOPLE: 1} if people == "several" else {})
    frozen = select(
        store, modalities=("CR",), age_min_years=0, age_max_years=130, patients=[store.patient_key("4711-C")]
    )
    assert frozen.n == 1  # a campaign that runs keeps whom it was approved with
