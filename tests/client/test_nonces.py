"""Requests seen and answers stored: a message counts once, across threads, processes, restarts and full memories."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedage.client.consent.accounts.nonces import Claim, Limits, Nonces, NoncesUnavailable, Replayed, RequestId

DIGEST = "a" * 64
FRAMES = [b"head", b"", b"\x00" * 1000, b"tail"]


def request(nonce: int = 0, run: str = "run", content: str = "c" * 64, digest: str = DIGEST) -> RequestId:
    return RequestId(digest=digest, run=run, nonce=f"{nonce:032x}", content=content)


def test_a_message_is_new_once_and_a_replay_ever_after(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path)
    nonces.once(request())
    with pytest.raises(Replayed) as replayed:
        nonces.once(request())
    assert replayed.value.rule == "replay"
    nonces.close()
    with pytest.raises(Replayed):
        Nonces(tmp_path).once(request())


@pytest.mark.parametrize("other", [{"nonce": 1}, {"run": "other"}, {"digest": "b" * 64}])
def test_another_nonce_run_or_campaign_is_another_message(tmp_path: Path, other: dict[str, object]) -> None:
    nonces = Nonces(tmp_path)
    nonces.once(request())
    nonces.once(request(**other))  # type: ignore[arg-type]


def test_names_that_run_together_are_apart() -> None:
    one = RequestId(digest="a", run="bc", nonce="d", content="x")
    two = RequestId(digest="ab", run="c", nonce="d", content="x")
    assert one.key != two.key
    assert one.run_key != two.run_key


def test_an_answer_is_given_again_byte_for_byte_also_after_a_restart(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path)
    assert nonces.claim(request()) is Claim.NEW
    assert nonces.keep_reply(request(), iter(FRAMES))
    for memory in (nonces, Nonces(tmp_path)):
        assert memory.claim(request()) is Claim.AGAIN
        assert list(memory.reply(request())) == FRAMES
    for path in (tmp_path / "replies").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_used_nonce_with_another_content_is_a_replay(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path)
    nonces.claim(request())
    forged = dataclasses.replace(request(), content="d" * 64)
    assert nonces.claim(forged) is Claim.REPLAYED
    nonces.keep_reply(request(), FRAMES)
    assert nonces.claim(forged) is Claim.REPLAYED


def test_what_was_begun_and_never_answered_may_be_done_anew(tmp_path: Path) -> None:
    Nonces(tmp_path).claim(request())
    again = Nonces(tmp_path)
    assert again.claim(request()) is Claim.UNFINISHED
    assert again.keep_reply(request(), FRAMES)
    assert again.claim(request()) is Claim.AGAIN


def test_a_second_answer_to_one_message_must_not_leave(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path)
    nonces.claim(request())
    nonces.keep_reply(request(), [b"first"])
    with pytest.raises(Replayed):
        nonces.keep_reply(request(), [b"second"])
    assert list(nonces.reply(request())) == [b"first"]
    with pytest.raises(Replayed):
        nonces.keep_reply(request(1), [b"never claimed"])
    assert len(list((tmp_path / "replies").iterdir())) == 1


@pytest.mark.parametrize("damage", ["remove", "change", "cut"])
def test_a_stored_answer_that_is_damaged_is_not_sent(tmp_path: Path, damage: str) -> None:
    nonces = Nonces(tmp_path)
    nonces.claim(request())
    nonces.keep_reply(request(), FRAMES)
    (path,) = (tmp_path / "replies").iterdir()
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else data[:-1] + b"X")
    assert nonces.claim(request()) is Claim.REPLAYED


def test_an_answer_too_large_to_store_makes_the_message_a_replay(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path, limits=Limits(reply_bytes=100))
    nonces.claim(request())
    assert not nonces.keep_reply(request(), (b"x" * 60 for _ in range(3)))
    assert nonces.claim(request()) is Claim.REPLAYED
    assert list((tmp_path / "replies").iterdir()) == []


def test_the_oldest_answers_go_when_all_together_are_too_many(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path, limits=Limits(total_bytes=3 * 108))
    for number in range(5):
        nonces.claim(request(number))
        assert nonces.keep_reply(request(number), [b"x" * 100])
    assert [nonces.claim(request(number)) for number in range(5)] == [Claim.REPLAYED] * 2 + [Claim.AGAIN] * 3
    assert sum(path.stat().st_size for path in (tmp_path / "replies").iterdir()) <= 3 * 108


def test_a_full_memory_closes_the_quietest_run_and_forgets_no_nonce(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path, limits=Limits(nonces=6))
    for number in range(3):
        nonces.once(request(number, run="old"))
    nonces.claim(request(9, run="old"))
    nonces.keep_reply(request(9, run="old"), FRAMES)
    for number in range(2):
        nonces.once(request(number, run="middle"))
    nonces.once(request(0, run="new"))
    assert list((tmp_path / "replies").iterdir()) == []
    for number in range(10):
        assert nonces.claim(request(number, run="old")) is Claim.REPLAYED, "a closed run answers nothing any more"
    assert nonces.claim(request(0, run="middle")) is Claim.UNFINISHED
    with sqlite3.connect(tmp_path / "nonces.db") as connection:
        assert connection.execute("select count(*) from seen").fetchone()[0] <= 6


def test_one_run_cannot_push_its_own_messages_out(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path, limits=Limits(nonces=3))
    for number in range(3):
        nonces.once(request(number))
    with pytest.raises(Replayed, match="no further message"):
        nonces.once(request(3))
    assert nonces.claim(request(0)) is Claim.UNFINISHED


def test_runs_are_bounded_too(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path, limits=Limits(runs=2))
    nonces.once(request(run="a"))
    nonces.once(request(run="b"))
    with pytest.raises(Replayed, match="no further run"):
        nonces.once(request(run="c"))
    nonces.once(request(1, run="a"))


def test_random_traffic_against_a_slow_memory(tmp_path: Path) -> None:
    chance = random.Random(6)
    nonces = Nonces(tmp_path)
    began: dict[str, str] = {}
    answers: dict[str, bytes] = {}
    for step in range(250):
        message = request(chance.randint(0, 25), run=chance.choice(["r", "s"]), content=chance.choice("cccd") * 64)
        expected = Claim.NEW
        if message.key in began:
            expected = Claim.REPLAYED
            if began[message.key] == message.content:
                expected = Claim.AGAIN if message.key in answers else Claim.UNFINISHED
        assert nonces.claim(message) is expected
        began.setdefault(message.key, message.content)
        if expected in (Claim.NEW, Claim.UNFINISHED) and chance.random() < 0.7:
            answers[message.key] = str(step).encode()
            nonces.keep_reply(message, [answers[message.key]])
        elif expected is Claim.AGAIN:
            assert b"".join(nonces.reply(message)) == answers[message.key]
        if chance.random() < 0.02:
            nonces.close()
            nonces = Nonces(tmp_path)


def test_of_two_at_once_one_is_new(tmp_path: Path) -> None:
    Nonces(tmp_path).close()
    start, claims = threading.Barrier(4), []

    def one() -> None:
        nonces = Nonces(tmp_path, lock_wait_s=60)
        start.wait()
        claims.extend(nonces.claim(request(number)) for number in range(10))
        nonces.close()

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert claims.count(Claim.NEW) == 10
    assert claims.count(Claim.UNFINISHED) == 30


def test_kill_9_leaves_every_claim_that_was_acknowledged(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from fedage.client.consent.accounts.nonces import Nonces, RequestId
nonces = Nonces(Path(sys.argv[1]))
for number in range(100_000):
    request = RequestId(digest="a" * 64, run="run", nonce=f"{number:032x}", content="c" * 64)
    nonces.claim(request)
    nonces.keep_reply(request, [b"x" * 5000])
    print(number, flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    last = 0
    for _ in range(12):
        last = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    nonces = Nonces(tmp_path)
    assert all(nonces.claim(request(number)) is Claim.AGAIN for number in range(last + 1))
    assert nonces.claim(request(99_999)) is Claim.NEW


def test_what_a_crash_left_behind_is_swept_once_it_is_old(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path)
    nonces.claim(request())
    nonces.keep_reply(request(), FRAMES)
    for name in ("fresh.new", "stale.new"):
        (tmp_path / "replies" / name).write_bytes(b"x")
    for path in (tmp_path / "replies").iterdir():
        if path.name != "fresh.new":
            os.utime(path, (0, 0))
    again = Nonces(tmp_path)
    assert {path.name for path in (tmp_path / "replies").iterdir()} == {"fresh.new", request().key}
    assert again.claim(request()) is Claim.AGAIN


def test_a_locked_memory_answers_nothing(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path, lock_wait_s=0.1)
    other = sqlite3.connect(tmp_path / "nonces.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(NoncesUnavailable, match="locked"):
        nonces.claim(request())
    other.close()
    assert nonces.claim(request()) is Claim.NEW
