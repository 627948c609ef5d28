"""The record of a run whose process is gone, and what keeps a run that was given up from ever beginning."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, TRAIN
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.recover import KILLED, recover, recover_all, recover_one
from fedage.server.campaign.run_so_far import Place
from fedage.server.cli.launch import launch
from fedage.server.cli.main import campaign as commands
from fedage.server.cli.watch_runs import WatchRuns
from fedage.server.record.events import EventLog, read_events
from fedage.server.record.results import read_results
from fedage.server.record.run_folder import RunFolder, RunRefused, run_folders
from fedage.server.superlink.grid import PollingGrid, StoppableGrid, Stopped
from fedage.server.superlink.home import init_home
from tests.machinery import InProcessGrid, memory_site
from tests.server.test_conduct import CAMPAIGN
from tests.small_disk import fill, small_disk

ROOT = Path(__file__).parents[2]


KILLS = (
    (DESCRIBE, 2, 0, False, False),  # in the first offer
    (TRAIN, 1, 0, True, False),
    (TRAIN, 4, 1, True, False),  # just after the first round
    (TRAIN, 6, 1, True, False),  # in the middle of the second
    (EVALUATE, 1, 2, True, False),
    (ANALYSE, 1, 2, True, True),
)
"""A kind of message, at which of them the run is killed, and what is left: rounds, whether described and analysed."""


class Killed:
    """Runs whose process killed itself: made once, and copied to where a test wants one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = [f"{kind}-{number}" for kind, number, *_ in KILLS]
        command = [sys.executable, "-m", "tests.server.killed_run", str(folder), *names]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def __call__(self, folder: Path, kind: str, number: int) -> RunFolder:
        shutil.copytree(self._folder / f"{kind}-{number}", folder, dirs_exist_ok=True)
        return RunFolder(folder / "runs" / "machinery" / "r1")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    return Killed(tmp_path_factory.mktemp("killed"))


@pytest.mark.parametrize(("kind", "number", "rounds", "described", "analysed"), KILLS)
def test_a_run_that_is_killed_keeps_what_it_had(
    tmp_path: Path, killed: Killed, kind: str, number: int, rounds: int, described: bool, analysed: bool
) -> None:
    run = killed(tmp_path, kind, number)
    assert not (run.path / "results.json").exists()
    assert run.has_begun()
    assert not run.is_conducted()
    written = recover(run, reason=KILLED)
    assert written is not None
    found = read_results(run.path / "results.json")
    assert found == written
    assert (found.run.status, found.run.reason, len(found.rounds)) == ("failed", KILLED, rounds)
    assert {site.status for site in found.sites} == ({"took part"} if described else {"absent"})
    assert (evaluation_results.evaluation(found).validation.raw.overall is not None) == analysed
    assert (found.run.started_utc or "") <= (found.run.finished_utc or "")
    report = (run.path / "report.html").read_text()
    assert "ended without a word" in report
    if rounds:
        assert (run.path / "model.safetensors").is_file()
    assert read_events(run.path / "events.jsonl")[-1]["event"] == "finished"
    assert not run.progress.exists()
    assert recover(run, reason="again") is None
    with run.waiting(), pytest.raises(RunRefused, match="has begun before"), run.conducting():
        pass


def test_a_progress_that_was_cut_off_and_torn_events_still_make_a_record(tmp_path: Path, killed: Killed) -> None:
    run = killed(tmp_path, TRAIN, 4)
    run.progress.write_bytes(run.progress.read_bytes()[:500])
    run.events.write_bytes(run.events.read_bytes()[:-30])
    ended = [event for event in read_events(run.events) if event["event"] == "round"]
    assert ended
    found = recover(run, reason=KILLED)
    assert found is not None
    assert (found.run.status, len(found.rounds)) == ("failed", len(ended))
    assert [done.sites for done in found.rounds] == [tuple(event["sites"]) for event in ended]
    assert read_events(run.events)[-1]["event"] == "finished"


