"""What breaks around a message at a real home: disks, clocks, locks, files, and the agent itself, killed at its worst.

Each ends in a named refusal or a clean recovery, and the audit log verifies afterwards.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedage.client.agent.service import Agent
from fedage.client.audit import Direction, Outcome, verify
from fedage.client.audit.log import LOG_FILE
from fedage.client.cohort.samples import cache as samples
from fedage.client.cohort.store import store
from fedage.client.compute import predictions
from fedage.client.consent.accounts import account_file
from fedage.client.consent.accounts.nonces import Nonces
from fedage.client.inbox import handlers
from fedage.client.site.cancel import Cancellation
from fedage.common.analyses.plan import registered
from fedage.common.protocol.messages import ANALYSE, EVALUATE, TRAIN, Request, join_iterates
from fedage.common.statistics.statistic import Statistic
from tests.client.hospital import POLICY, TEST, Hospital, Template, refused
from tests.client.test_message_path import locked, no_file_beyond

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hospital(template: Template, tmp_path: Path) -> Hospital:
    return template.copy(tmp_path, lock_wait_s=0.2)


def failure(hospital: Hospital, kind: str, **changes: Any) -> str:
    """What the agent tells of a message that fails: a type, nothing else."""
    agent = Agent(handlers.app, site_home=hospital.home)
    reply = agent.answer(hospital.message(hospital.request(kind, **changes)), Cancellation())
    assert reply.has_error()
    assert reply.error.reason.isidentifier()
    return reply.error.reason


def on_a_full_disk(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, room_bytes: int) -> None:
    """Let the real function find the disk full."""
    real: Callable[..., Any] = getattr(owner, name)

    def full(*arguments: Any, **options: Any) -> Any:
        with no_file_beyond(room_bytes):
            return real(*arguments, **options)

    monkeypatch.setattr(owner, name, full)


def test_a_disk_that_is_full_when_predictions_are_kept(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hospital.ask().status == "ok"
    with monkeypatch.context() as patch:
        on_a_full_disk(patch, predictions, "keep", room_bytes=100)
        assert failure(hospital, EVALUATE) == "StoreUnavailable"
    folder = hospital.site.state_dir(hospital.campaign.digest)
    assert [path.name for path in folder.iterdir() if "predictions" in path.name or "partial" in path.name] == []
    assert hospital.last().entry.outcome is Outcome.FAILED
    hospital.must_be_intact()
    assert hospital.ask(EVALUATE).status == "ok"


def test_a_disk_that_is_full_when_an_answer_is_stored(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    request = hospital.request(TRAIN, round=1)
    with monkeypatch.context() as patch:
        on_a_full_disk(patch, Nonces, "keep_reply", room_bytes=1_000)
        agent = Agent(handlers.app, site_home=hospital.home)
        reply = agent.answer(hospital.message(request), Cancellation())
    assert (reply.has_error(), reply.error.reason) == (True, "NoncesUnavailable")
    hospital.must_be_intact()  # says that an answer was to leave, and that it failed
    assert [line.entry.outcome for line in hospital.lines()][-2:] == [Outcome.OK, Outcome.FAILED]
    assert hospital.send(request)[0].status == "ok"  # the coordinator asks again
    hospital.must_be_intact()


def test_a_disk_that_is_full_when_samples_are_made(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital = template.copy(tmp_path)
    cache = hospital.home / "cache"
    for file in sorted(cache.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    with monkeypatch.context() as patch:
        on_a_full_disk(patch, samples.SampleCache, "build", room_bytes=20_000)
        assert failure(hospital, TRAIN, round=1) in {"OSError", "StoreUnavailable"}
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []  # nothing half-made
    hospital.must_be_intact()
    assert hospital.ask(TRAIN, round=1).status == "ok"


KILLED = """
import json, os, signal, sys
from pathlib import Path
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fedage.client.consent.accounts.nonces import Nonces
from fedage.common.protocol.messages import Request
from tests.client.hospital import Hospital

home, key, request, after = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4] == "after"
keep_reply = Nonces.keep_reply

def die(self, *arguments):
    if after:
        keep_reply(self, *arguments)
    os.kill(os.getpid(), signal.SIGKILL)

Nonces.keep_reply = die
Hospital(home, load_pem_private_key(key.read_bytes(), password=None)).send(Request(**request))
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_kill_9_between_the_line_and_the_stored_answer_releases_nothing_twice(
    hospital: Hospital, template: Template, moment: str
) -> None:
    """The log then tells of an answer that never left, rather too much than too little; asked again it leaves."""
    request: Request = hospital.request(TRAIN, round=1)
    key = next(path for path in (template.folder / "coordinator").glob("*.key") if "coordinator" in path.name)
    words = [str(hospital.home), str(key), json.dumps(request.to_fields()), moment]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *words], env=environment, cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-500:]
    hospital.start()
    lost = hospital.last().entry
    assert (lost.direction, lost.outcome, lost.nonce) == (Direction.OUT, Outcome.OK, request.nonce)
    reply, _ = hospital.send(request)
    assert reply.status == "ok"
    said = hospital.last().entry
    assert said.outcome is (Outcome.OK if moment == "before" else Outcome.AGAIN)
    assert said.payload_sha256 == lost.payload_sha256 is not None  # not another answer
    hospital.must_be_intact(reply)
    assert hospital.send(request)[0] == reply


