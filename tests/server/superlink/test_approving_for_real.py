"""Real SuperLink, SuperNode, relay and agent: an administrator approves what is offered while the campaign waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedage.client.audit import Direction, Kind, read_heads, show, verify
from fedage.client.audit.log import LOG_FILE
from fedage.client.cli.main import site as site_commands
from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.store.store import CohortStore
from fedage.client.site.home import SiteHome, init_site
from fedage.client.supervisor.supervise import run_site
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_hospital
from fedage.server.cli.follow import event_text
from fedage.server.record.events import read_events
from fedage.server.record.results import read_results
from fedage.server.record.run_folder import RunFolder
from fedage.server.superlink.home import init_home
from fedage.server.superlink.superlink import SuperLink, register_node, submit
from tests.client.hospital import CAMPAIGN, POLICY

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

TEXT = CAMPAIGN.replace("seed = 5", 'seed = 5\nsites = ["harbour"]\nwait_s = 150').replace(
    "rounds = 2", "rounds = 1\nquorum = 1"
)


def until(condition: Callable[[], bool], *, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_campaign_goes_on_as_soon_as_the_site_that_was_awaited_approves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    coordinator = init_home(tmp_path / "coordinator", hosts=("localhost",))
    data, home, status, stop = tmp_path / "data", tmp_path / "home", list[str](), threading.Event()
    render_hospital(HOSPITALS[0], out_dir=data, seed=6, patients=40)
    run = coordinator.run_folder("front-door", "r1")

    def followed() -> list[str]:
        return [line[10:] for line in map(event_text, read_events(run / "events.jsonl")) if line]

    with SuperLink(coordinator, port=0) as link, RunFolder(run).waiting():
        init_site(
            home,
            name="harbour",
            coordinator=link.address,
            ca_certificate=coordinator.ca_certificate,
            coordinator_public_key=coordinator.signing_public_key,
            data=data / "images",
            outcomes=data / "outcomes.csv",
            threads=1,
            device="cpu",
        )
        (home / "policy.toml").write_text(POLICY)
        with CohortStore.open(home) as store:
            index_folder(store, data / "images", outcomes_csv=data / "outcomes.csv")
        site = SiteHome.load(home)
        register_node(coordinator, site.node_public_key, "harbour")
        running = threading.Thread(
            target=run_site, args=(site,), kwargs={"stop_event": stop, "on_status": status.append}
        )
        running.start()
        try:
            until(lambda: any("online" in text for text in status))
            submit(coordinator, campaign_text=TEXT, run_name="r1")
            until(lambda: any("waiting for harbour" in line for line in followed()))
            (asked,) = (line for line in followed() if "waiting for" in line)
            words = asked.split(": ")[1].split()
            assert words[:3] == ["fedage", "site", "approve"]
            done = CliRunner().invoke(site_commands, [*words[2:], "--home", str(home)])
            assert done.exit_code == 0, (done.output, done.exception)
            until((run / "report.html").exists, timeout_s=150)
        finally:
            stop.set()
            running.join(timeout=60)
    results = read_results(run / "results.json")
    assert (results.run.status, results.run.reason) == ("finished", "")
    (told,) = results.sites
    assert (told.status, told.troubles) == ("took part", ())

    log = home / LOG_FILE
    assert verify(log, heads=read_heads(coordinator.heads / "harbour.jsonl")).intact
    out = [line.entry for line in show(log) if line.entry.direction is Direction.OUT]
    offers = [entry for entry in out if entry.kind is Kind.DESCRIBE]
    assert {entry.rule for entry in offers[:-1]} == {"not-approved"}
    assert offers[-1].outcome == "ok"
    assert all(entry.payload_sha256 for entry in out if entry.kind in (Kind.TRAIN, Kind.EVALUATE))
