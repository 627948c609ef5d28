"""Coordinator and hospitals as real processes on loopback: TLS, node keys, relay, agent, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedage.client.site.home import SiteHome, init_site
from fedage.client.supervisor.supervise import SiteBusy, run_site
from fedage.common.errors import FedAgeError
from fedage.server.superlink.home import CoordinatorHome, init_home
from fedage.server.superlink.superlink import SuperLink, SuperLinkFailed, register_node, run_status, stop_run, submit

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

APPS = Path(__file__).parent / "apps"
MARK = "FEDAGE_TEST_MARK"
CAMPAIGN = '[campaign]\nname = "ünïcode \\"quoted\\""\n'


def living(mark: str) -> dict[int, str]:
    """Processes that inherited the mark from this test, by id, with their commands."""
    found = {}
    for environ in (entry / "environ" for entry in Path("/proc").glob("[0-9]*")):
        pid = int(environ.parent.name)
        try:
            if pid != os.getpid() and f"{MARK}={mark}".encode() in environ.read_bytes().split(b"\0"):
                found[pid] = (environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


@dataclass
class RunningSite:
    home: SiteHome
    stop: threading.Event = field(default_factory=threading.Event)
    status: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        arguments = {"stop_event": self.stop, "on_status": self.status.append, "agent_app": "scratch_site:app"}
        self.thread = threading.Thread(target=run_site, args=(self.home,), kwargs=arguments)
        self.thread.start()

    def wait_for(self, words: str, *, count: int = 1, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while sum(words in text for text in self.status) < count:
            assert time.monotonic() < deadline, f"never said {words!r}: {self.status}"
            time.sleep(0.05)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()


@dataclass
class Network:
    root: Path
    coordinator: CoordinatorHome
    link: SuperLink
    mark: str
    sites: dict[str, RunningSite] = field(default_factory=dict)

    def make(self, name: str, **settings: str) -> SiteHome:
        home = init_site(
            self.root / name,
            name=name,
            coordinator=self.link.address,
            ca_certificate=self.coordinator.ca_certificate,
            coordinator_public_key=self.coordinator.signing_public_key,
        )
        file = home.root / "site.toml"
        for key, value in settings.items():
            file.write_text(re.sub(rf"^{key} = .*$", f"{key} = {value}", file.read_text(), flags=re.MULTILINE))
        return SiteHome.load(home.root)

    def start(self, home: SiteHome) -> RunningSite:
        self.sites[home.config.name] = RunningSite(home)
        return self.sites[home.config.name]

    def run(self, steps: str, *, nodes: int = 2, timeout_s: float = 90.0) -> dict[str, Any]:
        name = uuid.uuid4().hex[:8]
        run_id = submit(
            self.coordinator,
            campaign_text=CAMPAIGN,
            run_name=name,
            extra_config={"steps": steps, "nodes": nodes},
            server_app="scratch_server:app",
        )
        out = self.root / "out" / f"{name}.json"
        deadline = time.monotonic() + timeout_s
        while not out.exists():
            assert time.monotonic() < deadline, run_status(self.coordinator, run_id)
            time.sleep(0.05)
        found: dict[str, Any] = json.loads(out.read_text())
        return {**found, "run_id": run_id}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    root = tmp_path_factory.mktemp("n")
    (root / "out").mkdir()
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        patch.setenv("PYTHONPATH", str(APPS))
        patch.setenv("SCRATCH_OUT", str(root / "out"))
        patch.setenv("OMP_NUM_THREADS", "1")
        coordinator = init_home(root / "coordinator", hosts=("localhost",))
        with SuperLink(coordinator, port=0) as link:
            made = Network(root, coordinator, link, mark)
            try:
                for name, executor in (("north", "resident"), ("south", "per-message")):
                    home = made.make(name, executor=f'"{executor}"', poll_s="0.5")
                    register_node(coordinator, home.node_public_key, name)
                    made.start(home)
                for site in made.sites.values():
                    site.wait_for("online")
                yield made
            finally:
                for site in made.sites.values():
                    site.stop.set()
                for site in made.sites.values():
                    site.end()
        assert living(mark) == {}


@pytest.fixture(scope="module")
def exchanged(network: Network) -> dict[str, Any]:
    """One run through everything a campaign does: both relays, both ways, errors, a deadline."""
    return network.run("train big evaluate query.slow:3 train train")


def test_the_serverapp_learns_what_it_needs(network: Network, exchanged: dict[str, Any]) -> None:
    import base64
    import hashlib

    config = exchanged["config"]
    assert base64.b64decode(config["campaign"]).decode() == CAMPAIGN
    assert config["campaign-digest"] == hashlib.sha256(CAMPAIGN.encode()).hexdigest()
    assert exchanged["coordinator_home"] == str(network.coordinator.root)


def test_every_site_answers_from_its_own_agent(network: Network, exchanged: dict[str, Any]) -> None:
    first, last = exchanged["steps"][0]["told"], exchanged["steps"][-1]["told"]
    assert sorted(said["site"] for said in first) == ["north", "south"]
    assert {said["site"]: said["pid"] for said in first} == {said["site"]: said["pid"] for said in last}
    for site, pid in {said["site"]: said["pid"] for said in last}.items():
        assert "fedage.client.agent.main" in living(network.mark)[pid]
        assert str(network.root / site) in living(network.mark)[pid]


def test_thirty_megabytes_go_there_and_back_unchanged(exchanged: dict[str, Any]) -> None:
    assert [said["same"] for said in exchanged["steps"][1]["told"]] == [True, True]


def test_a_failure_reaches_the_coordinator_as_a_type_only(network: Network, exchanged: dict[str, Any]) -> None:
    assert exchanged["steps"][2]["told"] == [{"code": 2, "reason": "LookupError"}] * 2
    for log in [*network.root.glob("*/logs/*"), *network.root.glob("*/state.db*")]:
        assert b"Hans" not in log.read_bytes(), log
    assert "LookupError < scratch_site.py:" in (network.root / "north" / "logs" / "agent.log").read_text()


def test_a_deadline_ends_the_wait_and_the_work(network: Network, exchanged: dict[str, Any]) -> None:
    step = exchanged["steps"][3]
    assert len(step["told"]) == 2
    assert all("reason" in said for said in step["told"])
    assert step["seconds"] < 3 + 6
    for site in ("north", "south"):
        assert 1 < float((network.root / site / "stopped-after").read_text()) < 6


def test_no_shipped_code_is_unpacked_by_a_resident_executor(network: Network, exchanged: dict[str, Any]) -> None:
    assert not list((network.root / "north" / "flower").rglob("pyproject.toml"))
    assert list((network.root / "south" / "flower").rglob("pyproject.toml"))


def test_a_run_that_is_done_is_finished_and_stopping_it_changes_nothing(
    network: Network, exchanged: dict[str, Any]
) -> None:
    deadline = time.monotonic() + 30
    while not (status := run_status(network.coordinator, exchanged["run_id"])).startswith("finished"):
        assert time.monotonic() < deadline
    assert status == "finished:completed"
    stop_run(network.coordinator, exchanged["run_id"])
    assert run_status(network.coordinator, exchanged["run_id"]) == status


def test_a_running_run_can_be_stopped(network: Network) -> None:
    run_id = submit(
        network.coordinator,
        campaign_text=CAMPAIGN,
        run_name="endless",
        extra_config={"steps": "train", "nodes": 99},
        server_app="scratch_server:app",
    )
    stop_run(network.coordinator, run_id)
    assert run_status(network.coordinator, run_id) == "finished:stopped"


def test_a_node_that_is_not_admitted_gets_nowhere_until_it_is(network: Network) -> None:
    stranger = network.start(network.make("stranger"))
    try:
        stranger.wait_for("does not admit this node")
        found = network.run("train")
        assert found["nodes"] == 2
        assert sorted(said["site"] for said in found["steps"][0]["told"]) == ["north", "south"]
        register_node(network.coordinator, stranger.home.node_public_key, "stranger")
        stranger.wait_for("online")
        assert network.run("train", nodes=3)["nodes"] == 3
    finally:
        network.sites.pop("stranger").end()


def test_a_site_does_not_talk_to_another_authority(network: Network, tmp_path: Path) -> None:
    home = network.make("deceived")
    register_node(network.coordinator, home.node_public_key, "deceived")
    other = init_home(tmp_path / "other", hosts=("localhost",))
    home.ca_certificate.write_bytes(other.ca_certificate.read_bytes())
    deceived = network.start(home)
    try:
        deceived.wait_for("not of the authority in ca.crt")
        assert "online" not in deceived.status
    finally:
        network.sites.pop("deceived").end()


def test_the_superlink_speaks_tls_only(network: Network, tmp_path: Path) -> None:
    url = f"localhost:{network.link.port}/health"
    with pytest.raises((urllib.error.URLError, OSError)):
        urllib.request.urlopen(f"http://{url}", timeout=5)
    other = init_home(tmp_path / "other", hosts=("localhost",))
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(
            f"https://{url}", timeout=5, context=ssl.create_default_context(cafile=str(other.ca_certificate))
        )
    trusted = ssl.create_default_context(cafile=str(network.coordinator.ca_certificate))
    trusted.minimum_version = ssl.TLSVersion.TLSv1_2
    with urllib.request.urlopen(f"https://{url}", timeout=5, context=trusted) as answer:
        assert answer.status == 200


def test_a_killed_agent_comes_back_and_the_next_message_reaches_it(network: Network) -> None:
    north = network.sites["north"]
    pid = next(p for p, c in living(network.mark).items() if "agent.main" in c and str(north.home.root) in c)
    os.kill(pid, 9)
    found = network.run("train")
    assert sorted(said["site"] for said in found["steps"][0]["told"]) == ["north", "south"]
    assert pid not in {said["pid"] for said in found["steps"][0]["told"]}
    assert any(text.startswith("agent: ended with status -9") for text in north.status)


def test_a_resident_node_that_is_ended_comes_back(network: Network) -> None:
    north = network.sites["north"]
    before = north.status.count("online")
    pid = next(p for p, c in living(network.mark).items() if "supernode_main" in c and str(north.home.run) in c)
    os.kill(pid, 15)
    north.wait_for("online", count=before + 1)
    assert len(network.run("train")["steps"][0]["told"]) == 2


def test_one_home_runs_once(network: Network) -> None:
    with pytest.raises(SiteBusy, match="running already"):
        run_site(network.sites["north"].home, stop_event=threading.Event())
    with pytest.raises(SuperLinkFailed, match="already"):
        SuperLink(network.coordinator, port=0).start()


def test_wrong_keys_and_names_are_said(network: Network) -> None:
    known = network.sites["north"].home.node_public_key
    with pytest.raises(FedAgeError, match="is admitted already, as 'north'"):
        register_node(network.coordinator, known, "east")
    with pytest.raises(FedAgeError, match="another kind, Ed25519"):
        register_node(network.coordinator, network.coordinator.signing_public_key, "east")
    with pytest.raises(FedAgeError, match="no site name"):
        register_node(network.coordinator, known, "North Hospital")
    with pytest.raises(FedAgeError, match=r"node\.pub"):
        register_node(network.coordinator, network.root / "none.pub", "east")


def test_a_busy_port_is_said_or_passed_over(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home = init_home(tmp_path / "c", hosts=("localhost",), port=port)
        with pytest.raises(SuperLinkFailed, match=f"port {port} on 127.0.0.1 is in use.*--port 0"):
            SuperLink(home).start()
        link = SuperLink(home, port=0)
        with link:
            assert link.port != port
            assert link.address == f"localhost:{link.port}"
            link.look()
    with pytest.raises(FedAgeError, match="is not running; start it with fedage coordinator start"):
        run_status(home, 1)


def test_a_superlink_that_cannot_start_says_why(tmp_path: Path) -> None:
    home = init_home(tmp_path / "c", hosts=("localhost",))
    home.server_key.write_text("broken")
    with pytest.raises(SuperLinkFailed, match=r"(?s)ended with status .*superlink\.log:\n.*SSL"):
        SuperLink(home, port=0).start()


def test_nothing_outlives_a_coordinator_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    home = init_home(tmp_path / "c", hosts=("localhost",))
    code = f"""
import time
from pathlib import Path
from fedage.server.superlink.home import CoordinatorHome
from fedage.server.superlink.superlink import SuperLink
with SuperLink(CoordinatorHome.load(Path({str(home.root)!r})), port=0):
    print("up", flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    assert len(living(mark)) >= 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 15
    while living(mark):
        assert time.monotonic() < deadline, living(mark)
        time.sleep(0.1)
