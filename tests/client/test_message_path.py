"""Messages that are not what they should be, and files that fail, at a real home: each a named refusal or an error."""

from __future__ import annotations

import hashlib
import resource
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, RecordDict

from fedage.client.agent.service import Agent
from fedage.client.audit import Direction, Kind, Outcome, verify
from fedage.client.audit.log import LOG_FILE
from fedage.client.consent.accounts.nonces import RequestId
from fedage.client.inbox import handlers
from fedage.client.site.cancel import Cancellation
from fedage.client.site.durable import StoreUnavailable
from fedage.common.protocol.messages import (
    ANALYSE,
    DESCRIBE,
    EVALUATE,
    TRAIN,
    join_iterates,
    join_model,
    pack,
)
from tests.client.hospital import CAMPAIGN, POLICY, TEST, Hospital, Template, refused


@pytest.fixture
def hospital(template: Template, tmp_path: Path) -> Hospital:
    return template.copy(tmp_path, lock_wait_s=0.2)


def forgotten(hospital: Hospital) -> bool:
    """Whether the memory of requests and the offers are as empty as before any message."""
    with sqlite3.connect(hospital.home / "nonces.db") as connection:
        seen = connection.execute("SELECT count(*) FROM seen").fetchone()[0]
    offered = hospital.home / "offered"
    return seen == 0 and not (offered.is_dir() and any(offered.iterdir()))


def test_what_another_coordinator_signed_leaves_a_line_and_nothing_else(hospital: Hospital) -> None:
    stranger = Ed25519PrivateKey.generate()
    for kind in (DESCRIBE, TRAIN, EVALUATE, ANALYSE):
        assert refused(hospital.send(hospital.request(kind), key=stranger)[0], hospital) == "signature"
    assert forgotten(hospital)
    assert {line.entry.who for line in hospital.lines() if line.entry.direction is not Direction.SITE} == {None}


def test_what_a_relay_changed_is_refused(hospital: Hospital) -> None:
    message = hospital.message(hospital.request(TRAIN, round=1))
    record = message.content.config_records["request"]
    record["round"] = 2
    assert refused(hospital.deliver(message)[0], hospital) == "signature"
    swapped = hospital.message(hospital.request(ANALYSE), as_kind=EVALUATE)
    assert refused(hospital.deliver(swapped)[0], hospital) == "malformed-request"
    unknown = hospital.message(hospital.request(ANALYSE), as_kind="query.images")
    assert refused(hospital.deliver(unknown)[0], hospital) == "malformed-request"
    assert forgotten(hospital)


@pytest.mark.parametrize(
    "content", [RecordDict(), RecordDict({"request": ConfigRecord({"signature": b"", "kind": "train"})})]
)
def test_what_cannot_be_read_is_refused(hospital: Hospital, content: RecordDict) -> None:
    message = hospital.message(hospital.request())
    message.content = content
    assert refused(hospital.deliver(message)[0], hospital) == "malformed-request"
    assert hospital.last().entry.kind is Kind.UNREADABLE
    assert forgotten(hospital)


def test_a_forged_digest_is_refused(hospital: Hospital) -> None:
    assert refused(hospital.ask(digest="ab" * 32), hospital) == "digest"
    other = CAMPAIGN.replace("minimum_count = 2", "minimum_count = 1")
    assert refused(hospital.ask(campaign=other), hospital) == "digest"
    assert refused(hospital.ask(TRAIN, digest="ab" * 32), hospital) == "not-approved"
    assert hospital.site.rules.approvals.listed() == [(hospital.campaign.digest, "approved")]


def test_an_approved_file_that_was_edited_is_not_approved(hospital: Hospital) -> None:
    file = hospital.home / "approved" / f"{hospital.campaign.digest}.toml"
    file.write_text(file.read_text().replace("minimum_count = 2", "minimum_count = 1"))
    assert refused(hospital.ask(EVALUATE), hospital) == "not-approved"


