"""kill -9 of what runs at hospitals while a campaign runs: who is back in seconds is asked again and loses no round."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from fedage.server.record.results import Results
from tests.hospitals_at_work import AGENT, NODE, Network, network, record, rounds_done, until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]

ROUNDS = 5
WAIT_S = 240
"""For what a busy machine may take its time with."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with network(tmp_path_factory.mktemp("b"), names=("east", "north", "south")) as made:
        yield made


def must_have_lost_nothing(found: Results, said: str, *, rounds: int = ROUNDS) -> None:
    assert (found.run.status, found.run.reason) == ("finished", ""), said
    assert len(found.rounds) == rounds
    assert {tuple(done.sites) for done in found.rounds} == {("east", "north", "south")}


@pytest.mark.slow
def test_agents_killed_at_once_in_a_round_are_asked_again(fleet: Network) -> None:
    command, run = fleet.run(fleet.campaign("agents", rounds=ROUNDS))
    until(lambda: rounds_done(run) >= 2, timeout_s=WAIT_S, what=lambda: command.said)
    fleet.kill(AGENT)
    assert command.process.wait(WAIT_S) == 0, command.said
    must_have_lost_nothing(record(run), command.said)


@pytest.mark.slow
def test_agents_killed_while_they_read_the_offer_are_asked_again(fleet: Network) -> None:
    """Held still, so that the offer is surely under way when they die."""
    held = fleet.pids(AGENT)
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    command, run = fleet.run(fleet.campaign("offer", rounds=2))
    until(lambda: run.events.is_file() and '"asked"' in run.events.read_text(), timeout_s=60, what=lambda: command.said)
    fleet.kill(AGENT)
    assert command.process.wait(WAIT_S) == 0, command.said
    must_have_lost_nothing(record(run), command.said, rounds=2)


@pytest.mark.slow
def test_a_killed_node_comes_back_into_its_round(fleet: Network) -> None:
    command, run = fleet.run(fleet.campaign("node", rounds=ROUNDS))
    until(lambda: rounds_done(run) >= 2, timeout_s=WAIT_S, what=lambda: command.said)
    fleet.kill(NODE, of="south")
    assert command.process.wait(WAIT_S) == 0, command.said
    found = record(run)
    must_have_lost_nothing(found, command.said)
    assert max(done.seconds for done in found.rounds) < 60
    (south,) = (site for site in found.sites if site.name == "south")
    assert any("asked again" in trouble or "back" in trouble for trouble in south.troubles)


@pytest.mark.slow
def test_a_killed_node_and_an_agent_of_another_site_at_once(fleet: Network) -> None:
    command, run = fleet.run(fleet.campaign("relay", rounds=ROUNDS))
    until(lambda: rounds_done(run) >= 2, timeout_s=WAIT_S, what=lambda: command.said)
    fleet.kill(NODE, of="north")
    fleet.kill(AGENT, of="east")
    assert command.process.wait(WAIT_S) == 0, command.said
    must_have_lost_nothing(record(run), command.said)


@pytest.mark.slow
def test_every_node_killed_between_two_runs_is_waited_for(fleet: Network) -> None:
    fleet.kill(NODE)
    command, run = fleet.run(fleet.campaign("nodes", rounds=1))
    assert command.process.wait(WAIT_S) == 0, command.said
    must_have_lost_nothing(record(run), command.said, rounds=1)
    assert fleet.whole()
