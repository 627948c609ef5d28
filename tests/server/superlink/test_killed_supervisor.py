"""kill -9 of the process that looks after the others: they end within seconds, whatever they do and whoever reaps.

Where process 1 does not wait for orphans (many containers), the dead stay zombies, and their numbers stay taken.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hospitals_at_work import (
    AGENT,
    EXECUTOR,
    NODE,
    SERVERAPP,
    SUPERLINK,
    Network,
    network,
    record,
    rounds_done,
    until,
)

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

PR_SET_CHILD_SUBREAPER = 36
GONE_S = 15
OF_COORDINATOR, OF_SITE = (SUPERLINK, EXECUTOR, SERVERAPP), (NODE, AGENT)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with network(tmp_path_factory.mktemp("s")) as made:
        yield made


@pytest.fixture
def nobody_reaps() -> Iterator[None]:
    """Orphans come to this process, which does not wait for them until the end."""
    prctl = ctypes.CDLL(None).prctl
    before = set(_children())
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        for pid in set(_children()) - before:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _children() -> list[int]:
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def left(fleet: Network, site: str = "") -> list[int]:
    if site:
        return [pid for what in OF_SITE for pid in fleet.pids(what, of=site)]
    return [pid for what in OF_COORDINATOR for pid in fleet.pids(what)]


def trainings(fleet: Network) -> int:
    return sum((fleet.root / name / "logs" / "agent.log").read_text().count("train, round") for name in fleet.names)


@pytest.mark.parametrize("moment", ["at its start", "idle"])
def test_nothing_is_left_of_a_site(moment: str, fleet: Network) -> None:
    if moment == "at its start":
        fleet.running["north"].end()
        fleet.start_site("north")
        until(lambda: bool(fleet.pids(AGENT, of="north")), timeout_s=30)
    fleet.running["north"].end(signal.SIGKILL)
    until(lambda: not left(fleet, "north"), timeout_s=GONE_S, what=lambda: left(fleet, "north"))
    (fleet.root / "north.log").unlink()
    fleet.start_site("north").wait_for("online", timeout_s=120)


@pytest.mark.parametrize("moment", ["at its start", "idle"])
def test_nothing_is_left_of_a_coordinator(moment: str, fleet: Network, nobody_reaps: None) -> None:
    if moment == "at its start":
        fleet.running["coordinator"].end()
        starting = fleet.fedage("coordinator", "start", "--home", fleet.coordinator.root, log="starting")
        until(lambda: bool(fleet.pids(SUPERLINK)), timeout_s=30)
        starting.end(signal.SIGKILL)
    else:
        fleet.running["coordinator"].end(signal.SIGKILL)
    until(lambda: not left(fleet), timeout_s=GONE_S, what=lambda: left(fleet))
    fleet.start_coordinator()


def test_a_run_ends_with_its_coordinator_and_goes_on_at_no_hospital(fleet: Network, nobody_reaps: None) -> None:
    command, run = fleet.run(fleet.campaign("cut-off", rounds=500))
    until(lambda: rounds_done(run) >= 2, timeout_s=300, what=lambda: command.said)
    command.end(signal.SIGKILL)
    fleet.running["north"].end(signal.SIGKILL)
    fleet.running["coordinator"].end(signal.SIGKILL)
    until(lambda: not left(fleet) and not left(fleet, "north"), timeout_s=GONE_S, what=lambda: left(fleet))
    (fleet.root / "north.log").unlink()
    fleet.start_site("north")
    restarted = fleet.start_coordinator()
    until(run.is_recorded, timeout_s=60, what=lambda: restarted.said)
    assert record(run).run.status in ("failed", "stopped")
    assert len(record(run).rounds) >= 2
    fleet.running["north"].wait_for("online", timeout_s=120)
    trained = trainings(fleet)
    time.sleep(5)
    assert trainings(fleet) == trained
    assert not fleet.pids(SERVERAPP)
