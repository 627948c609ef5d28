"""Sites that come once a run has begun: from when they take part, which do not, and what a resumed run does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import TRAIN
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import Results, read_results
from fedage.server.record.run_folder import RunFolder
from fedage.server.sites import late_sites
from fedage.server.superlink.grid import PollingGrid
from fedage.server.superlink.home import init_home
from tests.machinery import InProcessGrid, MemorySite, table_site
from tests.server.test_conduct_folds import NETWORK, K, tables
from tests.server.test_quorum import PARTS

TEXT = (
    NETWORK.replace("wait_s = 1\napproval_wait_s = 1", "wait_s = 0.1\napproval_wait_s = 0.1")
    .replace("rounds = 2", "rounds = 3")
    .replace("round_deadline_s = 1", "round_deadline_s = 60")
)


class CutOff(BaseException):
    """Instead of kill -9."""


@dataclass
class Late:
    """A run in which the site `c` becomes able to take part while a round is trained."""

    folder: Path
    text: str = TEXT + PARTS
    sites: list[MemorySite] = field(default_factory=list)
    admitted: dict[int, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sites = self.sites or tables(self.folder)
        self.run = RunFolder(self.folder / "runs" / "folds" / "r1")

    def conduct(self, *, before: Callable[[Late, InProcessGrid], None], during: int, cut_off_in: int = 0) -> bool:
        """Whether the run came to its end; `c` can take part after `during` messages of training, 0 for at once."""
        trained = 0

        def meddle(message: Message, node: int) -> Message:
            nonlocal trained
            if message.metadata.message_type == TRAIN:
                trained += 1
                self.answers.append(f"{grid.names[node]} {message.metadata.group_id}")
                if trained == during:
                    grid.offline.clear()
                    self.sites[2].approves = True
                    self.admitted.update(grid.names)
                if trained == cut_off_in:
                    raise CutOff
            return message

        grid = InProcessGrid(self.sites, meddle=meddle)
        self.admitted = dict(grid.names)
        if during:
            before(self, grid)
        place = Place(folder=self.run.path, run="r1", environment="deployment", guard=True)
        try:
            with self.run.waiting():
                if self.run.has_begun():
                    self.run.take_up()
                with self.run.conducting():
                    polling = PollingGrid(grid, poll_s=0.001)
                    conduct(polling, parse_campaign(self.text), place, key=None, admitted=self.admitted)
        except CutOff:
            return False
        return True

    @property
    def results(self) -> Results:
        return read_results(self.run.path / "results.json")


def is_offline(_late: Late, grid: InProcessGrid) -> None:
    grid.offline = {3}


def has_not_approved(late: Late, _grid: InProcessGrid) -> None:
    late.sites[2].approves = False


def is_not_admitted(late: Late, _grid: InProcessGrid) -> None:
    del late.admitted[3]


@pytest.mark.parametrize("before", [is_offline, has_not_approved, is_not_admitted])
def test_a_site_that_comes_in_the_second_round_trains_from_the_third_and_is_judged(
    before: Callable[[Late, InProcessGrid], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_sites, "_AGAIN_S", 0.0)
    late = Late(tmp_path)
    assert late.conduct(before=before, during=3)
    results = late.results
    assert [done.sites for done in results.rounds] == [("a", "b"), ("a", "b"), ("a", "b", "c")]
    site = next(site for site in results.sites if site.name == "c")
    assert site.patients
    assert site.status.startswith("took part")
    assert any("takes part from here on" in trouble for trouble in site.troubles)
    assert results.analyses["evaluation:test"].sites == ("a", "b", "c")


def other_table(late: Late, grid: InProcessGrid) -> None:
    is_offline(late, grid)
    x = np.random.default_rng(0).normal(size=(70, 3))
    late.sites[2] = table_site("c", late.folder / "sites", x=x, age=np.linspace(20, 80, 70))
    InProcessGrid(late.sites)


@pytest.mark.parametrize(
    ("text", "before", "why"),
    [
        pytest.param(TEXT.replace(', "c"', "") + PARTS, is_offline, "", id="not listed"),
        pytest.param(TEXT + PARTS, other_table, "finds columns", id="other features"),
        pytest.param(TEXT + K, is_offline, "", id="in a later fold"),
    ],
)
def test_who_cannot_take_part_is_left_out(
    text: str, before: Callable[[Late, InProcessGrid], None], why: str, tmp_path: Path
) -> None:
    late = Late(tmp_path, text)
    assert late.conduct(before=before, during=3 if "folds =" not in text else 9)
    results = late.results
    assert results.run.status == "finished"
    assert {done.sites for done in results.rounds} == {("a", "b")}
    if why:
        refused = next(site for site in results.sites if site.name == "c")
        assert why in " ".join((refused.status, *refused.troubles, str(refused)))


@pytest.mark.slow
@pytest.mark.parametrize("cut_off_in", [2, 4, 6])
def test_a_resumed_run_takes_a_site_in_where_it_was_taken_in(cut_off_in: int, tmp_path: Path) -> None:
    whole, cut = Late(tmp_path / "whole"), Late(tmp_path / "cut off")
    assert whole.conduct(before=is_offline, during=3)
    assert not cut.conduct(before=is_offline, during=3, cut_off_in=cut_off_in)
    assert cut.conduct(before=is_offline, during=1 if cut_off_in == 2 else 0)
    if cut_off_in > 4:  # else it had not been taken in when the run was cut off
        models = [load_file(each.run.path / "model.safetensors") for each in (whole, cut)]
        for name, array in models[0].items():
            np.testing.assert_array_equal(models[1][name], array)
    assert cut.results.rounds[-1].sites == ("a", "b", "c")


def test_admissions_are_seen_while_a_run_goes_on(tmp_path: Path) -> None:
    home = init_home(tmp_path / "coordinator", hosts=("localhost",))
    seen = home.admitted_now()
    assert dict(seen) == {}
    for node, name in ((7, "north"), (8, "south"), (7, "west")):
        home.note_admission(node, name)
        assert seen[node] == name
    home.note_admission(8, None)
    assert (dict(seen), 8 in seen, len(seen)) == ({7: "west"}, False, 1)
