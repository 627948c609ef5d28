"""Label maps of a BIDS data set are an input of their own, never an image."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedage.client.cohort.indexing.bids import index_bids
from fedage.client.cohort.samples.exams import load_eligible
from fedage.client.cohort.store.query import Selection, select
from fedage.client.cohort.store.store import CohortStore
from fedage.common.estimators.base import Input
from fedage.common.estimators.takes import Takes
from fedage.common.preprocessing.image import SampleRefused
from tests.client.cohort.bids.test_bids import KEY, data_set, t1w

PEOPLE = "participant_id\tage\tsex\nsub-1\t41\tM\nsub-2\t52\tF\n"
LABELS = frozenset(["label-map"])


def label_map(path: Path, *, first: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = (first + np.arange(6 * 5 * 4) % 4).reshape(6, 5, 4).astype(np.int16)
    nib.save(nib.Nifti1Image(labels, np.diag([-1.0, 1.5, 2.0, 1.0])), path)


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return CohortStore.open(tmp_path / "home", key=KEY)


def selected(store: CohortStore, view: str) -> Selection:
    inputs = (
        Input(name="head", rank=3, modalities=("MR",), takes=Takes(views=("T1W",))),
        Input(name="labels", rank=3, modalities=("MR",), takes=Takes(views=(view,), special=LABELS), optional=True),
    )
    return select(store, modalities=("MR",), age_min_years=0, age_max_years=130, inputs=inputs)


@pytest.mark.parametrize(
    ("place", "view"),
    [
        ("sub-1/anat/sub-1_dseg.nii.gz", "DSEG"),
        ("derivatives/fmriprep/sub-1/anat/sub-1_desc-aseg_dseg.nii.gz", "DSEG-ASEG"),
        ("derivatives/synthseg/sub-1/anat/sub-1_space-T1w_desc-synthseg_dseg.nii", "DSEG-SYNTHSEG"),
        ("derivatives/fmriprep/sub-1/anat/sub-1_acq-mprage_dseg.nii.gz", "DSEG"),
    ],
)
def test_a_label_map_is_found_with_its_volume(store: CohortStore, tmp_path: Path, place: str, view: str) -> None:
    root = data_set(tmp_path / "data", PEOPLE)
    for name in "12":
        t1w(root, name)
    label_map(root / place)
    index_bids(store, root)
    found = selected(store, view)
    exams = dict(zip(found.keys, found.images_by_input, strict=True))
    assert sorted(exams[store.patient_key("sub-1")]) == ["head", "labels"]
    assert sorted(exams[store.patient_key("sub-2")]) == ["head"]
    assert sorted(found.age_years) == [41.5, 52.5]
    (one,) = exams[store.patient_key("sub-1")]["labels"]
    image = load_eligible(one, root=root)
    assert (image.view, image.orientation, image.pixels.shape) == (view, "RAS", (6, 5, 4))
    assert set(np.unique(image.pixels)) == {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("takes", [Takes(), Takes(views=("T1W", "DSEG")), Takes(views=("DSEG",))])
def test_it_is_no_image_unless_an_estimator_says_so(store: CohortStore, tmp_path: Path, takes: Takes) -> None:
    root = data_set(tmp_path / "data", PEOPLE)
    for name in "12":
        t1w(root, name)
        label_map(root / f"derivatives/a/sub-{name}/anat/sub-{name}_dseg.nii.gz")
    index_bids(store, root)
    found = select(store, modalities=("MR",), age_min_years=0, age_max_years=130, takes=takes)
    assert [len(images) for images in found.images] == ([1, 1] if "T1W" in takes.views or not takes.views else [])
    assert found.images_not_taken["label-map"] == 2


@pytest.mark.parametrize(
    "place",
    [
        "derivatives/fmriprep/sub-1/anat/sub-1_space-MNI152NLin2009cAsym_dseg.nii.gz",
        "derivatives/fmriprep/sub-1/anat/sub-2_dseg.nii.gz",
        "derivatives/fmriprep/sub-1/anat/sub-1_ses-9_dseg.nii.gz",
        "derivatives/fmriprep/sub-3/anat/sub-3_dseg.nii.gz",
        "derivatives/fmriprep/sub-1/func/sub-1_dseg.nii.gz",
        "derivatives/fmriprep/sub-1/anat/sub-1_probseg.nii.gz",
    ],
)
def test_one_of_another_space_or_person_is_none(store: CohortStore, tmp_path: Path, place: str) -> None:
    root = data_set(tmp_path / "data", PEOPLE)
    t1w(root, "1")
    label_map(root / place)
    assert index_bids(store, root).files == 1
    assert [sorted(exam) for exam in selected(store, "DSEG").images_by_input] == [["head"]]


def test_sessions_keep_theirs_and_two_pipelines_may_use_one_name(store: CohortStore, tmp_path: Path) -> None:
    root = data_set(tmp_path / "data", PEOPLE)
    t1w(root, "1", "1", shape=(6, 5, 4)).with_name("sub-1_ses-1_T1w.json").write_text('{"Manufacturer": "GE"}')
    for pipeline in "ab":
        label_map(root / f"derivatives/{pipeline}/sub-1/ses-1/anat/sub-1_ses-1_dseg.nii.gz", first=ord(pipeline))
    label_map(root / "derivatives/a/sub-1/ses-2/anat/sub-1_ses-2_dseg.nii.gz")  # of a session without a volume
    index_bids(store, root)
    (exam,) = selected(store, "DSEG").images_by_input
    assert [len(exam[name]) for name in ("head", "labels")] == [1, 2]
    ge = select(store, modalities=("MR",), age_min_years=0, age_max_years=130, manufacturers=("GE",))
    assert len(ge.keys) == 1
    assert index_bids(store, root).new == 0


@pytest.mark.parametrize("added", [0.5, 0.01, -0.25])
def test_values_between_whole_numbers_are_no_labels(store: CohortStore, tmp_path: Path, added: float) -> None:
    root = data_set(tmp_path / "data", PEOPLE)
    t1w(root, "1")
    path = root / "sub-1/anat/sub-1_dseg.nii.gz"
    labels = np.arange(6 * 5 * 4, dtype=np.float32).reshape(6, 5, 4) + np.float32(added)
    nib.save(nib.Nifti1Image(labels, np.diag([-1.0, 1.5, 2.0, 1.0])), path)
    index_bids(store, root)
    (exam,) = selected(store, "DSEG").images_by_input
    with pytest.raises(SampleRefused, match="not-a-label-map"):
        load_eligible(exam["labels"][0], root=root)