def test_a_locked_account_of_thresholds_withholds_what_it_would_account_for(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hospital.ask(EVALUATE).status == "ok"
    asked = join_iterates({TEST: {"mean_age": np.asarray(60.0)}})
    first, _ = hospital.send(hospital.request(ANALYSE), asked)
    assert first.status == "ok"
    file = hospital.home / account_file.ACCOUNTS_FILE
    assert file.is_file()
    real = account_file.DurableFile
    monkeypatch.setattr(account_file, "DurableFile", lambda path, **options: real(path, lock_wait_s=0.1, **options))
    with locked(file):
        reply, sums = hospital.send(hospital.request(ANALYSE), asked)
    assert reply.status == "ok"
    held = reply.info["withheld"].get(TEST)
    blank = False
    if TEST in sums:  # what the threshold makes of the sums is left out
        layout = registered(hospital.campaign)[TEST].layout({"mean_age": np.asarray(60.0)})
        found = Statistic(layout=layout, vector=sums[TEST], smallest=None)
        blank = not np.any(found["from_mean_n"]) and not np.any(found["from_mean"])
    assert blank or (held is not None and held["rule"] == "store-unavailable")
    hospital.must_be_intact(first, reply)


@pytest.mark.parametrize("file", ["snapshots.db", "cohort.db"])
def test_a_file_that_is_written_by_an_approval_or_an_indexing_is_read_meanwhile(
    hospital: Hospital, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_LOCK_WAIT_S", 0.2)
    with locked(hospital.home / file):
        assert hospital.ask(TRAIN, round=1).status == "ok"
    hospital.must_be_intact()


def test_a_clock_that_jumps_is_seen_and_breaks_nothing(template: Template, tmp_path: Path) -> None:
    noon = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday
    jumps = [timedelta(0), timedelta(days=3650), timedelta(days=-3650), timedelta(minutes=1)]
    now = [noon]
    hospital = template.copy(tmp_path, now=lambda: now[0])
    replies = []
    for number, jump in enumerate(jumps):
        now[0] = noon + jump
        request = hospital.request(EVALUATE)
        replies += [hospital.send(request)[0], hospital.send(request)[0]]
        assert [reply.status for reply in replies[-2:]] == ["ok", "ok"]
        assert replies[-1] == replies[-2], number
    hospital.must_be_intact(*replies)
    findings = verify(hospital.home / LOG_FILE)
    assert len(findings.clock_jumps) == 1  # set back once; in front of it the log shows the years that were skipped
    times = [line.time_utc for line in hospital.lines()]
    assert times[findings.clock_jumps[0] - 2][:4] == "2036"
    assert times[findings.clock_jumps[0] - 1][:4] == "2016"

    hospital.policy('[hours]\ntime_zone = "UTC"\nmonday = ["11:00-13:00"]\n' + POLICY)
    assert hospital.ask(ANALYSE).status == "ok"
    now[0] = noon + timedelta(hours=5)
    assert refused(hospital.ask(ANALYSE), hospital) == "hours"
    now[0] = noon
    assert hospital.ask(ANALYSE).status == "ok"
    now[0] = noon - timedelta(days=10)
    hospital.start()  # a new process, and the log is longer than its time says
    assert refused(hospital.ask(ANALYSE), hospital) == "hours"
    hospital.must_be_intact(*replies)


def broken_policies(file: Path) -> Iterator[str]:
    file.write_text("[requests\n")
    yield "no TOML"
    file.write_bytes(b"\xff\xfe[\x00")
    yield "no UTF-8"
    file.write_text("[disclosure]\nminimum_count = -1\n")
    yield "a mistake"
    file.unlink()
    yield "gone"
    file.mkdir()
    yield "a folder"
    file.rmdir()
    file.symlink_to(file.with_name("nowhere"))
    yield "a link to nothing"
    file.unlink()


def test_a_policy_that_breaks_while_the_agent_runs_lets_nothing_out_until_it_is_mended(hospital: Hospital) -> None:
    assert hospital.ask().status == "ok"
    file = hospital.home / "policy.toml"
    for what in broken_policies(file):
        for kind in (TRAIN, ANALYSE):
            reply = hospital.ask(kind, round=1)
            assert refused(reply, hospital) == "policy-unreadable", what
            assert str(hospital.home) not in reply.reason
    file.write_text(POLICY)
    assert hospital.ask(TRAIN, round=1).status == "ok"


def test_a_store_that_is_damaged_fails_by_name(hospital: Hospital) -> None:
    assert hospital.ask().status == "ok"
    before = len(hospital.lines())
    with sqlite3.connect(hospital.home / "snapshots.db") as connection:
        connection.execute("DROP TABLE patients_values")
    hospital.site.rules.snapshots.close()
    assert failure(hospital, TRAIN, round=1) == "SnapshotsUnavailable"
    assert len(hospital.lines()) == before + 2
    hospital.must_be_intact()
