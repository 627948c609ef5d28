"""A site that fails round after round sits some out."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Message

from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import TRAIN
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.resting import FAILURES, REST, Resting
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import read_results
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid
from tests.server.test_conduct_folds import NETWORK, tables
from tests.server.test_quorum import PARTS

SITES = ("a", "b", "c")


def asked_in(resting: Resting, fails: dict[str, set[int]], *, rounds: int, quorum: int = 2) -> list[str]:
    """Who is asked in each round, where sites fail in the rounds given."""
    told = []
    for number in range(1, rounds + 1):
        asked = resting.asked(SITES, number=number, quorum=quorum)
        told.append("".join(asked))
        resting.after(number, asked=asked, accepted={site for site in asked if number not in fails.get(site, set())})
        resting = Resting.of(resting.to_json())  # as a run that is resumed has it
    return told


@pytest.mark.parametrize(
    ("fails", "rests"),
    [
        ({}, set()),
        ({"c": {1, 2}}, set()),
        ({"c": {1, 2, 4, 5, 7, 8}}, set()),
        ({"c": {1, 2, 3}}, {4, 5, 6, 7, 8}),
        ({"c": {2, 3, 4}}, {5, 6, 7, 8, 9}),
        ({"c": set(range(1, 20))}, {4, 5, 6, 7, 8, 10, 11, 12, 13, 14}),
        ({"c": {1, 2, 3, 10, 11}}, {4, 5, 6, 7, 8}),
    ],
)
def test_only_failures_in_a_row_are_rested(fails: dict[str, set[int]], rests: set[int]) -> None:
    assert (FAILURES, REST) == (3, 5)
    asked = asked_in(Resting(), fails, rounds=14)
    assert {number for number, who in enumerate(asked, start=1) if "c" not in who} == rests
    assert all("ab" in who for who in asked)


def test_nobody_rests_where_the_quorum_would_be_lost() -> None:
    assert asked_in(Resting(), {"b": set(range(30)), "c": set(range(30))}, rounds=6) == ["abc"] * 6
    assert asked_in(Resting(), {"c": set(range(30))}, rounds=6, quorum=3) == ["abc"] * 6


@pytest.mark.slow
def test_a_site_that_was_away_is_asked_as_soon_as_it_is_back(tmp_path: Path) -> None:
    text = NETWORK.replace("rounds = 2", "rounds = 6").replace("round_deadline_s = 1", "round_deadline_s = 60")

    def meddle(message: Message, node: int) -> Message:
        rounds = message.metadata.message_type == TRAIN, int(message.metadata.group_id)
        if rounds == (True, 4) and grid.names[node] == "a":
            grid.offline.clear()  # from the next round on
        return message

    class Leaving(InProcessGrid):
        def pull_messages(self, message_ids):  # type: ignore[no-untyped-def]
            replies = super().pull_messages(message_ids)
            if any((reply.metadata.message_type, reply.metadata.group_id) == (TRAIN, "1") for reply in replies):
                self.offline.update(number for number, name in self.names.items() if name == "c")
            return replies

    grid = Leaving(tables(tmp_path), meddle=meddle)
    place = Place(folder=tmp_path / "run", run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(text + PARTS), place, key=None, admitted=grid.names)
    found = read_results(tmp_path / "run" / "results.json")
    assert [len(done.sites) for done in found.rounds] == [3, 2, 2, 2, 3, 3]


def test_a_site_that_never_answers_is_asked_no_more_and_the_record_says_so(tmp_path: Path) -> None:
    text = NETWORK.replace("rounds = 2", "rounds = 5").replace(
        "round_deadline_s = 1", "round_deadline_s = 60\nwait_after_quorum_s = 0.01"
    )
    silent: list[int] = []

    def meddle(message: Message, node: int) -> Message | None:
        if message.metadata.message_type == TRAIN and grid.names[node] == "c":
            silent.append(int(message.metadata.group_id))
            return None
        return message

    grid = InProcessGrid(tables(tmp_path), meddle=meddle)
    place = Place(folder=tmp_path / "run", run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(text + PARTS), place, key=None, admitted=grid.names)
    found = read_results(tmp_path / "run" / "results.json")
    assert found.run.status == "finished"
    assert silent == [1, 2, 3]
    assert [done.sites for done in found.rounds] == [("a", "b")] * 5
    troubles = next(site.troubles for site in found.sites if site.name == "c")
    assert any("3 rounds without a usable update; it sits out the next 5" in trouble for trouble in troubles)
