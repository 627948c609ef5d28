"""A campaign of three hospitals whose processes are killed at random moments ends like one that was left alone.

Each kill takes one process, or the whole coordinator, at a moment drawn from a seed: of four seeds one while an update
is uploaded, one while a round's end is written, one in an exact phase or an analysis, and one at any time. Whatever
ended the run is answered by `fedage campaign resume`, as a person would. More kills: FEDAGE_CHAOS_KILLS=30, from
FEDAGE_CHAOS_SEED on; what each did is appended to the file FEDAGE_CHAOS_LOG. FEDAGE_CHAOS_MOMENT=journal takes them all
while a round's model or its step is written into the journal, or between the two; with --basetemp on a disk, where a
file takes its time. FEDAGE_CHAOS_TIMES=4 kills each run so often, a round after another.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from flwr.proto.message_pb2 import ObjectTree

from fedage.common.protocol.messages import ANALYSE, TRAIN
from fedage.server.record.run_folder import RunFolder
from tests.hospitals_at_work import (
    AGENT,
    CAMPAIGN,
    EXECUTOR,
    NODE,
    SERVERAPP,
    SUPERLINK,
    Command,
    Network,
    network,
    record,
    rounds_done,
    until,
)
from tests.server.killed_while_writing import JOURNAL
from tests.watched_folder import WatchedFolder

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("FEDAGE_CHAOS_KILLS", "3"))
LOG = os.environ.get("FEDAGE_CHAOS_LOG")
SEED = int(os.environ.get("FEDAGE_CHAOS_SEED", "0"))
NAMES, ROUNDS, WAIT_S = ("north", "south", "west"), 6, float(os.environ.get("FEDAGE_CHAOS_WAIT_S", "300"))
VICTIMS = (SERVERAPP, SUPERLINK, EXECUTOR, NODE, AGENT, "coordinator")
MOMENTS = ("upload", "checkpoint", "exact phase", "any")
MOMENT = os.environ.get("FEDAGE_CHAOS_MOMENT")
TIMES = int(os.environ.get("FEDAGE_CHAOS_TIMES", "1"))
LONGEST_S = 8.0
"""So long after a round at most something is killed: in the next one, an upload, or the writing of its end."""


def campaign(fleet: Network) -> Path:
    """All sites in each step, however long one takes to come back: so the participants are fixed."""
    file = fleet.root / "chaos.toml"
    sites = ", ".join(f'"{name}"' for name in NAMES)
    text = CAMPAIGN.format(name="chaos", sites=sites, rounds=ROUNDS, quorum=len(NAMES), deadline_s=240)
    # Large enough for an upload to take a moment.
    text = text.replace("hidden = [4]", "hidden = [800, 800]")
    file.write_text(text.replace(f"rounds = {ROUNDS}", f"rounds = {ROUNDS}\nquorum_wait_s = 240\nbatch_size = 64"))
    return file


def strike(fleet: Network, what: str, pids: list[int], rng: np.random.Generator) -> str:
    """Kill one process of a kind, if there is one; what was killed."""
    if what == "coordinator":
        fleet.running["coordinator"].end(signal.SIGKILL)
        until(lambda: not any(fleet.pids(each) for each in (SUPERLINK, EXECUTOR, SERVERAPP)), timeout_s=60)
        fleet.start_coordinator("--resume")
        return what
    if not pids:
        return f"no {what}"
    os.kill(int(rng.choice(pids)), signal.SIGKILL)
    return what


def asked(run: RunFolder, kind: str) -> int:
    """How often the sites were asked for something of a kind."""
    lines = run.events.read_text(encoding="utf-8").splitlines() if run.events.is_file() else []
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return sum(event["event"] == "asked" and event["step"] == kind for event in events)


def uploads(store: Path, *, seen: int, begun: bool) -> list[str]:
    """The parts that are not there yet of replies that the SuperLink has learnt of since its log was so long.

    With `begun` only of those of which some are there.
    """
    with (store / "log").open("rb") as log:
        log.seek(seen)
        lines = log.read().decode("ascii", errors="replace").splitlines()
    changes = [json.loads(line) for line in lines if line.endswith("}")]
    trees = [ObjectTree.FromString(base64.b64decode(each["tree"])) for each in changes if each["do"] == "register"]
    found = [parts(tree) for tree in trees[len(NAMES) :]]
    missing = [[part for part in whole if not (store / part).exists()] for whole in found]
    if begun:
        missing = [left for left, whole in zip(missing, found, strict=True) if len(left) < len(whole)]
    return [part for left in missing for part in left]


def parts(tree: ObjectTree) -> list[str]:
    return [tree.object_id, *(part for child in tree.children for part in parts(child))]


def written(run: RunFolder, *, journal: bool = False) -> list[str]:
    """Files of a run, or of its journal alone, that are being written, or were when their writer was killed."""
    found = list[str]()
    for folder in (run.journal,) if journal else (run.path, run.state, run.journal):
        with contextlib.suppress(FileNotFoundError):  # removed when the run has finished
            found += [file.name for file in folder.glob("*.partial")]
    return sorted(found)


def moment(
    fleet: Network, run: RunFolder, kind: str, rng: np.random.Generator, ended: Callable[[], bool], *, late: bool
) -> str:
    """Wait for a moment of a kind; what it was like. `late`: some of an upload is there; the journal is written."""
    after = int(rng.integers(0, ROUNDS + 1))  # before the first round are offer and exact phase, then the analyses

    def reached(condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, kind
            if ended():
                return False
            time.sleep(0.001)
        return True

    if kind == "upload":
        after = int(rng.integers(0, ROUNDS))
        store = fleet.coordinator.root / "state-objects"
        reached(lambda: asked(run, TRAIN) > after)
        seen = (store / "log").stat().st_size
        look = partial(uploads, store, seen=seen, begun=late)
        found = list[str]()

        def is_one() -> bool:
            found[:] = look()
            return bool(found)

        is_there = reached(is_one)
        return f"{len(found)} parts of an upload missing in round {after + 1}" if is_there else "end"
    if kind == "checkpoint":
        after = int(rng.integers(0, ROUNDS))
        reached(lambda: rounds_done(run) >= after)
        reached(lambda: bool(written(run, journal=late)))
        return f"{', '.join(written(run)) or 'something'} being written after round {after}"
    if kind == "journal":
        after = max(int(rng.integers(0, ROUNDS - TIMES + 1)), rounds_done(run))
        what, wanted = list(JOURNAL.items())[int(rng.choice([0, 0, 1, 2]))]
        reached(lambda: rounds_done(run) >= after and run.journal.is_dir())
        folder = WatchedFolder(run.journal)
        is_there = reached(lambda: any(re.fullmatch(wanted, name) for name in folder.names(timeout_s=0.5)))
        folder.close()
        return f"{what} after round {after}" if is_there else "end"
    if kind == "exact phase":
        count, after_s = int(rng.integers(1, 5)), float(rng.uniform(0.0, 0.3))
        reached(lambda: asked(run, ANALYSE) >= count)
        time.sleep(after_s)
        return f"{after_s:.2f} s after exchange {count} of an exact phase or analysis began"
    after_s = float(rng.uniform(0.0, LONGEST_S))
    reached(lambda: rounds_done(run) >= after)
    began = time.monotonic()
    reached(lambda: time.monotonic() - began >= after_s)
    return f"{after_s:.1f} s after round {after}"


def is_over(command: Command) -> bool:
    return command.process.poll() is not None


def run_to_its_end(fleet: Network, seed: int) -> tuple[Path, list[str]]:
    """One run with its kills; its folder, and what happened."""
    rng = np.random.default_rng(seed)
    what = str(rng.choice(VICTIMS))
    kind = MOMENT or MOMENTS[seed % len(MOMENTS)]
    if kind == "journal":
        what = SERVERAPP
    if kind == "checkpoint" and what not in (SERVERAPP, "coordinator"):
        what = SERVERAPP  # which is who writes
    command, run = fleet.run(fleet.root / "chaos.toml", name=f"seed-{seed}")
    told = list[str]()
    until(lambda: run.events.is_file() and bool(fleet.pids(SERVERAPP)), timeout_s=WAIT_S, what=lambda: command.said)
    pids = [] if what == "coordinator" else fleet.pids(what)  # looked up before: a look takes longer than some moments
    when = moment(fleet, run, kind, rng, partial(is_over, command), late=seed // 4 % 2 == 1)
    killed = strike(fleet, what, pids, rng)
    done = rounds_done(run)
    left = ", ".join(written(run)) or "nothing"
    told.append(f"seed {seed}: {killed} killed, {when}; {left} left half written")
    deadline = time.monotonic() + WAIT_S
    going: Command = command
    more = TIMES - 1
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
        if more and going is not command and rounds_done(run) < ROUNDS and (pids := fleet.pids(what)):
            when = moment(fleet, run, kind, rng, partial(is_over, going), late=False)
            told.append(f"{strike(fleet, what, pids, rng)} killed, {when}; {', '.join(written(run)) or 'nothing'} left")
            done, deadline, more = rounds_done(run), time.monotonic() + WAIT_S, more - 1
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
            if LOG:
                with Path(LOG).open("a", encoding="utf-8") as log:
                    log.write("; ".join(told) + "\n")
            assert written(fleet.runs[-1][1]) == [], told
            found = record(fleet.runs[-1][1])
            assert [done.number for done in found.rounds] == list(range(1, ROUNDS + 1)), told
            assert all(done.sites == NAMES for done in found.rounds), told
            assert (folder / "model.safetensors").read_bytes() == model, told
            assert found.analyses == analyses, told
