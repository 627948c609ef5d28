"""Real processes: two hospitals train, a third only validates; the exported model is then validated at the third alone.

What the record says of the third is held against the model's formula on its own table; its agent's log has no training.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedage.client.audit import show
from fedage.client.audit.log import LOG_FILE
from fedage.client.inbox.deployed import DeployedSite
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE, EVALUATE, TRAIN
from fedage.server.campaign.export import export_bundle
from fedage.server.record.results import read_results
from tests.as_used import predictions_as_used
from tests.deploy.test_external_validation import bundle_campaign
from tests.hospitals_at_work import Network, network

NAMES = ("north", "south", "west")
TRAIN_TWO = """
[campaign]
name = "train-two"
purpose = "Train at two hospitals and validate at a third"
seed = 4
sites = ["north", "south", "west"]
wait_s = 60
[estimator]
name = "table-ridge"
[estimator.options]
features = ["x*"]
age_scale = "linear"
[table]
id = "who"
age = "age"
sex = "sex"
[validation]
folds = 2
final_model = true
sites = ["west"]
"""

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(2400)]


def at_west(net: Network, model: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ages, and what the model predicts of the third hospital's table."""
    with (net.root / "west.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    x = np.array([[float(row[name]) for name in ("x1", "x2", "x3")] for row in rows])
    age = np.array([float(row["age"]) for row in rows])
    return age, model["intercept"][0] + ((x - model["means"]) / model["sds"]) @ model["coefficients"]


def test_train_here_validate_there(tmp_path: Path) -> None:
    with network(tmp_path, names=NAMES, patients=dict.fromkeys(NAMES, 160)) as net:
        file = tmp_path / "train-two.toml"
        file.write_text(TRAIN_TWO)
        command, run = net.run(file)
        assert command.process.wait(900) == 0, command.said
        results = read_results(run.path / "results.json")
        age, predicted = at_west(net, load_file(run.path / "model.safetensors"))
        site = DeployedSite.load(net.root / "west")
        asked = parse_campaign(TRAIN_TWO)
        used = predictions_as_used(site, asked.digest, run=run.name, fold=asked.final_fold)
        site.rules.close()
        assert np.allclose(np.sort(used["predicted_years"]), np.sort(predicted), atol=0.2)
        assert used["raw_gap_years"].std() == pytest.approx((predicted - age).std(), rel=1e-3)
        outside = results.external["evaluation:test"]
        assert outside.sites == ("west",)
        assert outside.result is not None
        found = outside.result.model_dump()
        assert found["n"] == age.size
        assert found["mae_years"] == pytest.approx(np.abs(used["raw_gap_years"]).mean(), abs=1e-9)
        slope = np.polyfit(used["predicted_years"], used["age_years"], 1)[0]
        assert found["calibration_slope"] == pytest.approx(slope, abs=1e-8)
        assert results.analyses["evaluation:test"].sites == ("north", "south")
        assert {made.sites for made in results.preparation} == {("north", "south")}
        assert {site.name: site.role for site in results.sites}["west"] == "validation only"

        content, _ = export_bundle(run.path, key=net.coordinator.signing_key())
        bundle = tmp_path / "model.fedage"
        bundle.write_bytes(content)
        text = bundle_campaign(content)
        second = tmp_path / "elsewhere.toml"
        second.write_text(text.replace('#sites = ["north", "south"]', 'sites = ["west"]', 1))
        assert parse_campaign(second.read_text()).campaign.sites == ("west",)
        words = ["campaign", "run", second, "--home", net.coordinator.root, "--name", "r", "--bundle", bundle]
        command = net.fedage(*words, log="elsewhere")
        assert command.process.wait(900) == 0, command.said
        again = read_results(net.coordinator.run_folder("elsewhere", "r") / "results.json")
        result = again.analyses["evaluation:test"].result
        assert result is not None
        assert result.model_dump()["mae_years"] == pytest.approx(found["mae_years"], abs=1e-9)
        assert again.preparation == ()
        kinds = {str(line.entry.kind) for line in show(net.root / "west" / LOG_FILE)}
        assert TRAIN not in kinds
        assert {EVALUATE, ANALYSE} <= kinds
