"""kill -9 of SuperNode and agent, one after another, during the trainings of one real campaign."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from fedage.deploy.demo import run as demo
from fedage.deploy.demo.chest_campaign import DEMO
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_all
from fedage.server.record.results import read_results
from tests.hospitals_at_work import AGENT, NODE

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(1500)]

MARK = "FEDAGE_TEST_MARK"
ROUNDS = 4
# A SuperNode that is killed is missed by the coordinator for up to half a minute, so it is the first.
KILLED = (NODE, AGENT)


def living(mark: str) -> dict[int, str]:
    found = {}
    for environ in (entry / "environ" for entry in Path("/proc").glob("[0-9]*")):
        try:
            if int(environ.parent.name) != os.getpid() and f"{MARK}={mark}".encode() in environ.read_bytes():
                found[int(environ.parent.name)] = (environ.parent / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
    return found


def until(condition: Callable[[], bool], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_begun(home: Path, *, round_number: int) -> bool:
    log = home / "logs" / "agent.log"
    return log.is_file() and f"train, round {round_number}, digest " in log.read_text(encoding="utf-8")


def kill(mark: str, what: str, home: Path) -> int:
    pid = next(pid for pid, command in living(mark).items() if what in command and f"{home}" in command)
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_campaign_outlives_the_kill_of_every_process_of_a_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names = [hospital.name for hospital in HOSPITALS]
    folders = demo.Folders(tmp_path)
    planted = render_all(folders.images, seed=5, patients_per_site=40)
    text = DEMO.campaign_file(planted, sites=names, seed=5, quick=True)
    text = re.sub(r"(?m)^rounds = .*$", f"rounds = {ROUNDS}", text)
    text = re.sub(r"(?m)^quorum = .*$", "quorum = 1", text)
    campaign = tmp_path / "campaign.toml"
    campaign.write_text(text, encoding="utf-8")
    homes, killed = {name: folders.site(name) for name in names}, dict(zip(names, KILLED, strict=False))
    with ExitStack() as running:
        demo._fedage("coordinator", "init", "--home", folders.coordinator, "--host", "localhost")
        address = running.enter_context(demo._coordinator(folders))
        for name in names:
            demo._prepare_site(folders, name, kind=DEMO, address=address, seed=5, campaign=campaign, quick=True)
        for name in names:
            running.enter_context(demo._site(folders, name))
        log = folders.logs / "campaign.log"
        command = ["campaign", "run", campaign, "--home", folders.coordinator, "--out", tmp_path, "--name", "run"]
        with log.open("wb") as stream:
            process = subprocess.Popen(demo._command(command), stdout=stream, stderr=subprocess.STDOUT)
        running.callback(process.kill)
        for number, (name, what) in enumerate(killed.items(), start=1):
            until(lambda name=name, number=number: has_begun(homes[name], round_number=number), timeout_s=400)
            kill(mark, what, homes[name])
        assert process.wait(600) == 0, log.read_text()
        for what in KILLED:  # every site is whole again
            until(
                lambda what=what: sum(what in command for command in living(mark).values()) >= len(names),
                timeout_s=120,
            )
    results = read_results(tmp_path / "results.json")
    assert (results.run.status, results.run.reason) == ("finished", "")
    assert len(results.rounds) == ROUNDS
    for number, name in enumerate(killed, start=1):
        (site,) = (site for site in results.sites if site.name == name)
        assert any(re.search(rf"\(rounds? {number}\b.*asked again", told) for told in site.troubles), site.troubles
        assert not any("Traceback" in told for told in site.troubles)
    # Each was asked again in the round in which it was killed, so none lost any.
    assert {tuple(sorted(done.sites)) for done in results.rounds} == {tuple(sorted(names))}
    for name, home in homes.items():
        heads = folders.coordinator / "heads" / f"{name}.jsonl"
        told = demo._fedage("site", "audit", "verify", "--home", home, "--head", heads)
        assert told.startswith("the audit log is intact"), (name, told)
    until(lambda: not living(mark), timeout_s=20)
