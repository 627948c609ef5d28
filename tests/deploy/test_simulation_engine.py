"""A simulation whose engine fails: started once more if no site was met, and the record says what ended the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from fedage.common.errors import FedAgeError
from fedage.deploy import simulate as module
from fedage.deploy.machine.simulation import ENGINE_ENDED, Share, SimulationJob
from fedage.deploy.simulate import simulate
from fedage.server.record.results import read_results
from tests.deploy.simulated import LONG, RIDGE, below, command, nothing_left, table
from tests.deploy.simulating import as_csv

ATTEMPT = module._attempt
AT_ONCE, LATER = Share(at_a_time=-1), Share(at_a_time=2, gpu=1.0)
"""Shares that Ray refuses at once, and that no site can have once Ray has started and the ServerApp has begun."""


def run(folder: Path) -> str:
    (folder / "ridge.toml").write_text(RIDGE, encoding="utf-8")
    data = as_csv(table(), folder / "table.csv")
    out = folder / "out"
    return simulate(folder / "ridge.toml", data=data, site_column="site", out=out, console=Console()).run.status


@pytest.mark.processes
@pytest.mark.timeout(900)  # three starts of an engine on a busy machine
@pytest.mark.parametrize(
    ("share", "failures"),
    [
        pytest.param(AT_ONCE, 1, marks=pytest.mark.slow, id="at once"),
        pytest.param(LATER, 1, id="once its ServerApp has begun"),
        pytest.param(LATER, 2, marks=pytest.mark.slow, id="twice"),
    ],
)
def test_an_engine_that_fails_before_any_site_is_met_is_started_once_more(
    share: Share, failures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its ServerApp, which has begun by then, neither reports a stop that nobody asked for nor stays in the record."""
    attempts = 0

    def attempt(job: SimulationJob, job_file: Path, **others: object) -> str | None:
        nonlocal attempts
        attempts += 1
        now = share if attempts <= failures else Share(at_a_time=2)
        job.model_copy(update={"share": now, "engine": "flower"}).write(job_file)
        return ATTEMPT(job, job_file, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_attempt", attempt)
    status = run(tmp_path)
    said, found = capsys.readouterr().out, read_results(tmp_path / "out" / "results.json").run
    assert attempts == 2
    assert "the simulation engine did not start; starting it once more" in said
    assert nothing_left(tmp_path)
    assert not (tmp_path / "out" / "work").exists()
    if failures == 1:
        assert (status, found.status, found.reason) == ("finished", "finished", "")
        assert not (tmp_path / "out" / "simulation.log").exists()
        return
    assert (status, found.status, found.reason) == ("failed", "failed", ENGINE_ENDED)
    assert "Traceback" in (tmp_path / "out" / "simulation.log").read_text()
    assert str(tmp_path / "out" / "simulation.log") in said


@pytest.mark.processes
@pytest.mark.parametrize("what", ["raylet", pytest.param("gcs_server", marks=pytest.mark.slow)])
def test_an_engine_that_is_killed_in_a_run_fails_it_and_its_log_is_kept(what: str, tmp_path: Path) -> None:
    in_the_engine = "from fedage.deploy import cli, simulate; simulate._ENGINES['table'] = 'flower'; cli.main()"
    _python, _m, _package, *arguments = command(tmp_path, LONG, table())
    process = subprocess.Popen(
        [sys.executable, "-c", in_the_engine, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    events, deadline = tmp_path / "out" / "events.jsonl", time.monotonic() + 180
    try:
        while not events.is_file() or events.read_text().count('"event": "round"') < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for pid in below(process.pid):
            if what in Path(f"/proc/{pid}/comm").read_text():
                os.kill(pid, signal.SIGKILL)
        said, _ = process.communicate(timeout=180)
    finally:
        process.kill()
    found = read_results(tmp_path / "out" / "results.json")
    assert (process.returncode, found.run.status) == (1, "failed"), said
    assert len(found.rounds) > 1
    # Who notices first: the engine's process, or the run, whose sites are both gone.
    assert "engine" in found.run.reason or "ActorDiedError" in found.run.reason
    assert (tmp_path / "out" / "simulation.log").stat().st_size > 0
    assert nothing_left(tmp_path)


def test_an_engine_that_does_not_start_is_tried_twice_and_its_log_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no engine\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("fedage.deploy.simulate.sys.executable", str(broken))
    (tmp_path / "ridge.toml").write_text(RIDGE)
    data = as_csv(table(), tmp_path / "table.csv")
    with pytest.raises(FedAgeError, match=r"ended without a record; see .*simulation\.log"):
        simulate(tmp_path / "ridge.toml", data=data, site_column="site", out=tmp_path / "out", console=Console())
    assert "starting it once more" in capsys.readouterr().out
    assert (tmp_path / "out" / "simulation.log").read_text() == "no engine\n" * 2
    assert not (tmp_path / "out" / "work").exists()