def test_rounds_that_ended_after_the_last_saving_are_in_the_record(tmp_path: Path, killed: Killed) -> None:
    run = killed(tmp_path, TRAIN, 4)
    saved = json.loads(run.progress.read_text())
    first, *later = saved["rounds"]
    run.progress.write_text(json.dumps(saved | {"rounds": []}))
    found = recover(run, reason=KILLED)
    assert found is not None
    assert [done.number for done in found.rounds] == [done["number"] for done in (first, *later)]
    assert found.rounds[0].train_loss == first["train_loss"]


def test_a_record_without_its_report_gets_it(tmp_path: Path, killed: Killed) -> None:
    run = killed(tmp_path, TRAIN, 4)
    recover(run, reason=KILLED)
    before = (run.path / "results.json").read_bytes()
    (run.path / "report.html").unlink()
    assert recover_one(run.path) == run.path / "report.html"
    assert (run.path / "report.html").is_file()
    assert (run.path / "results.json").read_bytes() == before


def test_recover_by_hand_says_what_it_wrote_and_what_it_cannot(tmp_path: Path, killed: Killed) -> None:
    home = init_home(tmp_path / "c")
    run = killed(home.root, TRAIN, 4)
    (home.runs / "machinery" / "empty" / "state").mkdir(parents=True)
    done = CliRunner().invoke(commands, ["recover", "--home", str(home.root)])
    assert done.exit_code == 0
    assert f"1 rounds are in it: {run.path / 'report.html'}" in done.output
    assert "campaign.toml is missing" in done.output
    done = CliRunner().invoke(commands, ["recover", "--run", str(run.path)])
    assert str(run.path / "report.html") in done.output
    done = CliRunner().invoke(commands, ["recover", "--run", str(tmp_path)])
    assert "is not the folder of a run" in str(done.exception)
    assert "give --home" in str(CliRunner().invoke(commands, ["recover"]).exception)


def test_a_run_that_lives_or_is_waited_for_is_left_alone(tmp_path: Path) -> None:
    home = init_home(tmp_path / "c")
    lives, waits = (RunFolder(home.run_folder("m", name)) for name in ("lives", "waits"))
    told: list[str] = []
    with waits.waiting(), lives.waiting(), lives.conducting():
        assert recover_all(run_folders(home.runs), reason=KILLED, tell=told.append) == []
        assert recover(lives, reason=KILLED) is None
    assert told == []
    assert waits.given_up() == ""


@pytest.mark.parametrize(
    ("left", "goes"),
    [
        (".model.safetensors.f9127a22.partial", True),
        ("state/journal/.000003.model.01234567.partial", True),
        ("state/journal/.request.json.89abcdef.partial", True),
        ("state/.submitted.json.00000000.partial", False),  # perhaps written just now, by the command that waits
        ("state/journal/000003.model", False),
        ("model.safetensors", False),
        ("notes.partial", False),
    ],
)
def test_what_a_killed_process_was_writing_is_gone_when_the_run_goes_on(tmp_path: Path, left: str, goes: bool) -> None:
    run = RunFolder(tmp_path / "m" / "r")
    run.journal.mkdir(parents=True)
    (run.path / left).write_bytes(b"half a model")
    with run.waiting(), run.conducting():
        assert (run.path / left).exists() is not goes


def refused(run: RunFolder) -> str:
    with pytest.raises(RunRefused) as told, run.conducting():
        pass
    return str(told.value)


def test_a_run_begins_only_while_somebody_waits_for_it_and_only_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "m" / "r")
    run.state.mkdir(parents=True)
    assert "nobody waits" in refused(run)
    with run.waiting():
        with pytest.raises(FedAgeError, match="another command follows"), run.waiting():
            pass
        with run.conducting():
            assert run.is_conducted()
        assert "has begun before" in refused(run)
    other = RunFolder(tmp_path / "m" / "s")
    with other.waiting():
        other.give_up("nobody wants it", status="failed")
        other.give_up("later")
        assert "was given up: nobody wants it" in refused(other)
    (other.state / "given-up.json").write_text("{")
    with other.waiting():
        assert "gave the run up" in refused(other)


