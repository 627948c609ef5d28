"""Volumes that a hospital's own tools made: found in the folder that the site names, on the grid they should be on."""

import doctest
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedage.client.cohort.bids import derivatives
from fedage.client.cohort.indexing.bids import STANDARD, index_bids
from fedage.client.cohort.store.query import Selection, select
from fedage.client.cohort.store.store import CohortStore
from fedage.common.errors import FedAgeError
from fedage.common.estimators import make
from tests.client.cohort.bids.test_bids import KEY, data_set, t1w

PEOPLE = "participant_id\tage\tsex\n" + "".join(f"sub-{name}\t{40 + name}\tM\n" for name in (1, 2, 3))
LAYOUT = replace(STANDARD, derivative="strip")


def derived(root: Path, name: str, *, of: int = 1, pipeline: str = "strip", **other: object) -> Path:
    """A derived volume of a participant, on the grid of the first one's own volume unless told otherwise."""
    made_of = nib.load(next((root / f"sub-{of}" / "anat").glob("*_T1w.nii*")))
    shape = other.get("shape", made_of.shape)
    affine = made_of.affine.copy()
    affine[:3, 3] += np.asarray(other.get("moved_mm", 0.0))
    affine[:3, :3] *= other.get("scale", 1.0)
    path = root / "derivatives" / pipeline / f"sub-{of}" / "anat" / f"sub-{of}_{name}_T1w.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(of).random(shape).astype(np.float32)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = data_set(tmp_path / "data", PEOPLE)
    for name in "123":
        t1w(folder, name)
    return folder


def indexed(tmp_path: Path, root: Path, *, volumes: str, layout=LAYOUT) -> tuple[Selection, dict[str, int]]:
    with CohortStore.open(tmp_path / "home", key=KEY) as store:
        report = index_bids(store, root, layout=layout)
        inputs = make("brain-sfcn", {"volumes": volumes}).inputs
        found = select(store, modalities=("MR",), age_min_years=0, age_max_years=130, inputs=inputs)
    return found, dict(report.rejected)


def test_examples() -> None:
    assert doctest.testmod(derivatives).failed == 0


@pytest.mark.parametrize("name", ["desc-brain", "space-T1w_desc-brain", "space-orig_res-1_desc-brain"])
def test_a_campaign_gets_the_derived_volumes_that_it_asks_for(tmp_path: Path, root: Path, name: str) -> None:
    for of in (1, 2):
        derived(root, name, of=of)
    derived(root, name, of=3, pipeline="other-tool")
    found, rejected = indexed(tmp_path, root, volumes="brain")
    assert found.n == 2
    assert all(one[0].startswith("derivatives/strip/") for one in found.images)
    assert found.excluded == {"no-image-taken": 1}
    assert not rejected
    own, _ = indexed(tmp_path, root, volumes="")
    assert own.n == 3
    assert all(one[0].startswith("sub-") for one in own.images)


@pytest.mark.parametrize(
    "other", [{"shape": (5, 5, 4)}, {"moved_mm": (0, 0, 2.0)}, {"scale": 1.02}, {"moved_mm": 0.05}]
)
def test_one_on_another_grid_is_set_aside_and_counted(tmp_path: Path, root: Path, other: dict) -> None:
    derived(root, "desc-brain", of=1, **other)
    derived(root, "desc-brain", of=2)
    found, rejected = indexed(tmp_path, root, volumes="brain")
    assert found.n == 1
    assert rejected == {"other-grid": 1}


@pytest.mark.parametrize("odd", [1, 2, 3])
def test_in_a_template_s_space_the_most_common_grid_is_that_of_all(tmp_path: Path, root: Path, odd: int) -> None:
    for of in (1, 2, 3):
        derived(root, "space-MNI152Lin_desc-brain", of=of, shape=(9, 8, 7) if of != odd else (9, 8, 6))
    found, rejected = indexed(tmp_path, root, volumes="MNI152Lin-brain")
    assert found.n == 2
    assert rejected == {"other-grid": 1}


def test_a_folder_that_is_not_there_is_said_with_those_that_are(tmp_path: Path, root: Path) -> None:
    derived(root, "desc-brain", pipeline="fmriprep")
    with pytest.raises(FedAgeError, match=r"derivative = 'strip' in site.toml is no folder .* has fmriprep; name one"):
        indexed(tmp_path, root, volumes="brain")


def test_without_a_folder_derived_volumes_are_not_looked_at(tmp_path: Path, root: Path) -> None:
    derived(root, "desc-brain")
    found, _ = indexed(tmp_path, root, volumes="brain", layout=STANDARD)
    assert found.n == 0
    assert found.excluded == {"no-image-taken": 3}
