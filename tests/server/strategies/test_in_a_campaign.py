"""A whole campaign with real sites, by our averaging and by Flower's."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from flwr.serverapp import strategy as flowers

from fedage.common.campaign.types import Training
from fedage.common.campaign_file import parse_campaign
from fedage.server.campaign import model
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.campaign.strategies import Spool, Strategy
from fedage.server.campaign.strategies.flower import FlowerStrategy
from fedage.server.record.results import Results, read_results
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, memory_site

CAMPAIGN = """
[campaign]
name = "strategies"
purpose = "Try how updates become a model, on pictures of nobody"
seed = 7
sites = ["a", "b"]
wait_s = 1
[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8
[training]
rounds = 2
batch_size = 8
[validation.fractions]
train = 0.5
validation = 0.25
test = 0.25
[privacy]
minimum_count = 5
"""


def run(folder: Path, sites: Path) -> tuple[Results, dict[str, np.ndarray]]:
    members = [memory_site(name, sites / name, seed=number) for number, name in enumerate("ab")]
    grid = InProcessGrid(members)
    place = Place(folder=folder, run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(CAMPAIGN), place, key=None, admitted=grid.names)
    assert not (folder / "state" / "updates").exists()
    return read_results(folder / "results.json"), safetensors.numpy.load_file(folder / "model.safetensors")


def test_a_campaign_by_flowers_averaging_makes_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, our_model = run(tmp_path / "ours", tmp_path / "sites of ours")

    def flowers_own(_training: Training, spool: Spool, **_options: object) -> Strategy:
        return FlowerStrategy(flowers.FedAvg(), spool, seed=7)

    monkeypatch.setattr(model, "make_strategy", flowers_own)
    theirs, their_model = run(tmp_path / "theirs", tmp_path / "sites of theirs")
    assert theirs.run.status == "finished"
    assert [done.sites for done in theirs.rounds] == [done.sites for done in ours.rounds] == [("a", "b")] * 2
    for name, array in our_model.items():
        np.testing.assert_allclose(their_model[name], array, rtol=0, atol=1e-4)
    assert theirs.rounds[0].update_norm == pytest.approx(ours.rounds[0].update_norm, rel=1e-4)
