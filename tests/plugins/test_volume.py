"""A 3D network with two targets, then an exact ridge regression on its embedding, on 50 real heads at three hospitals:
two with a BIDS data set of NIfTI volumes, one with DICOM series. Policies, approvals and audit logs are real.

Skipped where the volumes are not beside the repository.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import MRImageStorage, generate_uid
from safetensors.numpy import load_file

from fedage.client.cli.index import index_site
from fedage.client.cohort.indexing.bids import index_bids
from fedage.client.cohort.store.store import CohortStore
from fedage.client.consent.site_cohorts import SiteCohorts
from fedage.client.inbox.deployed import DeployedSite
from fedage.client.site.home import SiteHome, init_site
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign_file import parse_campaign
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.heads import Heads
from fedage.server.record.results import Results, read_results
from fedage.server.superlink.grid import PollingGrid
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.client.cohort.dicoms import write
from tests.machinery import InProcessGrid

DATA = Path(__file__).parents[2] / "../shared/data/ixi-t1w"
pytestmark = [
    pytest.mark.usefixtures("installed"),
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/ixi-t1w is not beside the repository"),
]
NAMES = ("north", "east", "west")
CAMPAIGN = """
[campaign]
name = "heads"
purpose = "Age and sex from T1-weighted volumes, then a ridge regression on the embedding"
seed = 5
sites = ["north", "east", "west"]
[estimator]
name = "trial-volume"
[training]
rounds = 3
local_epochs = 2
batch_size = 8
learning_rate = 0.003
round_deadline_s = 120
[validation]
folds = 2
[privacy]
minimum_count = 3
# Held out of a fold are eight patients of a hospital: one of them has more than half of the sum of squares of age.
largest_share = 0.9
"""


def people() -> list[tuple[str, float, str]]:
    with (DATA / "participants.csv").open(encoding="utf-8") as stream:
        return [(row["participant_id"], float(row["age_years"]), row["sex"]) for row in csv.DictReader(stream)]


def as_bids(folder: Path, some: list[tuple[str, float, str]]) -> None:
    folder.mkdir(parents=True)
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "heads", "BIDSVersion": "1.9.0"}))
    lines = ["participant_id\tage\tsex"]
    for name, age, sex in some:
        label = "sub-" + name.replace("-", "")
        anat = folder / label / "anat"
        anat.mkdir(parents=True)
        shutil.copyfile(DATA / "t1w" / f"{name}.nii.gz", anat / f"{label}_T1w.nii.gz")
        lines.append(f"{label}\t{age}\t{sex}")
    (folder / "participants.tsv").write_text("\n".join(lines) + "\n")


def as_dicom(folder: Path, some: list[tuple[str, float, str]]) -> None:
    """The same volumes as series of slices, in DICOM's coordinates, which go to the left and to the back."""
    for name, age, sex in some:
        image = nib.load(DATA / "t1w" / f"{name}.nii.gz")
        values = np.asarray(image.dataobj, dtype=np.float32)
        stored = np.rint(4000 * (values - values.min()) / np.ptp(values)).astype(np.uint16)
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
        study, series = generate_uid(), generate_uid()
        row, column = affine[:3, 1], affine[:3, 0]  # along a row j rises, down a column i does
        birth = np.datetime64("2020-06-01") - np.timedelta64(round(age * 365.25), "D")
        for k in range(stored.shape[2]):
            position = affine[:3, 3] + k * affine[:3, 2]
            write(
                folder / name / f"{k}.dcm",
                f"MRN-{name}",
                pixels=stored[:, :, k],
                SOPClassUID=MRImageStorage,
                Modality="MR",
                ViewPosition=None,
                StudyInstanceUID=study,
                SeriesInstanceUID=series,
                StudyDate="20200601",
                PatientBirthDate=str(birth).replace("-", ""),
                PatientSex=sex,
                ImagePositionPatient=[round(float(part), 4) for part in position],
                ImageOrientationPatient=[
                    round(float(part), 6) for part in (*row / np.linalg.norm(row), *column / np.linalg.norm(column))
                ],
                PixelSpacing=[float(np.linalg.norm(column)), float(np.linalg.norm(row))],
                InstanceNumber=k + 1,
            )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each hospital."""
    folder = tmp_path_factory.mktemp("heads")
    shares = [people()[k::3] for k in range(3)]
    as_bids(folder / "north", shares[0])
    as_bids(folder / "east", shares[1])
    as_dicom(folder / "west", shares[2])
    return folder


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorHome:
    return init_home(tmp_path_factory.mktemp("coordinator"), hosts=("localhost",))


@pytest.fixture(scope="module")
def hospitals(
    data: Path, coordinator: CoordinatorHome, tmp_path_factory: pytest.TempPathFactory, installed: Path
) -> Iterator[list[DeployedSite]]:
    """Three hospitals that have indexed their images and approved the campaign, each with a minimum of three."""
    made = []
    for name in NAMES:
        home = tmp_path_factory.mktemp(name) / "home"
        init_site(
            home,
            name=name,
            coordinator="localhost:8443",
            ca_certificate=coordinator.ca_certificate,
            coordinator_public_key=coordinator.signing_public_key,
            data=data / name,
            threads=1,
            device="cpu",
        )
        (home / "policy.toml").write_text("[disclosure]\nminimum_count = 3\nlargest_share = 0.9\n")
        index_site(home)
        site = DeployedSite(SiteHome.load(home))
        site.rules.approve(parse_campaign(CAMPAIGN))
        made.append(site)
    yield made
    for site in made:
        site.rules.close()


def run(folder: Path, members: list[DeployedSite], coordinator: CoordinatorHome) -> Results:
    grid = InProcessGrid(members)
    place = Place(folder=folder / "run", run="r1", environment="deployment", guard=True, sites_there=3)
    place.folder.mkdir(parents=True)
    conduct(
        PollingGrid(grid, poll_s=0.01),
        parse_campaign(CAMPAIGN),
        place,
        key=coordinator.signing_key(),
        admitted=grid.names,
        heads=Heads(folder / "heads"),
    )
    return read_results(folder / "run" / "results.json")


def test_three_hospitals_train_and_solve_together(
    tmp_path: Path, hospitals: list[DeployedSite], coordinator: CoordinatorHome
) -> None:
    results = run(tmp_path, hospitals, coordinator)
    assert results.run.status == "finished"
    assert [(done.fold, done.number) for done in results.rounds] == [(f, r) for f in (1, 2) for r in (1, 2, 3)]
    assert {site for done in results.rounds for site in done.sites} == set(NAMES)
    overall = evaluation_results.evaluation(results).test.raw.overall
    assert overall is not None
    assert overall.n == 50
    ages = np.array([age for _, age, _ in people()])
    assert overall.mae_years is not None
    assert overall.mae_years < 1.5 * np.abs(ages - ages.mean()).mean(), "hardly trained, yet on the scale of age"
    for fold in (1, 2):
        model = load_file(tmp_path / "run" / f"model-fold-{fold}.safetensors")
        assert {"ridge.coefficients", "features.0.weight", "age.weight", "male.weight"} <= set(model)
        assert model["ridge.coefficients"].shape == (2,)
    digest = parse_campaign(CAMPAIGN).digest
    for site in hospitals:
        cohort = site.cohort(parse_campaign(CAMPAIGN)).cohort
        with np.load(site.state_dir(digest) / "predictions-r1--fold-0.npz") as kept:
            held_out = cohort["fold"] == 0
            for name in ("predicted_years", "network_years", "male_probability"):
                assert np.array_equal(np.isfinite(kept[f"column:{name}"]), held_out)


def test_a_volume_is_the_same_from_nifti_and_from_dicom(
    data: Path, tmp_path: Path, hospitals: list[DeployedSite]
) -> None:
    """The sample that the network sees, of the hospital with DICOM, against those of the same heads as NIfTI."""
    as_bids(tmp_path / "data", people()[2::3])
    home = tmp_path / "home"
    with CohortStore.open(home) as store:
        index_bids(store, tmp_path / "data")
    campaign = parse_campaign(CAMPAIGN)
    nifti, dicom = SiteCohorts(home).read(campaign), hospitals[2].cohort(campaign)
    assert nifti.samples is not None
    assert dicom.samples is not None
    order = [np.argsort(found.cohort["age_years"], kind="stable") for found in (nifti, dicom)]
    np.testing.assert_allclose(nifti.cohort["age_years"][order[0]], dicom.cohort["age_years"][order[1]], atol=0.01)
    mine, theirs = nifti.samples["head"][order[0]], dicom.samples["head"][order[1]]
    for one, other in zip(mine, theirs, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999


@pytest.mark.slow
def test_a_simulation_gives_what_the_hospitals_give(data: Path, tmp_path: Path, installed: Path) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text(CAMPAIGN)
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    command = [
        sys.executable,
        "-m",
        "fedage.deploy",
        "simulate",
        str(file),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out"),
    ]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path)
    results = read_results(tmp_path / "out" / "results.json")
    assert results.run.status == "finished"
    assert evaluation_results.evaluation(results).test.raw.overall is not None
    assert evaluation_results.evaluation(results).test.raw.overall.n == 50