@contextmanager
def given_up_at(run: RunFolder, kind: str) -> Iterator[InProcessGrid]:
    def meddle(message, _node):  # type: ignore[no-untyped-def]
        if message.metadata.message_type == kind:
            run.give_up("stopped by its owner")
        return message

    sites = [memory_site(name, run.path.parent / "sites", count=48, seed=seed) for seed, name in enumerate("abc")]
    yield InProcessGrid(sites, meddle=meddle)


@pytest.mark.parametrize("kind", [DESCRIBE, TRAIN, EVALUATE])
def test_a_run_that_is_given_up_ends_at_its_next_look_and_says_why(tmp_path: Path, kind: str) -> None:
    run = RunFolder(tmp_path / "m" / "r")
    place = Place(folder=run.path, run="r", environment="deployment", guard=True)
    with given_up_at(run, kind) as grid, run.waiting(), run.conducting():
        stoppable = PollingGrid(StoppableGrid(grid, stop=run.given_up), poll_s=0.01)
        with pytest.raises(Stopped):
            conduct(stoppable, parse_campaign(CAMPAIGN), place, key=None, admitted=grid.names)
    found = read_results(run.path / "results.json").run
    assert (found.status, found.reason) == ("stopped", "stopped by its owner")


def test_the_supervisor_writes_what_a_dead_run_left(tmp_path: Path, killed: Killed) -> None:
    home = init_home(tmp_path / "c")
    run = killed(home.root, ANALYSE, 1)
    told: list[str] = []
    WatchRuns(home, tell=told.append).left_behind()
    assert read_results(run.path / "results.json").run.reason == "the coordinator went down while the run went on"
    (line,) = told
    assert "campaign machinery, run r1: the coordinator went down" in line


@pytest.mark.parametrize("kind", [DESCRIBE, TRAIN, EVALUATE])
def test_a_coordinator_whose_disk_is_full_says_so_and_loses_no_round(tmp_path: Path, kind: str) -> None:
    """A real small disk, filled to the last byte at a message of a kind, and freed for the record."""
    with small_disk(tmp_path / "disk", size_bytes=12_000_000) as disk:
        run = RunFolder(disk / "m" / "r")
        place = Place(folder=run.path, run="r", environment="deployment", guard=True)
        seen = []

        def meddle(message, _node):  # type: ignore[no-untyped-def]
            if message.metadata.message_type == kind and not seen:
                seen.append(kind)
                fill(disk)
            return message

        sites = [memory_site(name, tmp_path / "sites", count=48, seed=seed) for seed, name in enumerate("abc")]
        grid = InProcessGrid(sites, meddle=meddle)
        campaign = parse_campaign(CAMPAIGN)
        with run.waiting(), run.conducting(), pytest.raises(OSError, match="No space left"):
            conduct(PollingGrid(grid, poll_s=0.01), campaign, place, key=None, admitted=grid.names)
        with pytest.raises(FedAgeError, match=r"No space left on device.*fedage campaign recover --run"):
            recover(run, reason=KILLED)
        (disk / "filling").unlink()
        found = recover(run, reason=KILLED)
        assert found is not None
        assert len(found.rounds) == (2 if kind == EVALUATE else 0)
        assert "ended without a word" in found.run.reason
        assert run.is_recorded()


def test_an_event_after_a_torn_line_is_read(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    log = EventLog(file)
    log.emit("one")
    log.close()
    with file.open("a") as stream:
        stream.write('{"time": "2026-01-01T00:00:00+00:00", "event": "to')
    log = EventLog(file)
    log.emit("two")
    log.close()
    file.write_bytes(file.read_bytes() + b"[1]\n\xff\xfe\n")
    assert [event["event"] for event in read_events(file)] == ["one", "two"]


def test_a_run_whose_folder_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    home = init_home(tmp_path / "c")
    home.runs.write_text("in the way")
    with pytest.raises(FedAgeError, match=r"cannot be written \(Not a directory\).*make room"):
        launch(home, parse_campaign(CAMPAIGN), run="r", out=None)
