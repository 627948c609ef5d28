"""A hospital's folder with everything that goes wrong: each file counted with its reason, the rest goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest

from fedage.client.cohort.indexing.index import IndexReport, index_folder
from fedage.client.cohort.store.store import CohortStore
from fedage.client.inbox.deployed import DeployedSite
from fedage.client.site.home import init_site
from fedage.common.campaign_file import parse_campaign
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_all
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import Results, read_results
from fedage.server.superlink.grid import PollingGrid
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.machinery import InProcessGrid

CAMPAIGN = """
[campaign]
name = "bad-data"
purpose = "Try what a real archive holds, on phantoms"
seed = 3
sites = ["harbour", "north", "valley"]
wait_s = 5

[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8

[cohort]
age_min_years = 40
age_max_years = 85

[training]
rounds = 1
quorum = 1

[validation.fractions]
train = 0.4
validation = 0.2
test = 0.4

[privacy]
minimum_count = 2
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    render_all(folder, seed=2, patients_per_site=24)
    return folder


@pytest.fixture
def images(archive: Path, tmp_path: Path) -> Path:
    shutil.copytree(archive, tmp_path / "hospitals")
    return tmp_path / "hospitals"


def spoil(folder: Path) -> dict[str, int]:
    """Add one file of each kind to a hospital's images; the counts that must come out."""
    files = sorted(folder.rglob("*.dcm"))
    (folder / "notes.dcm").write_text("these are the minutes of a meeting\n")
    whole = files[0]
    (folder / "truncated.dcm").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    ageless = pydicom.dcmread(files[1])
    del ageless.PatientBirthDate
    if "PatientAge" in ageless:
        del ageless.PatientAge
    ageless.SOPInstanceUID = pydicom.uid.generate_uid()
    ageless.save_as(folder / "ageless.dcm")
    report = pydicom.dcmread(files[2])
    del report.PixelData
    report.SOPInstanceUID = pydicom.uid.generate_uid()
    report.save_as(folder / "report.dcm")
    shutil.copyfile(files[3], folder / "zz-copy.dcm")
    return {"not-dicom": 1, "truncated": 1, "no-age": 1, "no-pixels": 1, "duplicate-image": 1}


def make_site(folder: Path, images: Path, name: str, coordinator: CoordinatorHome) -> tuple[Path, IndexReport]:
    home = folder / "sites" / name
    init_site(
        home,
        name=name,
        coordinator="localhost:8443",
        ca_certificate=coordinator.ca_certificate,
        coordinator_public_key=coordinator.signing_public_key,
        data=images / name / "images",
        outcomes=images / name / "outcomes.csv",
        threads=1,
    )
    with CohortStore.open(home) as store:
        report = index_folder(store, images / name / "images", outcomes_csv=images / name / "outcomes.csv")
    (home / "policy.toml").write_text("[disclosure]\nminimum_count = 2\n")
    DeployedSite.load(home).rules.approve(parse_campaign(CAMPAIGN))
    return home, report


def run(folder: Path, homes: list[Path], coordinator: CoordinatorHome) -> Results:
    grid = InProcessGrid([DeployedSite.load(home) for home in homes])
    place = Place(folder=folder / "run", run="r1", environment="deployment", guard=True)
    prompt = PollingGrid(grid, poll_s=0.01)
    conduct(prompt, parse_campaign(CAMPAIGN), place, key=coordinator.signing_key(), admitted=grid.names)
    return read_results(folder / "run" / "results.json")


def test_every_bad_file_has_its_reason_and_the_campaign_goes_on(images: Path, tmp_path: Path) -> None:
    coordinator = init_home(tmp_path / "coordinator", hosts=("localhost",))
    wanted = spoil(images / "harbour" / "images")
    homes = []
    for hospital in HOSPITALS:
        home, report = make_site(tmp_path, images, hospital.name, coordinator)
        homes.append(home)
        assert report.rejected == (wanted if hospital.name == "harbour" else {})
        assert report.images == 24
    results = run(tmp_path, homes, coordinator)
    assert results.run.status == "finished"
    assert [site.status for site in results.sites] == ["took part"] * 3
    assert results.sites[0].rejected_files == dict.fromkeys(wanted)  # one of each is too few to tell
    assert results.sites[0].patients == 24


def test_an_empty_folder_and_a_single_patient_are_refused_in_words_and_the_third_goes_on(
    images: Path, tmp_path: Path
) -> None:
    coordinator = init_home(tmp_path / "coordinator", hosts=("localhost",))
    shutil.rmtree(images / "harbour" / "images")
    (images / "harbour" / "images").mkdir()
    for extra in sorted((images / "north" / "images").rglob("*.dcm"))[1:]:
        extra.unlink()
    made = [make_site(tmp_path, images, hospital.name, coordinator) for hospital in HOSPITALS]
    found = dict(zip([hospital.name for hospital in HOSPITALS], [report.patients for _, report in made], strict=True))
    assert found["harbour"] == 0
    assert found["north"] == 1
    results = run(tmp_path, [home for home, _ in made], coordinator)
    assert results.run.status == "finished"
    by_name = {site.name: site for site in results.sites}
    for name in ("harbour", "north"):
        assert by_name[name].status == "refused"
        assert "fewer than 2 patients" in by_name[name].reason
        assert by_name[name].patients is None
    assert by_name["valley"].status == "took part"


def test_another_coordinators_request_is_refused(images: Path, tmp_path: Path) -> None:
    coordinator = init_home(tmp_path / "coordinator", hosts=("localhost",))
    stranger = init_home(tmp_path / "stranger", hosts=("localhost",))
    home, _ = make_site(tmp_path, images, "valley", coordinator)
    with pytest.raises(Exception, match="signature"):
        run(tmp_path, [home], stranger)
