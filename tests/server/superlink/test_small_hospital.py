"""A hospital of 24 patients beside a large one: real homes, default policy with its minimum count of 10, five folds."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedage.client.audit import Direction, Filters, Kind, show
from fedage.client.audit.log import LOG_FILE
from fedage.client.cli.main import site
from fedage.client.inbox.deployed import DeployedSite
from fedage.client.site.home import SiteHome
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign_file import parse_campaign
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.cli.summary import print_summary
from fedage.server.record.run_folder import RunFolder
from fedage.server.superlink.grid import PollingGrid
from fedage.server.superlink.home import init_home
from tests.hospitals_at_work import hospital_home, network, record, until
from tests.machinery import InProcessGrid

FOLDS = 5
CAMPAIGN = """
[campaign]
name = "small-hospital"
purpose = "Let a small hospital take part in a campaign with folds"
seed = 4
sites = ["large", "small"]
wait_s = 60
[estimator]
name = "table-mlp"
[estimator.options]
features = ["x*"]
penalty = 4.0
[table]
id = "who"
age = "age"
sex = "sex"
[validation]
folds = 5
[training]
rounds = 1
quorum = 2
round_deadline_s = 60
"""
SIZES = {"large": 95, "small": 24}
SEED = 4
"""Of the tables and of the keys that deal the folds: with others the influence rule may withhold a fold at `small`."""


def test_a_hospital_of_24_trains_every_model_and_is_held_out_of_two(tmp_path: Path) -> None:
    """Every message is signed, judged by the site's policy and written to its audit log; only Flower is left out."""
    coordinator = init_home(tmp_path / "coordinator", hosts=("localhost",))
    homes = [
        hospital_home(tmp_path, name, coordinator=coordinator, seed=seed, patients=patients)
        for seed, (name, patients) in enumerate(SIZES.items(), start=SEED)
    ]
    grid = InProcessGrid([DeployedSite(SiteHome.load(home.root)) for home in homes])
    place = Place(folder=tmp_path / "run", run="r", environment="deployment", guard=True, sites_there=len(homes))
    conduct(
        PollingGrid(grid, poll_s=0.01),
        parse_campaign(CAMPAIGN),
        place,
        key=coordinator.signing_key(),
        admitted=grid.names,
    )
    said = io.StringIO()
    print_summary(record(RunFolder(place.folder)), console=Console(file=said, width=200))
    words = CliRunner().invoke(site, ["campaigns", "--home", str(tmp_path / "small")]).output
    must_have_taken_part(RunFolder(place.folder), tmp_path / "small", summary=said.getvalue(), at_the_site=words)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1200)
def test_so_it_is_with_real_processes(tmp_path: Path) -> None:
    with network(tmp_path, names=tuple(SIZES), patients=SIZES, seed=SEED) as at:
        file = at.root / "small-hospital.toml"
        file.write_text(CAMPAIGN)
        command, run = at.run(file)
        until(lambda: command.process.poll() is not None, timeout_s=900, what=lambda: command.said)
        assert command.process.returncode == 0, command.said
        words = at.fedage("site", "campaigns", "--home", tmp_path / "small", log="campaigns")
        assert words.process.wait(60) == 0
    must_have_taken_part(run, tmp_path / "small", summary=command.said, at_the_site=words.said)


def must_have_taken_part(run: RunFolder, small: Path, *, summary: str, at_the_site: str) -> None:
    """What the record, the report, the terminal, the small site and its audit log say."""
    assert "small holds patients out in 2 of 5 folds" in " ".join(summary.split())
    assert "They are held out in 2 of 5 folds, and all who may train do so in the others." in at_the_site
    results = record(run)
    assert results.run.status == "finished"
    assert {each.name: each.held_out_in_folds for each in results.sites} == {"large": 5, "small": 2}
    assert [(each.withheld, each.troubles) for each in results.sites] == [((), ())] * 2
    found = evaluation_results.evaluation(results).test
    assert {name: metrics.n for name, metrics in found.raw.by_site.items()} == SIZES
    assert {name: metrics.n for name, metrics in found.corrected.by_site.items()} == SIZES
    assert "small holds patients out in 2 of 5 folds" in (run.path / "report.html").read_text()
    assert [item.sites for item in results.preparation] == [("large", "small")] * FOLDS
    assert [done.sites for done in results.rounds] == [("large", "small")] * FOLDS
    told = [line.entry for line in show(small / LOG_FILE, Filters(kind=Kind.TRAIN, direction=Direction.OUT))]
    assert sorted(entry.smallest_cell or 0 for entry in told) == [12, 12, 24, 24, 24]
    withheld = [held.rule for entry in told for held in entry.withheld]
    assert withheld == ["no-patients-in-fold"] * 3
