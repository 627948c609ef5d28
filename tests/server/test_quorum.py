"""A round that waits no longer once the quorum has answered, and a run that waits for its sites without one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import TRAIN
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import read_results
from fedage.server.sites import waiting
from fedage.server.sites.session import CampaignFailed
from fedage.server.superlink import grid as grid_module
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


def lose(grid: InProcessGrid, *, times: int) -> None:
    """Answer the first training messages of round 2 to b and c as Flower does for a node that is gone."""
    push, seen = grid.push_messages, dict[str, int]()

    def pushed(messages):  # type: ignore[no-untyped-def]
        messages = list(messages)
        ids = push(messages)
        for message, identity in zip(messages, ids, strict=True):
            site = grid.names[message.metadata.dst_node_id]
            if (message.metadata.message_type, message.metadata.group_id) == (TRAIN, "2") and site in "bc":
                seen[site] = seen.get(site, 0) + 1
                if seen[site] <= times:
                    gone = Error(code=ErrorCode.NODE_UNAVAILABLE, reason="gone")
                    grid._replies[identity] = Message(gone, reply_to=message)
        return ids

    grid.push_messages = pushed  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("times", "wait_s", "ends"),
    [(2, 0.0, "finished"), (6, 30.0, "finished"), (9, 30.0, "finished"), (6, 0.0, "failed"), (10_000, 0.2, "failed")],
)
def test_a_run_without_its_quorum_waits_for_its_sites_as_long_as_the_file_says(
    times: int, wait_s: float, ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, values in (
        (waiting, {"_LOOK_S": 0.01, "_AGAIN_S": 0.01, "_SELDOM_S": 0.02}),
        (grid_module, {"_RESTART_S": 0.01, "_NODES_EVERY_S": 0.01}),
    ):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    text = NETWORK.replace("round_deadline_s = 1", f"round_deadline_s = 60\nquorum_wait_s = {wait_s}") + PARTS
    grid = InProcessGrid(tables(tmp_path))
    lose(grid, times=times)
    place = Place(folder=tmp_path / "run", run="r1", environment="simulation", guard=True)
    campaign = parse_campaign(text)
    if ends == "finished":
        conduct(PollingGrid(grid, poll_s=0.01), campaign, place, key=None, admitted=grid.names)
    else:
        with pytest.raises(CampaignFailed, match=r"round 2: 1 site answered, the quorum is 2 \(b: train"):
            conduct(PollingGrid(grid, poll_s=0.01), campaign, place, key=None, admitted=grid.names)
    found = read_results(tmp_path / "run" / "results.json")
    assert found.run.status == ends
    assert len(found.rounds) == (2 if ends == "finished" else 1)