def test_a_repeated_message_is_answered_by_the_same_bytes_and_computed_once(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = hospital.request(TRAIN, round=1)
    first, update = hospital.send(request)
    assert first.status == "ok"

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr(handlers, "train_locally", never)
    again, same = hospital.send(request)
    assert again == first
    assert {name: array.tobytes() for name, array in same.items()} == {n: a.tobytes() for n, a in update.items()}
    line = hospital.last().entry
    assert (line.direction, line.outcome) == (Direction.OUT, Outcome.AGAIN)
    hospital.start()  # another agent process remembers too
    assert hospital.send(request)[0] == first
    hospital.must_be_intact(first)


def test_a_nonce_serves_one_content_only(hospital: Hospital) -> None:
    request = hospital.request(TRAIN, round=1)
    assert hospital.send(request)[0].status == "ok"
    reply = hospital.ask(TRAIN, round=2, nonce=request.nonce)
    assert refused(reply, hospital) == "replay"
    weights = {name: array + 1 for name, array in hospital.weights().items()}
    assert refused(hospital.send(request, join_model(weights))[0], hospital) == "replay"


def test_a_revoked_campaign_gets_no_stored_answer_either(hospital: Hospital) -> None:
    request = hospital.request()
    first = hospital.send(request)[0]
    hospital.site.rules.revoke(hospital.campaign.digest)
    assert refused(hospital.send(request)[0], hospital) == "declined"
    hospital.site.rules.approve(hospital.campaign)
    assert hospital.send(request)[0] == first


def test_a_message_whose_agent_was_killed_is_done_anew(hospital: Hospital) -> None:
    request = hospital.request(TRAIN, round=1)
    content = hashlib.sha256(request.signing_bytes(pack(hospital.payload(TRAIN)))).hexdigest()
    identity = RequestId(digest=request.digest, run=request.run, nonce=request.nonce, content=content)
    hospital.site.rules.nonces.claim(identity)
    hospital.start()
    assert hospital.send(request)[0].status == "ok"


def bad_models(hospital: Hospital) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    weights = dict(hospital.weights())
    name = next(iter(weights))
    shape = weights[name].shape
    yield "not a number", {**weights, name: np.full(shape, np.nan, dtype=np.float32)}
    yield "infinite", {**weights, name: np.full(shape, np.inf, dtype=np.float32)}
    yield "other shape", {**weights, name: np.zeros((3, *shape), dtype=np.float32)}
    yield "no number at all", {**weights, name: np.zeros(shape, dtype=np.bool_)}
    yield "missing", {key: array for key, array in weights.items() if key != name}
    yield "one more", {**weights, "extra": np.zeros(3, dtype=np.float32)}
    yield "huge", {**weights, name: np.zeros(25_000_000, dtype=np.float32)}
    yield "none", {}


def test_models_that_are_none_are_refused_in_training_and_evaluation(hospital: Hospital) -> None:
    for title, weights in bad_models(hospital):
        for kind in (TRAIN, EVALUATE):
            payload = {**hospital.payload(ANALYSE if kind == EVALUATE else DESCRIBE), **join_model(weights)}
            reply, sums = hospital.send(hospital.request(kind, round=1), payload)
            assert refused(reply, hospital) == "model", title
            assert sums == {}, title
    assert hospital.ask(EVALUATE).status == "ok"  # no predictions of a bad model were kept


def test_a_step_the_file_does_not_contain_is_withheld_and_its_name_not_written(hospital: Hospital) -> None:
    payload = join_iterates({TEST: {}, "cox:smuggled": {}, "patients": {}})
    assert hospital.ask(EVALUATE).status == "ok"
    reply, sums = hospital.send(hospital.request(ANALYSE), payload)
    assert {reply.info["withheld"][step]["rule"] for step in ("cox:smuggled", "patients")} == {"unknown-step"}
    assert set(sums) == {TEST}
    line = hospital.last()
    assert line.entry.steps == (TEST,)
    assert "smuggled" not in str(line)
    assert refused(hospital.send(hospital.request(TRAIN), payload)[0], hospital) == "unknown-step"
    bare = {"no-step": np.zeros(2)}
    assert refused(hospital.send(hospital.request(ANALYSE), bare)[0], hospital) == "malformed-request"
    assert refused(hospital.ask(TRAIN, fold=3), hospital) == "fold"


def test_no_two_thresholds_tell_who_lies_between_them(hospital: Hospital) -> None:
    assert hospital.ask(EVALUATE).status == "ok"
    found = hospital.site.cohort(hospital.campaign).cohort
    ages = np.sort(found["age_years"][found["is_test"] == 1])
    middle = ages.size // 2
    values = [float(ages[k : k + 2].mean()) for k in (middle, middle + 1)]  # one patient lies between
    answers = [
        hospital.send(hospital.request(ANALYSE), join_iterates({TEST: {"mean_age": np.asarray(value)}}))[1][TEST]
        for value in values
    ]
    assert all(np.isfinite(answer).all() for answer in answers)
    # The second answer leaves out all that the threshold would have made of it.
    assert np.count_nonzero(answers[1]) < np.count_nonzero(answers[0])
    hospital.must_be_intact()


@contextmanager
def locked(file: Path) -> Iterator[None]:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


def through_the_agent(hospital: Hospital, kind: str) -> str:
    """The type that the agent names when a message fails."""
    agent = Agent(handlers.app, site_home=hospital.home)
    reply = agent.answer(hospital.message(hospital.request(kind, round=1)), Cancellation())
    assert reply.has_error()
    assert "/" not in reply.error.reason
    return reply.error.reason


@pytest.mark.parametrize(
    ("file", "type_name"),
    [
        ("nonces.db", "NoncesUnavailable"),
        ("accounts.db", "AccountsUnavailable"),
        ("audit.db", "AuditUnavailable"),
    ],
)
def test_a_locked_file_lets_nothing_out_and_the_next_message_is_answered(
    hospital: Hospital, file: str, type_name: str
) -> None:
    assert hospital.ask().status == "ok"
    before = len(hospital.lines())
    with locked(hospital.home / file):
        assert through_the_agent(hospital, TRAIN) == type_name
    if file != "audit.db":
        assert [line.entry.outcome for line in hospital.lines()[before:]] == [Outcome.OK, Outcome.FAILED]
    hospital.must_be_intact()
    assert hospital.ask(TRAIN, round=1).status == "ok"


def test_an_answer_whose_line_cannot_be_written_does_not_leave(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_locally = handlers.train_locally
    locks = []

    def then_lock(*arguments: Any, **options: Any) -> Any:
        update = train_locally(*arguments, **options)
        locks.append(sqlite3.connect(hospital.home / "audit.db", isolation_level=None, check_same_thread=False))
        locks[0].execute("BEGIN IMMEDIATE")
        return update

    monkeypatch.setattr(handlers, "train_locally", then_lock)
    assert through_the_agent(hospital, TRAIN) == "AuditUnavailable"
    locks[0].close()
    assert Direction.OUT not in {line.entry.direction for line in hospital.lines()}


@contextmanager
def no_file_beyond(size_bytes: int) -> Iterator[None]:
    """A disk that fills up: whatever this process writes beyond this offset of a file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)


def test_wherever_the_disk_fills_up_nothing_leaves_without_its_line(hospital: Hospital) -> None:
    assert hospital.ask().status == "ok"
    outcomes = []
    for room_bytes in (*range(0, 60_000, 4_000), 10_000_000):
        hospital.policy(POLICY + f"# {room_bytes}\n")  # one more line to be written
        message = hospital.message(hospital.request())
        log = hospital.home / f"{LOG_FILE}-wal"
        with no_file_beyond(log.stat().st_size + room_bytes):
            try:
                outcomes.append(hospital.deliver(message)[0].status)
            except StoreUnavailable as error:
                outcomes.append(type(error).__name__)
        findings = verify(hospital.home / LOG_FILE)
        assert findings.intact, findings
        left = [line for line in hospital.lines() if line.entry.direction is Direction.OUT and not line.entry.rule]
        assert sum(line.entry.outcome is Outcome.OK for line in left) >= outcomes.count("ok")
    assert outcomes[0] == "AuditUnavailable"
    assert outcomes[-1] == "ok"
    assert set(outcomes) <= {"AuditUnavailable", "NoncesUnavailable", "SnapshotsUnavailable", "ok"}


def test_copies_of_the_home_are_told_apart_from_the_log(hospital: Hospital, tmp_path: Path) -> None:
    shutil.copytree(hospital.home, tmp_path / "backup")
    reply = hospital.ask()
    hospital.site.rules.close()
    shutil.rmtree(hospital.home)
    shutil.copytree(tmp_path / "backup", hospital.home)
    hospital.start()
    with pytest.raises(AssertionError):
        hospital.must_be_intact(reply)
