"""Two that want a site's files at once: the later one waits, and whoever only reads waits for nobody."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedage.client.audit import AuditLog, Direction, Entry, Kind
from fedage.client.cohort.store import writer
from fedage.client.cohort.store.store import CohortStore
from fedage.client.consent.accounts.account_file import account_transaction
from fedage.client.consent.accounts.nonces import Claim, Nonces, RequestId
from fedage.client.consent.accounts.run_limits import RunLimits
from fedage.client.consent.frozen_values import FrozenValues
from fedage.client.consent.ledger import Ledger
from fedage.client.consent.snapshots import Snapshots
from fedage.client.site.durable import DurableFile
from fedage.client.site.sqlite import insert, scalar
from fedage.common.privacy.accountant import Budget, Mechanism
from fedage.common.protocol.messages import DESCRIBE, EVALUATE, TRAIN, Request
from tests.client.hospital import Hospital, Template

HELD_S = 0.3
DIGEST = hashlib.sha256(b"campaign").hexdigest()
ROWS = {"rows": ("CREATE TABLE rows (id INTEGER PRIMARY KEY)",)}
COUNT = "SELECT count(*) FROM rows"


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Another process's transaction in a file, for a while."""
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    over = threading.Timer(HELD_S, connection.close)
    over.start()
    began = time.monotonic()
    try:
        yield
        assert time.monotonic() - began >= HELD_S * 0.9
    finally:
        over.join()


def charge(home: Path) -> float:
    budget, mechanism = Budget(epsilon=8.0, delta=1e-5), Mechanism(sampling_rate=0.1, noise_multiplier=2.0, steps=3)
    return (
        Ledger(home)
        .charge("chest", digest=DIGEST, round=1, fold=0, content="n", mechanism=mechanism, budget=budget)
        .charged_epsilon
    )


def freeze(home: Path) -> tuple[str, ...]:
    found = FrozenValues(patients=tuple(sorted(hashlib.sha256(b"%d" % number).hexdigest() for number in range(20))))
    return Snapshots(home).freeze("chest", digest=DIGEST, frozen_values=found, minimum_count=5).patients


def add_row(home: Path) -> int:
    with account_transaction(home / "account.db", tables=ROWS) as connection:
        return insert(connection, "rows", {"id": None})


WRITERS: dict[str, Callable[[Path], Any]] = {
    "audit.db": lambda home: AuditLog(home).append(Entry(direction=Direction.IN, kind=Kind.TRAIN)).sequence,
    "nonces.db": lambda home: (
        Nonces(home).claim(RequestId(digest=DIGEST, run="r", nonce="n", content=DIGEST)) is Claim.NEW
    ),
    "ledger.db": charge,
    "snapshots.db": freeze,
    "accounts.db": lambda home: (
        RunLimits(home).bring_model(Request(kind=TRAIN, digest=DIGEST, run="r", version="t"), model=DIGEST) is None
    ),
    "account.db": add_row,
}
MAKERS: dict[str, Callable[[Path], Any]] = {
    "audit.db": AuditLog,
    "nonces.db": Nonces,
    "ledger.db": Ledger,
    "snapshots.db": Snapshots,
    "accounts.db": RunLimits,
    "account.db": lambda home: DurableFile(home / "account.db", tables=ROWS),
}


@pytest.mark.parametrize("file", WRITERS)
def test_a_second_writer_waits_for_the_first(file: str, tmp_path: Path) -> None:
    MAKERS[file](tmp_path).close()
    with writing(tmp_path / file):
        assert WRITERS[file](tmp_path)


@pytest.mark.parametrize("file", MAKERS)
def test_it_waits_long_enough_for_a_busy_machine(file: str, tmp_path: Path) -> None:
    made = MAKERS[file](tmp_path)
    with (made if isinstance(made, DurableFile) else made._file).transaction() as connection:
        assert scalar(connection, "PRAGMA busy_timeout") == 60_000
    made.close()


READERS: dict[str, Callable[[Any], Any]] = {
    "audit.db": lambda log: log.signed_head().sequence == 0,
    "snapshots.db": lambda snapshots: (snapshots.of(DIGEST), snapshots.campaigns()) == (None, set()),
    "ledger.db": lambda ledger: ledger.data_sets() == () and ledger.by_campaign("chest", delta=1e-5) == (),
    "account.db": lambda file: _count(file) == 0,
}


def _count(file: DurableFile) -> int:
    with file.reading() as connection:
        return int(scalar(connection, COUNT))


@pytest.mark.parametrize("file", READERS)
def test_a_reader_waits_for_nobody(file: str, tmp_path: Path) -> None:
    MAKERS[file](tmp_path).close()
    with DurableFile(tmp_path / file, tables={}).transaction():
        began = time.monotonic()
        assert READERS[file](MAKERS[file](tmp_path))
        assert time.monotonic() - began < 30  # a wait for the lock would be sixty seconds, and then fail


def test_a_reader_sees_one_state_while_another_commits(tmp_path: Path) -> None:
    file = DurableFile(tmp_path / "account.db", tables=ROWS)
    with file.reading() as connection:
        before = scalar(connection, COUNT)
        add_row(tmp_path)
        assert (before, scalar(connection, COUNT)) == (0, 0)
    assert _count(file) == 1


def test_a_store_that_is_being_indexed_can_be_opened_and_read(tmp_path: Path) -> None:
    CohortStore.open(tmp_path).close()
    with CohortStore.open(tmp_path) as indexed, writer.writing(indexed):
        began = time.monotonic()
        with CohortStore.open(tmp_path) as store:
            assert store.counts() == {"patients": 0, "exams": 0, "images": 0}
        assert time.monotonic() - began < 20  # a wait for the lock would be thirty seconds, and then fail


@pytest.fixture
def hospital(template: Template, tmp_path: Path) -> Hospital:
    return template.copy(tmp_path)


@pytest.mark.parametrize("file", ["audit.db", "nonces.db", "accounts.db"])
def test_a_message_is_answered_after_another_process_has_written(hospital: Hospital, file: str) -> None:
    assert hospital.ask().status == "ok"
    with writing(hospital.home / file):
        assert hospital.ask(EVALUATE).status == "ok"
    hospital.must_be_intact()


def test_messages_are_answered_while_an_approval_compares_cohorts(hospital: Hospital) -> None:
    with hospital.site.rules.snapshots._file.transaction():
        assert [hospital.ask(kind, round=1).status for kind in (DESCRIBE, TRAIN, EVALUATE)] == ["ok"] * 3
