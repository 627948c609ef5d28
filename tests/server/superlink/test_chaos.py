"""A campaign of three hospitals whose processes are killed at random moments ends like one that was left alone.

Each kill takes one process, or the whole coordinator, at a moment drawn from a seed; whatever ended the run is answered
by `fedage campaign resume`, as a person would. More kills: FEDAGE_CHAOS_KILLS=30, from FEDAGE_CHAOS_SEED on.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.hospitals_at_work import (
    AGENT,
    CAMPAIGN,
    EXECUTOR,
    NODE,
    RELAY,
    SERVERAPP,
    SUPERLINK,
    Command,
    Network,
    network,
    record,
    rounds_done,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("FEDAGE_CHAOS_KILLS", "3"))
SEED = int(os.environ.get("FEDAGE_CHAOS_SEED", "0"))
NAMES, ROUNDS, WAIT_S = ("north", "south", "west"), 6, 300.0
VICTIMS = (SERVERAPP, SUPERLINK, EXECUTOR, NODE, AGENT, RELAY, "coordinator")
LONGEST_S = 8.0
"""So long after a round at most something is killed: in the next one, an upload, or the writing of its end."""


def campaign(fleet: Network) -> Path:
    """All sites in each step, however long one takes to come back: so the participants are fixed."""
    file = fleet.root / "chaos.toml"
    sites = ", ".join(f'"{name}"' for name in NAMES)
    text = CAMPAIGN.format(name="chaos", sites=sites, rounds=ROUNDS, quorum=len(NAMES), deadline_s=240)
    # Large enough for an upload to take a moment.
    text = text.replace("hidden = [4]", "hidden = [400, 400]")
    file.write_text(text.replace(f"rounds = {ROUNDS}", f"rounds = {ROUNDS}\nquorum_wait_s = 240\nbatch_size = 64"))
    return file


def strike(fleet: Network, what: str, rng: np.random.Generator) -> str:
    """Kill one process of a kind, if there is one now; what was killed."""
    if what == "coordinator":
        fleet.running["coordinator"].end(signal.SIGKILL)
        until(lambda: not any(fleet.pids(each) for each in (SUPERLINK, EXECUTOR, SERVERAPP)), timeout_s=60)
        fleet.start_coordinator("--resume")
        return what
    found = fleet.pids(what)
    if not found:
        return f"no {what}"
    os.kill(int(rng.choice(found)), signal.SIGKILL)
    return what


def run_to_its_end(fleet: Network, seed: int) -> tuple[Path, list[str]]:
    """One run with one kill; its folder, and what happened."""
    rng = np.random.default_rng(seed)
    what, after_s = str(rng.choice(VICTIMS)), float(rng.uniform(0.0, LONGEST_S))
    # Before the first round are the offer and the exact phase, after the last one the analyses.
    after_rounds = int(rng.integers(0, ROUNDS + 1))
    command, run = fleet.run(fleet.root / "chaos.toml", name=f"seed-{seed}")
    told = list[str]()
    until(lambda: rounds_done(run) >= after_rounds, timeout_s=WAIT_S, what=lambda: command.said)
    began = time.monotonic()
    while time.monotonic() - began < after_s and command.process.poll() is None:
        time.sleep(0.05)
    done = rounds_done(run)
    told.append(f"seed {seed}: {strike(fleet, what, rng)} {after_s:.1f} s after round {after_rounds}")
    deadline = time.monotonic() + WAIT_S
    going: Command = command
    while not (run.is_recorded() and record(run).run.status == "finished"):
        assert time.monotonic() < deadline, (told, going.said)
        if going.process.poll() is not None and not run.is_conducted() and not run.is_followed():
            if not run.is_resumable():  # nothing had been answered: a person starts it once more
                assert rounds_done(run) == 0
                going, run = fleet.run(fleet.root / "chaos.toml", name=f"seed-{seed}-again")
                told.append("begun again")
            elif not run.is_recorded() or record(run).run.status != "finished":
                name = f"chaos/{run.name}"
                going = fleet.fedage("campaign", "resume", name, "--home", fleet.coordinator.root, log=f"resume-{seed}")
                told.append("resumed")
        time.sleep(0.3)
    assert rounds_done(run) >= done  # none was lost
    going.process.wait(120)
    return run.path, told


def test_a_run_in_which_anything_is_killed_ends_like_one_that_was_left_alone(tmp_path: Path) -> None:
    with network(tmp_path, names=NAMES) as fleet:
        campaign(fleet)
        command, whole = fleet.run(fleet.root / "chaos.toml", name="whole")
        assert command.process.wait(WAIT_S) == 0, command.said
        model = (whole.path / "model.safetensors").read_bytes()
        analyses = record(whole).analyses
        for seed in range(SEED, SEED + KILLS):
            until(fleet.whole, timeout_s=120, what=lambda: fleet.running["coordinator"].said)
            folder, told = run_to_its_end(fleet, seed)
            print("; ".join(told), flush=True)
            found = record(fleet.runs[-1][1])
            assert [done.number for done in found.rounds] == list(range(1, ROUNDS + 1)), told
            assert all(done.sites == NAMES for done in found.rounds), told
            assert (folder / "model.safetensors").read_bytes() == model, told
            assert found.analyses == analyses, told
