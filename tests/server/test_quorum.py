"""A round that waits no longer once the quorum has answered."""

from __future__ import annotations

import time
from pathlib import Path

from flwr.app import Message

from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import TRAIN
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import read_results
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid
from tests.server.test_conduct_folds import NETWORK, tables

PARTS = "\n[validation.fractions]\ntrain = 0.5\nvalidation = 0.25\ntest = 0.25\n"


def test_a_silent_site_holds_nobody_up_once_the_quorum_has_answered(tmp_path: Path) -> None:
    text = NETWORK.replace("round_deadline_s = 1", "round_deadline_s = 120\nwait_after_quorum_s = 0.2") + PARTS

    def meddle(message: Message, node: int) -> Message | None:
        return None if message.metadata.message_type == TRAIN and grid.names[node] == "c" else message

    grid = InProcessGrid(tables(tmp_path), meddle=meddle)
    place = Place(folder=tmp_path / "run", run="r1", environment="simulation", guard=True)
    began = time.monotonic()
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(text), place, key=None, admitted=grid.names)
    assert time.monotonic() - began < 100
    found = read_results(tmp_path / "run" / "results.json")
    assert found.run.status == "finished"
    assert [done.sites for done in found.rounds] == [("a", "b")] * 2
    assert min(done.seconds or 0 for done in found.rounds) >= 0.2
    (trouble,) = next(site.troubles for site in found.sites if site.name == "c")
    assert trouble == "train (rounds 1 to 2): no answer when enough others had given theirs"
