"""`fedage site status` sees a full disk, stores that cannot be written, and an agent whose last answer failed."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import grpc
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedage.client.agent.service import Agent, kind_of, serve
from fedage.client.audit import AuditLog, AuditUnavailable
from fedage.client.consent.ledger import Ledger
from fedage.client.site.cancel import Cancellation
from fedage.client.site.durable import DISK_FULL, StoreUnavailable
from fedage.client.site.home import SiteHome, init_site
from fedage.client.supervisor.status import site_status, store_lines
from fedage.server.sites.failure_text import failure_text
from fedage.server.superlink.home import init_home
from tests.small_disk import fill, small_disk


def test_a_full_disk_is_called_that_everywhere(tmp_path: Path) -> None:
    with small_disk(tmp_path / "home", size_bytes=2_500_000) as home:
        log, ledger = AuditLog(home), Ledger(home)
        log.close()
        ledger.close()
        (line,) = store_lines(home)
        assert line.startswith("disk: can be written, 0.0 GB free")
        fill(home)
        (line,) = store_lines(home)
        assert line.startswith("disk: full: free some space for")
        assert "nothing leaves this site" in line
        with pytest.raises(AuditUnavailable, match="the disk is full") as told:
            AuditLog(home).append(_entry())
        assert kind_of(told.value) == DISK_FULL
        assert "its disk is full" in failure_text(DISK_FULL)
        (home / "filling").unlink()
        assert store_lines(home)[0].startswith("disk: can be written")


def _entry():  # type: ignore[no-untyped-def]
    from fedage.client.audit import Direction, Entry, Kind

    return Entry(direction=Direction.IN, kind=Kind.TRAIN)


def test_stores_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    AuditLog(tmp_path).close()
    Ledger(tmp_path).close()
    assert len(store_lines(tmp_path)) == 1
    for file, content in (("audit.db", b"junk" * 1000), ("nonces.db", b"")):
        (tmp_path / file).write_bytes(content)
    (line,) = store_lines(tmp_path)
    assert line.startswith("audit.db: not a database; restore it from a backup")
    (tmp_path / "audit.db").unlink()
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        (line,) = store_lines(tmp_path)
        assert line.startswith("ledger.db: locked by another process")
    finally:
        holder.close()
    (tmp_path / "snapshots.db").mkdir()
    (line,) = store_lines(tmp_path)
    assert line.startswith("snapshots.db: cannot be opened")


def test_an_error_that_is_no_full_disk_keeps_its_name() -> None:
    assert kind_of(AuditUnavailable(Path("audit.db"), "read-only")) == "AuditUnavailable"
    assert kind_of(OSError(28, "No space left on device")) == DISK_FULL
    assert kind_of(OSError(122, "Disk quota exceeded")) == DISK_FULL
    assert kind_of(PermissionError(13, "x")) == "PermissionError"
    assert kind_of(StoreUnavailable(Path("x.db"), "the disk is full; free some space")) == DISK_FULL


def test_an_agent_whose_last_answer_failed_is_not_called_healthy(tmp_path: Path) -> None:
    coordinator = init_home(tmp_path / "c")
    home = init_site(
        tmp_path / "s",
        name="north",
        coordinator="localhost:8443",
        ca_certificate=coordinator.ca_certificate,
        coordinator_public_key=coordinator.signing_public_key,
    )
    home = SiteHome.load(home.root)
    well = threading.Event()

    def app(message: Message, _context: Context) -> Message:
        if not well.is_set():
            raise OSError(28, "No space left on device: Jane Roe")
        return Message(RecordDict({"x": ConfigRecord()}), reply_to=message)

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    agent = Agent(app, site_home=home.root, computes="networks are computed on the CPU: torch finds no GPU here")
    home.run.mkdir(exist_ok=True)
    serving = serve(agent, socket=home.run / "agent.sock")
    try:
        assert site_status(home)[0].startswith("agent: healthy")
        message = Message(RecordDict(), dst_node_id=1, message_type="train")
        message.metadata.__dict__["_message_id"] = "m"
        assert agent.answer(message, Cancellation(lifetime_s=60)).error.reason == DISK_FULL
        said = site_status(home)
        assert said[0].startswith("agent: running, but not well")
        assert said[1] == "  networks are computed on the CPU: torch finds no GPU here"
        assert "failed: the disk is full" in said[2]
        assert not any("Jane" in line for line in said)
        well.set()
        agent.answer(message, Cancellation(lifetime_s=60))
        assert site_status(home)[0].startswith("agent: healthy")
    finally:
        serving.stop(grace=1).wait()
    with pytest.raises(grpc.RpcError), grpc.insecure_channel(f"unix:{home.run / 'agent.sock'}") as channel:
        channel.unary_unary("/x/y")(b"", timeout=1)
