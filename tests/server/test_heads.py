"""What a coordinator keeps of the sites' audit logs, against real logs that were cut, forked, put back and forged."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from fedage.client.audit import AuditLog, Damage, Direction, Entry, Kind, read_heads, verify
from fedage.client.audit.log import sign_head
from fedage.common.errors import FedAgeError
from fedage.common.protocol.heads import SignedHead, key_to_hex
from fedage.server.cli import main as cli
from fedage.server.record.heads import HeadRefused, Heads
from fedage.server.superlink.home import init_home

LINE = Entry(direction=Direction.OUT, kind=Kind.TRAIN)


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return a_log(tmp_path / "site")


@pytest.fixture
def heads(tmp_path: Path, log: AuditLog) -> Heads:
    kept = Heads(tmp_path / "heads")
    kept.pin("a", key_to_hex(log.public_key))
    return kept


def a_log(folder: Path) -> AuditLog:
    folder.mkdir(parents=True, exist_ok=True)
    return AuditLog(folder)


def answer(heads: Heads, log: AuditLog) -> SignedHead:
    """A request and its answer, as a run sees them."""
    after = heads.known("a")
    return heads.keep("a", log.append(LINE), after=after)


def refused(heads: Heads, head: SignedHead | None, *, after: int = 0, site: str = "a") -> str:
    with pytest.raises(HeadRefused) as caught:
        heads.keep(site, head, after=after)
    return caught.value.rule


def test_heads_are_kept_in_order_across_runs_and_a_cut_log_is_found_with_them(
    tmp_path: Path, heads: Heads, log: AuditLog
) -> None:
    sent = [answer(heads, log) for _ in range(3)]
    again = Heads(tmp_path / "heads")  # another run, another process
    sent.append(answer(again, log))
    assert heads.known("a") == 4
    assert heads.last("a") == sent[-1]
    assert read_heads(heads.file("a")) == tuple(heads.all("a")) == tuple(sent)

    log.append(LINE)  # lines that never came here do not matter
    path = tmp_path / "site" / "audit.db"
    assert verify(path, heads=read_heads(heads.file("a"))).intact

    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM audit WHERE sequence > 2")
    (tmp_path / "site" / "audit.head").unlink()
    assert [found.damage for found in verify(path, heads=heads.all("a")).findings] == [Damage.TRUNCATED]


def test_an_old_head_sent_again_is_named(heads: Heads, log: AuditLog) -> None:
    first, second = answer(heads, log), answer(heads, log)
    for replayed in (first, second):
        assert refused(heads, replayed, after=heads.known("a")) == "audit-head-old"
    assert heads.all("a") == [first, second]
    answer(heads, log)


def test_two_runs_at_once_may_hear_of_lines_out_of_order(heads: Heads, log: AuditLog) -> None:
    after = heads.known("a")
    first, second = log.append(LINE), log.append(LINE)
    heads.keep("a", second, after=after)
    heads.keep("a", first, after=after)
    assert heads.known("a") == 2


def test_a_forked_log_is_named_now_and_from_then_on_and_both_histories_are_kept(
    tmp_path: Path, heads: Heads, log: AuditLog
) -> None:
    answer(heads, log)
    log.close()
    shutil.copytree(tmp_path / "site", tmp_path / "copy")
    original, copy = a_log(tmp_path / "site"), a_log(tmp_path / "copy")
    answer(heads, original)
    forked = copy.append(Entry(direction=Direction.OUT, kind=Kind.ANALYSE))
    assert refused(heads, forked, after=1) == "audit-log-forked"
    assert [head.sequence for head in heads.all("a")] == [1, 2, 2]
    for history in (copy, original):
        assert refused(heads, history.append(LINE), after=2) == "audit-log-forked"
    assert refused(Heads(tmp_path / "heads"), original.append(LINE), after=3) == "audit-log-forked"
    found = verify(tmp_path / "site" / "audit.db", heads=heads.all("a")).findings
    assert {(one.damage, one.sequence) for one in found} >= {(Damage.REWRITTEN, 2)}


def test_a_head_by_another_key_or_altered_or_absent_is_named_and_not_kept(heads: Heads, log: AuditLog) -> None:
    genuine = log.append(LINE)
    altered = SignedHead(**{**genuine.to_fields(), "sequence": 9})  # type: ignore[arg-type]
    for forged in (sign_head(genuine, key=Ed25519PrivateKey.generate()), altered):
        assert refused(heads, forged) == "audit-head-forged"
    assert refused(heads, None) == "audit-head-missing"
    assert refused(heads, genuine, site="never-seen") == "audit-head-missing"
    assert heads.all("a") == []
    assert heads.known("a") == 0


def test_a_changed_key_is_refused_until_the_coordinator_begins_anew(
    tmp_path: Path, heads: Heads, log: AuditLog
) -> None:
    old = [answer(heads, log), answer(heads, log)]
    other = a_log(tmp_path / "reinstalled")
    with pytest.raises(HeadRefused, match="fedage coordinator heads a --begin-anew") as caught:
        heads.pin("a", key_to_hex(other.public_key))
    assert caught.value.rule == "audit-key-changed"
    with pytest.raises(HeadRefused, match="same FedAge release"):
        heads.pin("b", None)
    heads.pin("a", key_to_hex(log.public_key))

    aside = heads.begin_anew("a")
    assert aside is not None
    assert read_heads(aside) == tuple(old)
    heads.pin("a", key_to_hex(other.public_key))
    heads.keep("a", other.append(LINE), after=heads.known("a"))
    assert heads.known("a") == 1
    assert heads.begin_anew("a") != aside


def test_a_line_torn_by_a_crash_gives_way_to_the_next(tmp_path: Path, heads: Heads, log: AuditLog) -> None:
    first = answer(heads, log)
    with heads.file("a").open("ab") as stream:
        stream.write(b'{"hash": "12')
    second = answer(Heads(tmp_path / "heads"), log)
    assert read_heads(heads.file("a")) == (first, second)


def _keep_many(folder: Path, found: list[SignedHead]) -> None:
    heads = Heads(folder)
    for head in found:
        heads.keep("a", head, after=0)


def test_two_processes_write_whole_lines(tmp_path: Path, heads: Heads, log: AuditLog) -> None:
    sent = [log.append(LINE) for _ in range(40)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_keep_many, args=(tmp_path / "heads", sent[n::2])) for n in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert sorted(head.sequence for head in read_heads(heads.file("a"))) == list(range(1, 41))


def test_a_folder_that_cannot_be_written_is_the_coordinators_own_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FedAgeError, match="cannot be read or written"):
        Heads(tmp_path / "file" / "heads").known("a")


def test_the_command_exports_what_a_site_verifies_with(tmp_path: Path, log: AuditLog) -> None:
    home = init_home(tmp_path / "home", hosts=("localhost",))
    home.note_admission(5, "a")
    heads = Heads(home.heads)
    said = run(home.root, "a")
    assert "nothing has come" in said
    heads.pin("a", key_to_hex(log.public_key))
    sent = [answer(heads, log), answer(heads, log)]
    assert "2 heads, the last of line 2" in run(home.root, "a")
    assert "2 heads" in run(home.root, "a", "--out", str(tmp_path / "out.jsonl"))
    assert read_heads(tmp_path / "out.jsonl") == tuple(sent)
    assert "old heads are in" in run(home.root, "a", "--begin-anew")
    assert "nothing has come" in run(home.root, "a")
    wrong = CliRunner().invoke(cli.coordinator, ["heads", "../a", "--home", str(home.root)])
    assert isinstance(wrong.exception, FedAgeError)
    assert "admitted are a" in str(wrong.exception)


def run(home: Path, *arguments: str) -> str:
    done = CliRunner().invoke(cli.coordinator, ["heads", *arguments, "--home", str(home)])
    assert done.exit_code == 0, done.output
    return done.output
