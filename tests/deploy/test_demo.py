"""The demo as its user sees it: a command, real Flower processes, a folder with the record, nothing left running."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedage.client.audit import Direction, Kind, Outcome, read_heads, show, verify
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.survival import results as survival_results
from fedage.server.record.events import read_events
from fedage.server.record.results import Results, read_results

pytestmark = pytest.mark.processes

COMMAND = [sys.executable, "-m", "fedage.deploy", "demo"]


def processes_of(folder: Path) -> list[int]:
    """Processes that name this folder in their arguments or their environment, this one excepted."""
    needle, found = str(folder).encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            zombie = b"State:\tZ" in (entry / "status").read_bytes()
        except OSError:
            continue
        if needle in told and not zombie:
            found.append(int(entry.name))
    return found


def nothing_left(folder: Path, *, within_s: float = 15.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not processes_of(folder):
            return True
        time.sleep(0.2)
    return False


def demo(folder: Path, *options: str, timeout_s: float = 900.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--out", str(folder), *options], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def comparable(results: Results) -> dict[str, object]:
    """Everything but clocks, and the logs that hold their times."""
    values = results.model_dump()
    for record in values["rounds"]:
        del record["seconds"]
    for site in values["sites"]:
        del site["audit_head"]
    del values["run"]["started_utc"], values["run"]["finished_utc"]
    return values


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One quick demo beside a listener on the coordinator's usual port: a busy port is not a failure."""
    folder = tmp_path_factory.mktemp("quick") / "demo"
    with socket.socket() as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            busy.bind(("127.0.0.1", 8443))
            busy.listen()
        except OSError:
            pass  # somebody else keeps it busy already
        done = demo(folder, "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_the_record_is_complete(quick: tuple[Path, str]) -> None:
    folder, _ = quick
    for name in ("results.json", "events.jsonl", "model.safetensors", "report.html", "campaign.toml"):
        assert (folder / name).stat().st_size > 0, name
    results = read_results(folder / "results.json")
    assert results.run.status == "finished"
    assert results.run.environment == "deployment"
    assert results.phantoms
    assert [site.status for site in results.sites] == ["took part"] * 3
    # The site with the default policy sets aside the few of each part who are not healthy.
    assert [site.patients for site in results.sites] == [80, 80, 73]
    assert [site.excluded.get("too-few-not-healthy", 0) for site in results.sites] == [0, 0, None]
    assert [record.number for record in results.rounds] == [1, 2, 3, 4]
    assert all(record.sites == ("harbour", "north", "valley") for record in results.rounds)
    assert survival_results.survival(results) is not None
    assert any(not model.not_computed for model in survival_results.survival(results).cox)


def test_the_model_reads_age(quick: tuple[Path, str]) -> None:
    results = read_results(quick[0] / "results.json")
    overall = evaluation_results.evaluation(results).test.raw.overall
    assert overall is not None
    assert overall.mae_years is not None
    assert overall.mae_of_mean_years is not None
    # Predicting the mean is some 9.5 years off; what the quick form must reach leaves room for another machine's sums.
    assert overall.mae_years < 0.6 * overall.mae_of_mean_years


def test_the_screen_shows_sites_hazards_truth_and_the_report(quick: tuple[Path, str]) -> None:
    folder, screen = quick
    for word in ("harbour", "north", "valley", "MAE", "hazard ratio", "planted truth", "phantoms"):
        assert word in screen
    assert str(folder / "report.html") in screen


def test_both_sides_log_the_digest(quick: tuple[Path, str]) -> None:
    folder, screen = quick
    digest = read_results(folder / "results.json").campaign.digest
    assert digest in screen
    assert read_events(folder / "events.jsonl")[0]["digest"] == digest
    for site in ("harbour", "north", "valley"):
        assert digest in (folder / "sites" / site / "logs" / "agent.log").read_text()


def test_no_identifier_left_a_hospital(quick: tuple[Path, str]) -> None:
    folder, screen = quick
    outcomes = (folder / "hospitals" / "north" / "outcomes.csv").read_text().splitlines()[1:]
    identifiers = [line.split(",")[0] for line in outcomes]
    assert len(identifiers) == 80
    texts = [screen]
    for path in [*folder.glob("*.json*"), folder / "report.html", *folder.rglob("*.log")]:
        texts.append(path.read_text(errors="replace"))
    for identifier in identifiers:
        assert not any(identifier in text for text in texts)


def test_every_hospitals_audit_log_is_intact_and_leads_to_the_heads_the_coordinator_kept(
    quick: tuple[Path, str],
) -> None:
    folder, said = quick
    assert said.count("the audit log is intact") == 3
    for site in ("harbour", "north", "valley"):
        heads = read_heads(folder / "coordinator" / "heads" / f"{site}.jsonl")
        findings = verify(folder / "sites" / site / "audit.db", heads=heads)
        assert findings.findings == ()
        assert len(heads) > 10
        answers = [
            line.entry for line in show(folder / "sites" / site / "audit.db") if line.entry.direction is Direction.OUT
        ]
        assert [entry.kind for entry in answers].count(Kind.TRAIN) == 4
        assert {entry.outcome for entry in answers} == {Outcome.OK}
        # The quick form's least, in every cell.
        assert min(entry.smallest_cell for entry in answers if entry.smallest_cell is not None) >= 2


def test_nothing_keeps_running(quick: tuple[Path, str]) -> None:
    assert nothing_left(quick[0])


def test_a_folder_in_use_is_refused_in_one_line(quick: tuple[Path, str]) -> None:
    done = demo(quick[0], "--quick")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--out" in done.stderr


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*COMMAND, "--quick", "--out", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_demo_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with running(folder) as process:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not (folder / "sites" / "valley" / "logs" / "agent.log").exists():
            assert process.poll() is None
            time.sleep(0.2)
        assert len(processes_of(folder)) > 5
        process.send_signal(number)
        code = process.wait(timeout=60)
    assert code == (130 if number is signal.SIGINT else -9)
    assert nothing_left(folder, within_s=40.0)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers(quick: tuple[Path, str], tmp_path: Path) -> None:
    done = demo(tmp_path / "again", "--quick")
    assert done.returncode == 0
    first, second = (read_results(folder / "results.json") for folder in (quick[0], tmp_path / "again"))
    assert comparable(first) == comparable(second)
    models = [(folder / "model.safetensors").read_bytes() for folder in (quick[0], tmp_path / "again")]
    assert models[0] == models[1]


@pytest.mark.slow
def test_the_full_demo_is_honest_and_in_time(tmp_path: Path) -> None:
    started = time.monotonic()
    done = demo(tmp_path / "full")
    assert done.returncode == 0
    assert time.monotonic() - started < 360
    results = json.loads((tmp_path / "full" / "results.json").read_text())
    steps = results["analyses"]
    checks = steps["planted-truth"]["result"]["checks"]
    assert {check["holds"] for check in checks} == {True}, checks
    gap = steps["cox:gap"]["result"]
    assert gap["events"] >= 100
