"""kill -9 of each process of a coordinator while a campaign runs: the run goes on, or it has its record at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hospitals_at_work import (
    EXECUTOR,
    SERVERAPP,
    SUPERLINK,
    Network,
    living,
    network,
    record,
    rounds_done,
    until,
)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]

WAIT_S = 240
"""For what a busy machine may take its time with; what is held to a time says so."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with network(tmp_path_factory.mktemp("k")) as made:
        yield made


@pytest.fixture(autouse=True)
def no_run_is_left(fleet: Network) -> Iterator[None]:
    yield
    fleet.end_runs()


def test_a_killed_serverapp_leaves_its_record_within_seconds(fleet: Network, tmp_path: Path) -> None:
    command, run = fleet.run(fleet.campaign("app"), out=tmp_path)
    until(lambda: rounds_done(run) >= 2, timeout_s=WAIT_S, what=lambda: command.said)
    fleet.kill(SERVERAPP)
    assert until(lambda: command.process.poll() is not None, timeout_s=30) < 20
    assert command.process.returncode == 1
    found = record(run)
    assert (found.run.status, len(found.rounds) >= 2) == ("failed", True)
    assert "the process of the run ended without a word" in found.run.reason
    for name in ("results.json", "report.html", "events.jsonl", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (run.path / name).read_bytes()
    assert {site.status for site in found.sites} == {"took part"}


def test_a_killed_superlink_is_started_again_and_the_run_goes_on(fleet: Network) -> None:
    command, run = fleet.run(fleet.campaign("link", rounds=6))
    until(lambda: rounds_done(run) >= 2, timeout_s=WAIT_S, what=lambda: command.said)
    fleet.kill(SUPERLINK)
    assert command.process.wait(WAIT_S) == 0, command.said
    found = record(run)
    assert (found.run.status, len(found.rounds)) == ("finished", 6)
    assert "the SuperLink was ended by signal 9 and is started again" in fleet.running["coordinator"].said
    assert "the SuperLink answers again" in fleet.running["coordinator"].said


@pytest.mark.slow
def test_a_killed_executor_is_started_again_and_takes_the_next_run(fleet: Network) -> None:
    fleet.kill(EXECUTOR)
    until(lambda: bool(fleet.pids(EXECUTOR)), timeout_s=30)
    command, run = fleet.run(fleet.campaign("executor", rounds=1))
    assert command.process.wait(WAIT_S) == 0, command.said
    assert record(run).run.status == "finished"


@pytest.mark.slow
def test_an_executor_killed_in_a_run_leaves_a_record_and_the_next_run_is_taken(fleet: Network) -> None:
    """Its death ends the process of the run, which writes its record if it can; else others do."""
    command, run = fleet.run(fleet.campaign("executor-in-a-run"))
    until(lambda: rounds_done(run) >= 2, timeout_s=WAIT_S, what=lambda: command.said)
    fleet.kill(EXECUTOR)
    assert command.process.wait(WAIT_S) != 0, command.said
    found = record(run)
    assert found.run.status in ("failed", "stopped")
    assert len(found.rounds) >= 2
    again, second = fleet.run(fleet.campaign("after-the-executor", rounds=1))
    assert again.process.wait(WAIT_S) == 0, again.said
    assert record(second).run.status == "finished"


@pytest.mark.slow
def test_ctrl_c_writes_the_record_before_it_copies_it(fleet: Network, tmp_path: Path) -> None:
    command, run = fleet.run(fleet.campaign("interrupted"), out=tmp_path)
    until(lambda: rounds_done(run) >= 1, timeout_s=WAIT_S, what=lambda: command.said)
    assert command.end(signal.SIGINT) == 130
    assert "stopping" in command.said
    assert "Traceback" not in command.said
    found = record(run)
    assert (found.run.status, len(found.rounds) >= 1) == ("stopped", True)
    assert found.run.reason == "stopped at the coordinator by the person who ran it"
    assert (tmp_path / "results.json").read_bytes() == (run.path / "results.json").read_bytes()
    until(lambda: not fleet.pids(SERVERAPP), timeout_s=20)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_abandoned_run_never_begins(fleet: Network, number: int) -> None:
    """The executor is held still, so that the run stays in the queue when the command that waits for it ends."""
    (executor,) = fleet.pids(EXECUTOR)
    os.kill(executor, signal.SIGSTOP)
    try:
        command, run = fleet.run(fleet.campaign(f"abandoned-{int(number)}", rounds=1))
        command.wait_for("waiting for the run to begin")
        command.end(number)
    finally:
        os.kill(executor, signal.SIGCONT)
    until(run.is_recorded, timeout_s=60, what=lambda: fleet.running["coordinator"].said)
    time.sleep(5)
    assert not run.has_begun()
    found = record(run)
    assert (found.run.status, found.rounds, {site.status for site in found.sites}) == ("stopped", (), {"absent"})
    for name in fleet.names:
        assert found.campaign.digest not in (fleet.root / name / "logs" / "agent.log").read_text()


@pytest.mark.slow
def test_a_run_outlives_the_command_that_follows_it(fleet: Network) -> None:
    command, run = fleet.run(fleet.campaign("unfollowed", rounds=4))
    until(lambda: rounds_done(run) >= 1, timeout_s=WAIT_S, what=lambda: command.said)
    command.end(signal.SIGKILL)
    until(run.is_recorded, timeout_s=WAIT_S)
    assert record(run).run.status == "finished"


@pytest.mark.slow
def test_a_coordinator_that_is_killed_says_at_its_next_start_what_it_left(fleet: Network) -> None:
    command, run = fleet.run(fleet.campaign("reboot"))
    until(lambda: rounds_done(run) >= 2, timeout_s=WAIT_S, what=lambda: command.said)
    command.end(signal.SIGKILL)
    fleet.running["coordinator"].end(signal.SIGKILL)
    until(lambda: not any(fleet.pids(what) for what in (SUPERLINK, EXECUTOR, SERVERAPP)), timeout_s=30)
    restarted = fleet.start_coordinator()
    until(run.is_recorded, timeout_s=60, what=lambda: restarted.said)
    found = record(run)
    assert found.run.status in ("failed", "stopped")
    assert len(found.rounds) >= 2
    assert len(living(fleet.mark)) >= 2
    again, second = fleet.run(fleet.campaign("after-the-reboot", rounds=1))
    assert again.process.wait(WAIT_S) == 0, again.said
    assert record(second).run.status == "finished"


@pytest.mark.slow
def test_a_run_killed_twice_is_resumed_and_ends_like_one_that_was_not(fleet: Network) -> None:
    """First the process of the run is killed, then the whole coordinator; both times in the middle of a round."""
    campaign = fleet.campaign("resumed", rounds=5)
    command, run = fleet.run(campaign)
    until(lambda: rounds_done(run) >= 1, timeout_s=WAIT_S, what=lambda: command.said)
    fleet.kill(SERVERAPP)
    assert command.process.wait(WAIT_S) == 1
    again = fleet.fedage("campaign", "resume", "--home", fleet.coordinator.root, log="again.log")
    until(lambda: rounds_done(run) >= 3, timeout_s=WAIT_S, what=lambda: again.said)
    again.end(signal.SIGKILL)
    fleet.running["coordinator"].end(signal.SIGKILL)
    until(lambda: not any(fleet.pids(what) for what in (SUPERLINK, EXECUTOR, SERVERAPP)), timeout_s=30)
    restarted = fleet.start_coordinator("--resume")
    until(run.is_recorded, timeout_s=WAIT_S, what=lambda: restarted.said)
    assert "going on with the run resumed/r" in restarted.said
    found = record(run)
    assert found.run.status == "finished", found.run.reason
    assert [done.number for done in found.rounds] == [1, 2, 3, 4, 5]
    assert all(len(done.sites) == len(found.sites) for done in found.rounds)
    whole, other = fleet.run(campaign, name="whole")
    assert whole.process.wait(WAIT_S) == 0, whole.said
    assert (run.path / "model.safetensors").read_bytes() == (other.path / "model.safetensors").read_bytes()
