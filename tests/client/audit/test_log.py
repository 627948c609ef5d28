"""The audit log as it is written: chained, signed, durable, and unavailable rather than wrong."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedage.client.audit import AuditLog, AuditUnavailable, Direction, Entry, Kind, Outcome, show, verify
from fedage.client.audit.log import read_heads, read_public_key
from fedage.common.protocol.heads import SignedHead, fingerprint

DIGEST = hashlib.sha256(b"a campaign").hexdigest()

WRITER = """
import sys
from pathlib import Path
from fedage.client.audit import AuditLog, Direction, Entry, Kind
log = AuditLog(Path(sys.argv[1]), lock_wait_s=60)
for round in range(int(sys.argv[2])):
    head = log.append(Entry(direction=Direction.OUT, kind=Kind.TRAIN, round=round, size_bytes=len(sys.argv[3])))
    print(head.sequence, flush=True)
"""


def entry(round_number: int = 0, **changes: object) -> Entry:
    values: dict[str, object] = {"direction": Direction.OUT, "kind": Kind.TRAIN, "round": round_number, **changes}
    return Entry(**values)  # type: ignore[arg-type]


def start_writer(home: Path, lines: int, name: str = "a") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home), str(lines), name], stdout=subprocess.PIPE, text=True
    )


def test_a_line_is_on_disk_and_its_hash_is_the_documented_one(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    first = log.append(entry(1, digest=DIGEST, campaign="chest-ages", patients=120, smallest_cell=12))
    second = log.append(entry(2))
    with sqlite3.connect(tmp_path / "audit.db") as other:
        rows = other.execute("select sequence, body, previous, hash from audit order by sequence").fetchall()
    start = hashlib.sha256(log.public_key.public_bytes_raw()).hexdigest()
    assert rows[0][2] == start
    assert rows[1][2] == rows[0][3]
    for _, body, previous, line_hash in rows:
        assert hashlib.sha256(f"fedage audit 1\n{previous}\n{body}".encode()).hexdigest() == line_hash
    assert [first.hash, second.hash] == [rows[0][3], rows[1][3]]
    assert json.loads(rows[0][1])["patients"] == 120
    assert json.dumps(json.loads(rows[0][1]), sort_keys=True, separators=(",", ":")) == rows[0][1]


def test_the_head_is_signed_with_the_exported_key_and_nobody_else_may_read_the_private_one(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    head = log.append(entry())
    public = read_public_key(tmp_path / "audit.pub")
    assert head.is_signed_by(public)
    assert SignedHead.from_fields(head.to_fields()) == head == log.signed_head()
    assert read_heads(tmp_path / "audit.head") == (head,)
    forged = SignedHead(**{**head.to_fields(), "sequence": 2})  # type: ignore[arg-type]
    assert not forged.is_signed_by(public)
    for name in ("audit.key", "audit.db", "audit.db-wal"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name


def test_a_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    assert log.signed_head().sequence == 0
    log.append(entry(1))
    log.close()
    again = AuditLog(tmp_path)
    assert again.append(entry(2)).sequence == 2
    assert fingerprint(again.public_key) == fingerprint(log.public_key)
    assert verify(tmp_path / "audit.db").intact


def test_a_clock_that_jumps_back_is_seen_and_harmless(tmp_path: Path) -> None:
    noon = datetime(2025, 1, 31, 12, tzinfo=UTC)
    times = iter([noon, noon - timedelta(days=400), noon + timedelta(seconds=1)])
    log = AuditLog(tmp_path, now=lambda: next(times))
    for number in range(3):
        log.append(entry(number))
    findings = verify(log.path)
    assert findings.intact
    assert findings.clock_jumps == (2,)
    assert [line.entry.round for line in show(log.path)] == [0, 1, 2]


def test_two_processes_append_to_one_chain(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path, 40, name) for name in ("a", "bb")]
    for writer in writers:
        assert writer.communicate(timeout=60)[0].count("\n") == 40
        assert writer.returncode == 0
    findings = verify(tmp_path / "audit.db")
    assert findings.intact
    assert findings.lines == 80
    assert {line.entry.size_bytes for line in show(tmp_path / "audit.db")} == {1, 2}


def test_kill_9_in_the_middle_of_appends_loses_no_line_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged = 0
    for wanted in (5, 23):
        writer = start_writer(tmp_path, 100_000)
        assert writer.stdout is not None
        for _ in range(wanted):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = [line for line in writer.stdout.read().split("\n") if line.isdigit()]
        acknowledged = max([acknowledged, *map(int, rest[:-1])])
        writer.wait()
        writer.stdout.close()
        findings = verify(tmp_path / "audit.db")
        assert findings.intact, findings
        assert findings.lines >= acknowledged
    assert AuditLog(tmp_path).append(entry()).sequence == verify(tmp_path / "audit.db").lines


def test_a_locked_log_is_unavailable_and_nothing_is_written(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, lock_wait_s=0.1)
    head = log.append(entry())
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(AuditUnavailable, match="locked by another process"):
        log.append(entry(1))
    other.execute("ROLLBACK")
    other.close()
    assert log.signed_head() == head
    assert log.append(entry(2)).sequence == 2


def test_a_full_disk_is_unavailable_and_the_log_stays_whole(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.append(entry())

    def fill() -> None:
        for number in range(200):
            log.append(entry(number))

    with file_size_limit(150_000), pytest.raises(AuditUnavailable, match="disk"):
        fill()
    written = log.signed_head().sequence
    assert written > 1
    assert log.append(entry()).sequence == written + 1
    assert verify(log.path).intact


def test_a_read_only_folder_is_unavailable() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        home = Path(folder)
        home.chmod(0o555)
        with as_ordinary_user(), pytest.raises(AuditUnavailable, match=r"audit\.key"):
            AuditLog(home)
        home.chmod(0o755)


def test_a_folder_made_read_only_later_can_still_be_verified_by_an_auditor() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        home = Path(folder)
        log = AuditLog(home)
        log.append(entry())
        log.close()
        home.chmod(0o555)
        for file in home.iterdir():
            file.chmod(0o444)
        with as_ordinary_user():
            assert verify(home / "audit.db").lines == 1
            assert verify(home / "audit.db").intact
            with pytest.raises(AuditUnavailable):
                AuditLog(home)
        home.chmod(0o755)


@pytest.mark.parametrize("content", [b"not a database at all" * 200, b""])
def test_a_log_overwritten_is_unavailable(tmp_path: Path, content: bytes) -> None:
    log = AuditLog(tmp_path)
    log.append(entry())
    log.close()
    (tmp_path / "audit.db").write_bytes(content)
    with pytest.raises(AuditUnavailable):
        AuditLog(tmp_path)
    assert not verify(tmp_path / "audit.db").intact


def test_a_log_cut_or_put_back_is_not_appended_to(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    for number in range(4):
        log.append(entry(number))
    with sqlite3.connect(log.path) as other:
        other.execute("delete from audit where sequence > 2")
    with pytest.raises(AuditUnavailable, match="ends at line 2"):
        log.append(entry())
    with pytest.raises(AuditUnavailable, match="does not contain line 4"):
        AuditLog(tmp_path)


def test_a_log_without_its_key_is_not_appended_to(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.append(entry())
    log.close()
    (tmp_path / "audit.key").unlink()
    with pytest.raises(AuditUnavailable, match="not signed with this site's key"):
        AuditLog(tmp_path)


def test_a_refused_message_is_a_line_too(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.append(entry(direction=Direction.IN, outcome=Outcome.REFUSED, rule="not-approved"))
    assert show(log.path)[0].entry.rule == "not-approved"


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """No file may grow beyond this: what a full disk is to a writer, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """The super-user may write anywhere; anybody else may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
