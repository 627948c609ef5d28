"""A run over hospitals that hide their sums, cut off at every few messages: the same sums are opened in the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from fedage.client.audit import Outcome, show
from fedage.client.audit.log import KEY_FILE, LOG_FILE, PUBLIC_KEY_FILE, site_key
from fedage.client.inbox.deployed import DeployedSite
from fedage.client.site.home import SiteHome
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.heads import key_to_hex
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.heads import Heads
from fedage.server.record.results import Results, read_results
from fedage.server.record.run_folder import RunFolder
from fedage.server.superlink.grid import PollingGrid
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.hospitals_at_work import CAMPAIGN, hospital_home
from tests.machinery import InProcessGrid
from tests.server.test_resume import CutOff

NAMES = ("north", "south", "west")


class Run:
    """One run over three hospitals' homes with keys, each time up to its n-th message."""

    def __init__(self, folder: Path) -> None:
        self.coordinator = CoordinatorHome.load(folder / "coordinator")
        self.folder, self.sites = folder, [DeployedSite(SiteHome.load(folder / name)) for name in NAMES]
        sites = ", ".join(f'"{name}"' for name in NAMES)
        keys = "".join(f'{site.name} = "{key_to_hex(site.rules.audit.public_key)}"\n' for site in self.sites)
        text = CAMPAIGN.format(name="resumed", sites=sites, rounds=2, quorum=3, deadline_s=5)
        self.text = f"{text}[privacy]\nsecure_aggregation = true\n[privacy.site_keys]\n{keys}"
        self.run = RunFolder(folder / "runs" / "resumed" / "r1")

    def conduct(self, *, cut_off_at: int = 0, silent: Callable[[str, Message], bool] | None = None) -> bool:
        """Whether the run came to its end. `silent` says of which site which message is lost."""
        sent = 0

        def meddle(message: Message, node: int) -> Message | None:
            nonlocal sent
            sent += 1
            if sent == cut_off_at:
                raise CutOff
            return None if silent is not None and silent(grid.names[node], message) else message

        grid = InProcessGrid(self.sites, meddle=meddle)
        place = Place(folder=self.run.path, run="r1", environment="deployment", guard=True)
        try:
            with self.run.waiting():
                if self.run.has_begun():
                    self.run.take_up()
                with self.run.conducting():
                    conduct(
                        PollingGrid(grid, poll_s=0.001),
                        parse_campaign(self.text),
                        place,
                        key=self.coordinator.signing_key(),
                        admitted=grid.names,
                        heads=Heads(self.folder / "heads"),
                    )
        except CutOff:
            (self.run.path / "results.json").unlink()
            return False
        return True

    def results(self) -> Results:
        return read_results(self.run.path / "results.json")

    def close(self) -> None:
        for site in self.sites:
            site.rules.close()


@pytest.mark.slow
@pytest.mark.parametrize("every", [8, 12])
def test_a_run_cut_off_at_every_few_messages_ends_like_one_that_was_not(tmp_path: Path, every: int) -> None:
    coordinator = init_home(tmp_path / "whole" / "coordinator", hosts=("localhost",))
    for seed, name in enumerate(NAMES):
        hospital_home(tmp_path / "whole", name, coordinator=coordinator, seed=seed)
        site_key(tmp_path / "whole" / name / KEY_FILE, public=tmp_path / "whole" / name / PUBLIC_KEY_FILE)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    try:
        assert whole.conduct()
        times = 0
        while not cut.conduct(cut_off_at=every):
            times += 1
            assert times < 60
            # Of no single site anything is kept in between.
            assert not list(cut.run.updates.glob("*"))
        assert times >= 3
        one, other = whole.results(), cut.results()
        assert other.run.status == "finished"
        steps = [
            {step: each.model_dump(mode="json")["result"] for step, each in found.analyses.items()}
            for found in (one, other)
        ]
        # Masks are other ones in each run; what they hid is the same to the last bit.
        assert steps[0] == steps[1]
        assert [done.sites for done in other.rounds] == [NAMES] * 2
        models = [load_file(run.run.path / "model.safetensors") for run in (whole, cut)]
        assert all((models[0][name] == models[1][name]).all() for name in models[0])
        again = [line.entry.outcome for name in NAMES for line in show(tmp_path / "cut" / name / LOG_FILE)]
        assert Outcome.AGAIN in again, "a request that was answered before gets its stored answer"
        assert not cut.run.journal.exists()
    finally:
        whole.close()
        cut.close()
