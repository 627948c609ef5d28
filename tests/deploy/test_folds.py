"""Cross-fitting on images at deployed sites: stores, approvals and signatures as in a hospital, two folds."""

from __future__ import annotations

from pathlib import Path

from fedage.client.inbox.deployed import DeployedSite
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign_file import parse_campaign
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_all
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import read_results
from fedage.server.superlink.grid import PollingGrid
from fedage.server.superlink.home import init_home
from tests.deploy.test_bad_data import CAMPAIGN, make_site
from tests.machinery import InProcessGrid

FOLDS = CAMPAIGN.replace('name = "bad-data"', 'name = "folds"').replace(
    """[validation.fractions]
train = 0.4
validation = 0.2
test = 0.4
""",
    "[validation]\nfolds = 2\n",
)


def test_every_patient_of_every_hospital_is_reported_once(tmp_path: Path) -> None:
    coordinator = init_home(tmp_path / "coordinator", hosts=("localhost",))
    render_all(tmp_path / "hospitals", seed=4, patients_per_site=20)
    homes = []
    for hospital in HOSPITALS:
        home, _ = make_site(tmp_path, tmp_path / "hospitals", hospital.name, coordinator)
        DeployedSite.load(home).rules.approve(parse_campaign(FOLDS))
        homes.append(home)
    grid = InProcessGrid([DeployedSite.load(home) for home in homes])
    place = Place(folder=tmp_path / "run", run="r1", environment="deployment", guard=True)
    prompt = PollingGrid(grid, poll_s=0.01)
    conduct(prompt, parse_campaign(FOLDS), place, key=coordinator.signing_key(), admitted=grid.names)
    results = read_results(tmp_path / "run" / "results.json")
    assert results.run.status == "finished"
    raw = evaluation_results.evaluation(results).test.raw
    assert raw.overall is not None
    assert raw.overall.n == 60
    assert {site: metrics.n for site, metrics in raw.by_site.items()} == {"harbour": 20, "north": 20, "valley": 20}
    assert {(tmp_path / "run" / f"model-fold-{fold}.safetensors").is_file() for fold in (1, 2)} == {True}
