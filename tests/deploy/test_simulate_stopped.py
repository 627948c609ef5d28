"""A simulation that is stopped, and what it keeps and leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fedage.deploy.machine.simulation import VARIABLE
from fedage.deploy.simulate import _undisturbed
from fedage.deploy.simulation_main import ORPHANED_RECORD_S
from fedage.server.record.results import read_results
from tests.deploy.simulated import LONG, below, command, nothing_left, still_there, table


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.processes
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        signal.SIGKILL,
    ],
)
def test_stopped_it_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, LONG, table()),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    deadline = time.monotonic() + 120
    try:
        # The run has begun, and is not yet over.
        while not (tmp_path / "out" / "events.jsonl").is_file() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        # A process may rename itself, which hides its environment: these are found by who started them.
        started = below(process.pid)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in said
    if number == signal.SIGKILL:
        # Nobody is there to stop the engine, which ends by itself and has time to write its record.
        deadline = time.monotonic() + ORPHANED_RECORD_S + 15
        while (still_there(tmp_path) or any(map(lives, started))) and time.monotonic() < deadline:
            time.sleep(0.1)
    assert nothing_left(tmp_path)
    assert not any(map(lives, started))
    if number == signal.SIGKILL:
        return
    assert process.returncode == 130, said
    assert "stopping; what was finished stays in" in said
    assert not (tmp_path / "out" / "work").exists()
    run = read_results(tmp_path / "out" / "results.json").run
    assert (run.status, run.environment, run.guard) == ("stopped", "simulation", False)
    assert (tmp_path / "out" / "report.html").is_file()


def _driver(folder: Path) -> int:
    """The process with the engine and the ServerApp."""
    wanted = f"{VARIABLE}={folder / 'out' / 'work' / 'job.json'}".encode()
    for environ in (entry / "environ" for entry in Path("/proc").glob("[0-9]*")):
        try:
            ours = wanted in environ.read_bytes().split(b"\0")
            if ours and b"simulation_main" in (environ.parent / "cmdline").read_bytes():
                return int(environ.parent.name)
        except OSError:
            continue
    raise AssertionError("no driver")


@pytest.mark.processes
@pytest.mark.parametrize(
    "whom",
    [
        "command",
        pytest.param("driver", marks=pytest.mark.slow),
        "driver at once",
        pytest.param("command at once", marks=pytest.mark.slow),
    ],
)
def test_rounds_that_were_finished_are_in_the_record_of_a_stopped_run(whom: str, tmp_path: Path) -> None:
    """Whoever is told to stop, and even if the command has no time to say goodbye."""
    process = subprocess.Popen(
        command(tmp_path, LONG, table()), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    events, out = tmp_path / "out" / "events.jsonl", tmp_path / "out"
    deadline = time.monotonic() + 180
    try:
        while not (events.is_file() and events.read_text().count('"event": "round"') > 1):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        if whom.startswith("driver"):
            os.kill(_driver(tmp_path), signal.SIGKILL if "at once" in whom else signal.SIGTERM)
        else:
            process.send_signal(signal.SIGINT if whom == "command" else signal.SIGKILL)
        said, _ = process.communicate(timeout=60)
        while still_there(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        process.kill()
    results = read_results(out / "results.json")
    assert results.run.status == ("failed" if whom == "driver at once" else "stopped"), (results.run, said)
    assert len(results.rounds) > 1
    assert (out / "report.html").is_file()
    assert nothing_left(tmp_path)
    assert "Traceback" not in said
    assert process.returncode == {"command": 130, "command at once": -signal.SIGKILL}.get(whom, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_cut_the_stopping_short(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with _undisturbed():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
