"""A site whose memory does not hold a batch: the round counts, and the record says what was done."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedage.client.compute.optimiser_steps import Steps
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.base import Batch
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import Results, read_results
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid
from tests.server.test_conduct_folds import NETWORK, tables
from tests.server.test_quorum import PARTS


def run(folder: Path) -> Results:
    grid = InProcessGrid(tables(folder))
    place = Place(folder=folder / "run", run="r1", environment="simulation", guard=True)
    campaign = parse_campaign(NETWORK + PARTS)
    conduct(PollingGrid(grid, poll_s=0.01), campaign, place, key=None, admitted=grid.names)
    return read_results(folder / "run" / "results.json")


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_what_was_cut_is_told_and_counts(parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = Steps._gradient

    def narrow(self: Steps, batch: Batch, count: int) -> float:
        if self.parts < parts:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gradient(self, batch, count)

    monkeypatch.setattr(Steps, "_gradient", narrow)
    found = run(tmp_path)
    assert [done.sites for done in found.rounds] == [("a", "b", "c")] * 2
    told = f"train (rounds 1 to 2): a batch did not fit into its memory and was computed in {parts} parts"
    for site in found.sites:
        assert (told in site.troubles) == (parts > 1), site.troubles


def test_a_site_that_cannot_cut_its_batch_withholds_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_given: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Steps, "_gradient", never)
    with pytest.raises(Exception, match=r"out-of-memory.*lower training\.batch_size"):
        run(tmp_path)
