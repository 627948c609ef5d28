"""How a run is, from its events: a table that a person watches, and a stop by name."""

from __future__ import annotations

import fcntl
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedage.common.errors import FedAgeError
from fedage.server.cli.main import campaign as commands
from fedage.server.cli.status import run_named, show_status, state_of, wait_for_round, watch_run
from fedage.server.record.run_folder import RunFolder
from fedage.server.superlink.home import init_home

NOW = "2026-03-01T10:00:00.000+00:00"
BEGUN = [
    {"event": "started"},
    {"event": "site", "site": "north", "patients": 80, "device": "cpu"},
    {"event": "site", "site": "south", "patients": None, "device": "cuda (H200)"},
    {"event": "asked", "step": "train", "round": 1, "fold": 0, "sites": ["north", "south"]},
    {"event": "answer", "site": "north", "step": "train", "round": 1},
]
ROUND = {
    "event": "round",
    "number": 1,
    "of": 4,
    "fold": 0,
    "folds": 2,
    "seconds": 30.0,
    "sites": ["north", "south"],
    "train_loss": 0.5,
}


def run_with(folder: Path, *events: dict[str, object], name: str = "r1") -> RunFolder:
    run = RunFolder(folder / "c" / name)
    run.state.mkdir(parents=True)
    run.events.write_text("".join(json.dumps({"time": NOW, **event}) + "\n" for event in events))
    return run


def printed(runs: Path, name: str | None = None) -> str:
    out = io.StringIO()
    show_status(runs, name, console=Console(file=out, width=200, highlight=False))
    return out.getvalue()


def test_a_run_that_goes_on_is_told_with_its_sites_and_the_time_left(tmp_path: Path) -> None:
    run = run_with(tmp_path, *BEGUN, ROUND, {"event": "validation", "round": 1, "mae_years": 4.25})
    with (run.state / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state, said = state_of(run), printed(tmp_path)
        assert run_named(tmp_path, None) == run
    assert (state.rounds_left, state.left_s()) == (7, 210.0)  # three of this fold, four of the next
    assert "fold 1 of 2, round 1 of 4, loss 0.500, validation MAE 4.25 years, 30.0 s a round, about 4 min left" in said
    assert [line.split() for line in said.splitlines() if line.startswith(("north", "south"))] == [
        ["north", "80", "cpu", "answered"],
        ["south", "cuda", "(H200)", "train,", "round", "1"],
    ]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ([], "its process is gone"),
        ([{"event": "finished", "status": "finished", "reason": ""}], "finished"),
        ([{"event": "finished", "status": "failed", "reason": "no quorum"}], "failed: no quorum"),
        (
            [{"event": "finished", "status": "stopped", "reason": "x"}, {"event": "resumed"}],
            "its process is gone",
        ),
    ],
)
def test_how_a_run_ended_is_told(more: list[dict[str, object]], status: str, tmp_path: Path) -> None:
    run = run_with(tmp_path, *BEGUN, *more)
    assert state_of(run).status == status
    assert status in printed(tmp_path)
    assert watch_run(run, console=Console(file=io.StringIO())) == status
    wait_for_round(run, tell=lambda _text: None)  # of a run that is over it waits for nothing


def test_a_site_in_trouble_is_named_until_its_next_update(tmp_path: Path) -> None:
    trouble = {"event": "site-trouble", "site": "south", "step": "train", "round": 1, "reason": "went [offline]"}
    run = run_with(tmp_path, *BEGUN, trouble)
    assert "went [offline]" in printed(tmp_path, "c/r1")
    run.events.write_text(run.events.read_text() + json.dumps({"time": NOW, **ROUND}) + "\n")
    assert "offline" not in printed(tmp_path, "c/r1")


def test_which_run_is_meant(tmp_path: Path) -> None:
    assert "no run yet" in printed(tmp_path)
    run_with(tmp_path, *BEGUN)
    with pytest.raises(FedAgeError, match=r"no run below .* goes on; start one with fedage campaign run"):
        run_named(tmp_path / "nothing", None)
    with pytest.raises(FedAgeError, match=r"no run below .* goes on; name one that ended \(c/r1\)"):
        run_named(tmp_path, None)
    with pytest.raises(FedAgeError, match=r"no run c/r2 below .*; there are: c/r1"):
        run_named(tmp_path, "c/r2")
    both = [run_named(tmp_path, "c/r1"), run_with(tmp_path, *BEGUN, name="r3")]
    locks = [(run.state / "run.lock").open("w") for run in both]
    for lock in locks:
        fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(FedAgeError, match="several runs go on; name one: c/r1, c/r3"):
        run_named(tmp_path, None)
    for lock in locks:
        lock.close()


def test_the_commands_by_name(tmp_path: Path) -> None:
    home = init_home(tmp_path / "home", hosts=None, port=None)
    run_with(home.runs, *BEGUN, {"event": "finished", "status": "failed", "reason": "no quorum"})
    for command in ("status", "watch"):
        said = CliRunner().invoke(commands, [command, "--home", str(home.root), "c/r1"])
        assert said.exit_code == 0, said.output
        assert "failed: no quorum" in said.output
    stopped = CliRunner().invoke(commands, ["stop", "--home", str(home.root), "c/r1", "--after-round"])
    assert isinstance(stopped.exception, FedAgeError)
    assert str(stopped.exception) == "the run c/r1 does not go on: failed: no quorum"


@pytest.mark.parametrize("lock", ["run.lock", "follow.lock"])
def test_a_run_that_goes_on_is_not_resumed_and_is_shown_instead(lock: str, tmp_path: Path) -> None:
    home = init_home(tmp_path / "home", hosts=None, port=None)
    run = run_with(home.runs, *BEGUN)
    (run.path / "campaign.toml").write_text("")
    with (run.state / lock).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = CliRunner().invoke(commands, ["resume", "--home", str(home.root), "c/r1"])
    assert isinstance(said.exception, FedAgeError)
    assert str(said.exception).endswith(f"goes on; see how: fedage campaign watch --home {home.root} c/r1")


def test_a_site_that_is_offline_is_not_shown_as_if_it_had_answered(tmp_path: Path) -> None:
    gone = {"event": "site-trouble", "site": "north", "step": "train", "round": 2, "reason": "offline"}
    asked = {"event": "asked", "step": "train", "round": 2, "fold": 0, "sites": ["south"]}
    run = run_with(tmp_path, *BEGUN, gone, asked)
    with (run.state / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = [line.split() for line in printed(tmp_path).splitlines() if line.startswith(("north", "south"))]
    assert rows == [
        ["north", "80", "cpu", "not", "asked", "offline"],
        ["south", "cuda", "(H200)", "train,", "round", "2"],
    ]
