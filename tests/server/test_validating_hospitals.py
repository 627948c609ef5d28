"""Three hospitals' own homes, policies, approvals and logs, in this process: two train, the third only validates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedage.client.audit import show
from fedage.client.audit.log import LOG_FILE
from fedage.client.cli.index import index_site
from fedage.client.site.home import init_site
from fedage.common.campaign_file import parse_campaign
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.heads import Heads
from fedage.server.record.results import read_results
from fedage.server.superlink.grid import PollingGrid
from fedage.server.superlink.home import init_home
from tests.as_used import predictions_as_used
from tests.client.hospital import Hospital
from tests.deploy.simulating import as_csv
from tests.deploy.test_external_validation import FEATURES, MIXED
from tests.machinery import InProcessGrid
from tests.of_bundles import HOSPITALS, patients


@pytest.mark.slow
def test_two_hospitals_train_and_the_third_judges_their_final_model(tmp_path: Path) -> None:
    coordinator, table = init_home(tmp_path / "coordinator", hosts=("localhost",)), patients(n=150, seed=21)
    members = []
    for name in HOSPITALS:
        home = init_site(
            tmp_path / name,
            name=name,
            coordinator="localhost:8443",
            ca_certificate=coordinator.ca_certificate,
            coordinator_public_key=coordinator.signing_public_key,
        )
        path = as_csv(table[table["hospital"] == name].drop(columns="hospital"), tmp_path / f"{name}.csv")
        with (home.root / "site.toml").open("a") as settings:
            settings.write(f'[table]\npath = "{path}"\nid = "subject"\nage = "age"\nsex = "sex"\n')
        index_site(home.root)
        members.append(Hospital(home.root, coordinator.signing_key(), campaign=parse_campaign(MIXED)))
        members[-1].site.rules.approve(members[-1].campaign)
    grid = InProcessGrid([member.site for member in members])
    place = Place(folder=tmp_path / "run", run="r", environment="deployment", guard=True)
    conduct(
        PollingGrid(grid, poll_s=0.01), parse_campaign(MIXED), place, key=coordinator.signing_key(),
        admitted=grid.names, heads=Heads(tmp_path / "heads"),
    )  # fmt: skip
    results = read_results(tmp_path / "run" / "results.json")
    west = table[table["hospital"] == "west"]
    model = load_file(tmp_path / "run" / "model.safetensors")
    z = (west[FEATURES].to_numpy() - model["means"]) / model["sds"]
    error = np.abs(model["intercept"][0] + z @ model["coefficients"] - west["age"].to_numpy())
    outside = results.external["evaluation:test"]
    assert outside.sites == ("west",)
    assert outside.result is not None
    asked = members[-1].campaign
    used = predictions_as_used(members[HOSPITALS.index("west")].site, asked.digest, run="r", fold=asked.final_fold)
    assert np.abs(used["raw_gap_years"]).mean() == pytest.approx(error.mean(), abs=0.01)
    assert outside.result.model_dump()["mae_years"] == pytest.approx(np.abs(used["raw_gap_years"]).mean(), abs=1e-9)
    assert results.analyses["evaluation:test"].sites == ("north", "south")
    assert {made.sites for made in results.preparation} == {("north", "south")}
    assert {site.name: site.role for site in results.sites}["west"] == "validation only"
    steps = {step for line in show(tmp_path / "west" / LOG_FILE) for step in line.entry.steps}
    assert "evaluation:test" in steps
    assert "table-preparation" not in steps
