"""The log tampered with, as somebody with sqlite3 and without (or with) the site's key would."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedage.client.audit import AuditLog, Damage, Direction, Entry, Kind, SignedHead, VerificationReport, verify
from fedage.client.audit.log import genesis, line_hash, sign_head
from fedage.common.protocol.heads import Head

LINES = 12


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SignedHead]]:
    home = tmp_path_factory.mktemp("site")
    log = AuditLog(home)
    heads = [log.append(Entry(direction=Direction.OUT, kind=Kind.ANALYSE, round=n, patients=40)) for n in range(LINES)]
    log.close()
    return home, heads


@pytest.fixture
def heads(tmp_path: Path, written: tuple[Path, list[SignedHead]]) -> list[SignedHead]:
    shutil.copytree(written[0], tmp_path, dirs_exist_ok=True)
    return written[1]


def tamper(home: Path, *statements: str) -> None:
    with sqlite3.connect(home / "audit.db") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def rechain(home: Path) -> None:
    """Make every hash right again, as one can without the key."""
    with sqlite3.connect(home / "audit.db") as connection:
        rows = connection.execute("select sequence, body, previous from audit order by sequence").fetchall()
        previous = rows[0][2]
        for sequence, body, _ in rows:
            connection.execute(
                "update audit set previous = ?, hash = ? where sequence = ?",
                (previous, line_hash(previous, body), sequence),
            )
            previous = line_hash(previous, body)
    connection.close()


def found(findings: VerificationReport) -> set[tuple[Damage, int | None]]:
    return {(finding.damage, finding.sequence) for finding in findings.findings}


def test_an_untouched_log_is_intact_against_every_head_ever_sent(tmp_path: Path, heads: list[SignedHead]) -> None:
    findings = verify(tmp_path / "audit.db", heads=heads)
    assert findings.intact
    assert (findings.lines, findings.heads) == (LINES, LINES + 1)


@pytest.mark.parametrize(
    "change",
    [
        """update audit set body = replace(body, '"patients":40', '"patients":41') where sequence = 5""",
        "update audit set body = 'no json' where sequence = 5",
        "update audit set body = x'ff00fe' where sequence = 5",
        "update audit set body = cast(x'22ff22' as text) where sequence = 5",
        "update audit set body = '[1]' where sequence = 5",
        """update audit set body = '{"sequence": 1e999, "time_utc": ""}' where sequence = 5""",
        "update audit set hash = 'ab' where sequence = 5",
        "update audit set signature = x'00' where sequence = 5",
        "update audit set signature = 'text' where sequence = 5",
        "update audit set previous = hash where sequence = 5",
    ],
)
def test_an_edited_line_is_named(tmp_path: Path, heads: list[SignedHead], change: str) -> None:
    tamper(tmp_path, change)
    assert (Damage.EDITED, 5) in found(verify(tmp_path / "audit.db"))


def test_an_edit_hidden_by_chaining_anew_still_shows_without_the_key(tmp_path: Path, heads: list[SignedHead]) -> None:
    tamper(tmp_path, """update audit set body = replace(body, '"patients":40', '"patients":41') where sequence = 5""")
    rechain(tmp_path)
    assert {number for damage, number in found(verify(tmp_path / "audit.db"))} >= set(range(5, LINES + 1))


def test_removed_lines_are_named_as_a_run(tmp_path: Path, heads: list[SignedHead]) -> None:
    tamper(tmp_path, "delete from audit where sequence in (4, 5, 9)")
    assert found(verify(tmp_path / "audit.db")) == {(Damage.REMOVED, 4), (Damage.REMOVED, 9)}


def test_a_removed_line_shows_though_the_rest_moved_up(tmp_path: Path, heads: list[SignedHead]) -> None:
    tamper(
        tmp_path,
        "delete from audit where sequence = 4",
        "update audit set sequence = -sequence where sequence > 4",
        "update audit set sequence = -sequence - 1 where sequence < 0",
    )
    assert found(verify(tmp_path / "audit.db")) == {(Damage.REMOVED, 4), (Damage.REORDERED, 4)}


def test_swapped_lines_are_named(tmp_path: Path, heads: list[SignedHead]) -> None:
    tamper(
        tmp_path,
        "update audit set sequence = 0 where sequence = 6",
        "update audit set sequence = 6 where sequence = 7",
        "update audit set sequence = 7 where sequence = 0",
    )
    assert found(verify(tmp_path / "audit.db")) == {(Damage.REORDERED, 6), (Damage.REORDERED, 7)}


def test_swapped_bodies_are_named(tmp_path: Path, heads: list[SignedHead]) -> None:
    tamper(
        tmp_path,
        "create table kept as select * from audit where sequence in (6, 7)",
        "update audit set body = (select body from kept where kept.sequence = 13 - audit.sequence) "
        "where sequence in (6, 7)",
        "drop table kept",
    )
    assert {(damage, number) for damage, number in found(verify(tmp_path / "audit.db"))} == {
        (Damage.EDITED, 6),
        (Damage.EDITED, 7),
    }


@pytest.mark.parametrize("forged", [LINES + 1, 10**15])
def test_a_line_added_at_the_end_is_named(tmp_path: Path, heads: list[SignedHead], forged: int) -> None:
    tamper(tmp_path, f"insert into audit select {forged}, body, hash, hash, signature from audit where sequence = 12")
    assert found(verify(tmp_path / "audit.db")) == {(Damage.INSERTED, forged)}


def test_a_copy_of_a_genuine_line_is_named(tmp_path: Path, heads: list[SignedHead]) -> None:
    tamper(tmp_path, "insert into audit select 13, body, previous, hash, signature from audit where sequence = 5")
    assert found(verify(tmp_path / "audit.db")) == {(Damage.INSERTED, 13)}


def test_a_cut_shows_by_the_head_file_and_by_a_head_kept_elsewhere(tmp_path: Path, heads: list[SignedHead]) -> None:
    tamper(tmp_path, "delete from audit where sequence > 9")
    assert found(verify(tmp_path / "audit.db")) == {(Damage.TRUNCATED, 10)}
    (tmp_path / "audit.head").unlink()
    assert verify(tmp_path / "audit.db").intact  # nothing is left at the site that could tell
    assert found(verify(tmp_path / "audit.db", heads=heads[:11])) == {(Damage.TRUNCATED, 10)}
    tamper(tmp_path, "delete from audit")
    assert found(verify(tmp_path / "audit.db", heads=heads)) == {(Damage.TRUNCATED, 1)}


def test_a_log_continued_from_an_older_copy_disagrees_with_heads_sent_before(tmp_path: Path) -> None:
    home, copy = tmp_path / "site", tmp_path / "backup"
    home.mkdir()
    log = AuditLog(home)
    log.append(Entry(direction=Direction.OUT, kind=Kind.TRAIN))
    log.close()
    shutil.copytree(home, copy)
    log = AuditLog(home)
    sent = log.append(Entry(direction=Direction.OUT, kind=Kind.TRAIN, round=1))
    log.close()
    old = AuditLog(copy)
    old.append(Entry(direction=Direction.OUT, kind=Kind.TRAIN, round=7))
    old.append(Entry(direction=Direction.OUT, kind=Kind.TRAIN, round=8))
    assert verify(copy / "audit.db").intact
    assert found(verify(copy / "audit.db", heads=[sent])) == {(Damage.REWRITTEN, 2)}


def test_a_history_rewritten_with_the_key_shows_by_a_head_kept_elsewhere(
    tmp_path: Path, heads: list[SignedHead]
) -> None:
    log = AuditLog(tmp_path)
    key, previous = log._key, genesis(log.public_key)
    log.close()
    with sqlite3.connect(tmp_path / "audit.db") as connection:
        for sequence, text in connection.execute("select sequence, body from audit order by sequence").fetchall():
            body = text.replace('"patients":40', '"patients":12')
            time_utc, line = json.loads(body)["time_utc"], line_hash(previous, body)
            head = sign_head(Head(sequence=sequence, hash=line, time_utc=time_utc), key=key)
            connection.execute(
                "update audit set body = ?, previous = ?, hash = ?, signature = ? where sequence = ?",
                (body, previous, line, bytes.fromhex(head.signature), sequence),
            )
            previous = line
    connection.close()
    (tmp_path / "audit.head").unlink()
    assert verify(tmp_path / "audit.db").intact
    assert found(verify(tmp_path / "audit.db", heads=[heads[7]])) == {(Damage.REWRITTEN, 8)}


def test_heads_of_another_key_and_a_spoilt_head_file_are_named(tmp_path: Path, heads: list[SignedHead]) -> None:
    foreign = sign_head(Head(sequence=40, hash="00" * 32, time_utc="2025"), key=Ed25519PrivateKey.generate())
    assert found(verify(tmp_path / "audit.db", heads=[foreign])) == {(Damage.HEAD_FORGED, 40)}
    (tmp_path / "audit.head").write_bytes(b"\xff\xfe")
    assert found(verify(tmp_path / "audit.db")) == {(Damage.HEAD_FORGED, None)}


def test_the_log_of_another_site_is_not_this_sites(tmp_path: Path, heads: list[SignedHead]) -> None:
    findings = verify(tmp_path / "audit.db", public_key=Ed25519PrivateKey.generate().public_key())
    assert len(findings.findings) >= LINES


@pytest.mark.parametrize("name", ["missing.db", "audit.pub"])
def test_a_file_that_is_no_log_is_unreadable(tmp_path: Path, heads: list[SignedHead], name: str) -> None:
    assert found(verify(tmp_path / name)) == {(Damage.UNREADABLE, None)}


def stored(home: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(home / "audit.db") as connection:
        rows = connection.execute("select * from audit order by sequence").fetchall()
    connection.close()
    return rows


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_done_to_the_lines_shows(tmp_path: Path, heads: list[SignedHead], seed: int) -> None:
    """Random edits, removals, swaps, insertions and cuts, alone and together; hashes made right again half the time."""
    chance = random.Random(seed)
    before = stored(tmp_path)
    for _ in range(chance.randint(1, 3)):
        numbers = [row[0] for row in stored(tmp_path)]
        place = chance.randrange(len(numbers)) if numbers else 0
        one = numbers[place] if numbers else 1
        match chance.choice(("edit", "remove", "swap", "insert", "cut")):
            case "edit":
                tamper(tmp_path, f"update audit set body = replace(body, 'analyse', 'describe') where sequence = {one}")
            case "remove":
                tamper(tmp_path, f"delete from audit where sequence = {one}")
            case "insert":
                tamper(
                    tmp_path,
                    f"update audit set sequence = -sequence where sequence > {one}",
                    "update audit set sequence = -sequence + 1 where sequence < 0",
                    f"insert into audit select {one} + 1, body, hash, hash, signature from audit "
                    f"where sequence = {one}",
                )
            case "swap" if place + 1 < len(numbers):
                tamper(
                    tmp_path,
                    f"update audit set sequence = -1 where sequence = {one}",
                    f"update audit set sequence = {one} where sequence = {numbers[place + 1]}",
                    f"update audit set sequence = {numbers[place + 1]} where sequence = -1",
                )
            case _:
                tamper(tmp_path, f"delete from audit where sequence >= {one}")
    if chance.random() < 0.5 and stored(tmp_path):
        rechain(tmp_path)
    assert verify(tmp_path / "audit.db").intact == (stored(tmp_path) == before)


def test_a_log_that_is_being_written_is_no_damaged_log(tmp_path: Path) -> None:
    log, stop, written = AuditLog(tmp_path), threading.Event(), []

    def write() -> None:
        # Paced: without a pause the log grows while it is verified, and each verification takes longer than the last.
        while not stop.wait(0.002):
            written.append(log.append(Entry(direction=Direction.IN, kind=Kind.TRAIN)))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while len(written) < 10:
            time.sleep(0.01)
        results = [verify(tmp_path / "audit.db", heads=written[:5]) for _ in range(25)]
    finally:
        stop.set()
        thread.join()
    assert [result.findings for result in results] == [()] * 25
    assert results[-1].lines > results[0].lines
