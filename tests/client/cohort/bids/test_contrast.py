"""A volume after a contrast agent is no plain T1-weighted one, wherever a data set says so."""

import json
from pathlib import Path

import pytest

from fedage.client.cohort.bids.contrast import is_contrast_enhanced
from fedage.client.cohort.indexing.bids import index_bids
from fedage.client.cohort.store.query import select
from fedage.client.cohort.store.store import CohortStore
from fedage.common.estimators.takes import Takes
from tests.client.cohort.bids.test_bids import data_set, t1w, volume

KEY = bytes(range(32))
ENHANCED = [
    "sub-1_ce-gadolinium_T1w.nii.gz",
    "sub-1_ses-1_ce-Gd_run-2_T1w.nii",
    "sub-1_acq-postgd_T1w.nii.gz",
    "sub-1_acq-T1ce_T1w.nii.gz",
    "sub-1_acq-mprageGad_T1w.nii.gz",
    "sub-1_acq-postcontrast_run-1_T1w.nii.gz",
    "sub-1_acq-Dotarem_T1w.nii.gz",
    "sub-1_acq-3D_ce-gadobutrol_T1w.nii.gz",
]
PLAIN = [
    "sub-1_T1w.nii.gz",
    "sub-1_acq-mprage_T1w.nii.gz",
    "sub-1_acq-precontrast_T1w.nii.gz",
    "sub-1_acq-noGad_T1w.nii.gz",
    "sub-1_ce-none_T1w.nii.gz",
    "sub-1_acq-advance_T1w.nii.gz",
    "sub-1_acq-space_T1w.nii.gz",
    "sub-1_ses-ce_T1w.nii.gz",
    "sub-gad_acq-iso_T1w.nii.gz",
    "sub-1_acq-gadget_T1w.nii.gz",
]


@pytest.mark.parametrize("name", ENHANCED)
def test_a_name_says_that_there_was_an_agent(name: str) -> None:
    assert is_contrast_enhanced(name, {})


@pytest.mark.parametrize("name", PLAIN)
def test_a_name_says_nothing_of_one(name: str) -> None:
    assert not is_contrast_enhanced(name, {})


@pytest.mark.parametrize(
    ("sidecar", "enhanced"),
    [
        ({"ContrastBolusIngredient": "GADOLINIUM"}, True),
        ({"ContrastBolusAgent": "Gadovist 7.5 ml"}, True),
        ({"ContrastBolusIngredient": "NONE"}, False),
        ({"ContrastBolusIngredient": None, "Manufacturer": "GE"}, False),
        ({"ContrastBolusAgent": "n/a"}, False),
    ],
)
def test_a_sidecar_says_it(sidecar: dict[str, object], enhanced: bool) -> None:
    assert is_contrast_enhanced("sub-1_T1w.nii.gz", sidecar) is enhanced
    assert not is_contrast_enhanced("sub-1_ce-none_T1w.nii.gz", sidecar)


def test_only_plain_volumes_are_taken_and_the_others_are_counted(tmp_path: Path) -> None:
    root = data_set(tmp_path / "data", "participant_id\tage\tsex\nsub-01\t30\tF\nsub-02\t40\tM\nsub-03\t50\tM\n")
    t1w(root, "01")
    volume(root / "sub-01" / "anat" / "sub-01_ce-gadolinium_T1w.nii.gz")
    volume(root / "sub-02" / "anat" / "sub-02_acq-postGd_T1w.nii.gz")
    t1w(root, "03").with_name("sub-03_T1w.json").write_text(json.dumps({"ContrastBolusIngredient": "GADOLINIUM"}))
    store = CohortStore.open(tmp_path / "home", key=KEY)
    assert index_bids(store, root).images == 4
    found = select(store, modalities=("MR",), age_min_years=0, age_max_years=130, takes=Takes(views=("T1W",)))
    assert found.keys == (store.patient_key("sub-01"),)
    either = Takes(views=("T1W",), special=frozenset(["contrast-enhanced"]))
    everybody = select(store, modalities=("MR",), age_min_years=0, age_max_years=130, takes=either)
    assert len(everybody.keys) == 3


@pytest.mark.parametrize("label", ["localizer", "headScout", "inplaneT1"])
def test_a_localizer_is_no_plain_volume(tmp_path: Path, label: str) -> None:
    root = data_set(tmp_path / "data", "participant_id\tage\tsex\nsub-01\t30\tF\nsub-02\t40\tM\n")
    volume(root / "sub-01" / "anat" / f"sub-01_acq-{label}_T1w.nii.gz")
    volume(root / "sub-01" / "anat" / "sub-01_acq-mprage_T1w.nii.gz")
    volume(root / "sub-02" / "anat" / f"sub-02_acq-{label}_T1w.nii.gz")
    store = CohortStore.open(tmp_path / "home", key=KEY)
    assert index_bids(store, root).images == 3
    found = select(store, modalities=("MR",), age_min_years=0, age_max_years=130, takes=Takes(views=("T1W",)))
    assert found.keys == (store.patient_key("sub-01"),)
    assert [len(images) for images in found.images] == [1]
    assert found.images_not_taken == {"localizer": 2}
