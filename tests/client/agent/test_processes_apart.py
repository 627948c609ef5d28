"""Real SuperLink, nodes and agents, relays and agents as two OS users: side by side, cut short, killed, attacked."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedage.client.site.home import init_site
from fedage.server.superlink import control
from fedage.server.superlink.home import CoordinatorHome, init_home
from fedage.server.superlink.superlink import SuperLink, register_node, stop_run, submit
from tests.client.agent.other_user import (
    OTHER,
    OWNER,
    as_other,
    environment_for,
    give_to_owner,
    interpreter_for_all,
    needs_another_user,
    running_as,
)
from tests.client.agent.other_user import open_folder as folder_for_all

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]

SPLIT = """
import sys
from pathlib import Path
from fedage.client.node.node_folder import prepare
from fedage.client.site.home import SiteHome
prepare(SiteHome.load(Path(sys.argv[1])))
"""
APPS = Path(__file__).parent / "apps"
MARK = "FEDAGE_TEST_MARK"
SITES = {"north": "resident", "south": "per-message"}
AGENT = """
import sys
from pathlib import Path
from fedage.client.supervisor.supervise import run_agent
from fedage.client.site.home import SiteHome
from fedage.deploy.machine.lifetime import until_told_to_stop
with until_told_to_stop() as stop:
    run_agent(SiteHome.load(Path(sys.argv[1])), stop_event=stop, agent_app="scenario_site:app",
             on_status=lambda text: print(text, flush=True))
"""


def living(mark: str) -> dict[int, str]:
    found = {}
    for environ in (entry / "environ" for entry in Path("/proc").glob("[0-9]*")):
        try:
            if int(environ.parent.name) != os.getpid() and f"{MARK}={mark}".encode() in environ.read_bytes():
                found[int(environ.parent.name)] = (
                    (environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                )
        except OSError:
            continue
    return found


@dataclass
class Network:
    root: Path
    interpreter: Path
    coordinator: CoordinatorHome
    mark: str
    services: ExitStack = field(default_factory=ExitStack)

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    def pid_of(self, name: str, what: str) -> int:
        home = str(self.root / name)
        return next(pid for pid, command in living(self.mark).items() if what in command and home in command)

    def run(self, scenario: str) -> tuple[str, int]:
        name = uuid.uuid4().hex[:8]
        config: dict[str, Any] = {"scenario": scenario, "name": name, "nodes": len(SITES)}
        run_id = submit(
            self.coordinator, campaign_text="x", run_name=name, extra_config=config, server_app="scenario_server:app"
        )
        return name, run_id

    def result(self, name: str, *, timeout_s: float = 120.0) -> Any:
        out = self.root / "out" / f"{name}.json"
        until(out.exists, timeout_s=timeout_s)
        return json.loads(out.read_text())


def until(condition: Any, *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    needs_another_user()
    mark = uuid.uuid4().hex
    with folder_for_all() as root, pytest.MonkeyPatch.context() as patch:
        interpreter = interpreter_for_all(root)
        shutil.copytree(APPS, root / "apps")
        (root / "out").mkdir()
        (root / "marks").mkdir()
        (root / "marks").chmod(0o1777)
        patch.setenv(MARK, mark)
        patch.setenv("PYTHONPATH", str(root / "apps"))
        patch.setenv("SCENARIO_OUT", str(root / "out"))
        patch.setenv("OMP_NUM_THREADS", "1")
        coordinator = init_home(root / "coordinator", hosts=("localhost",))
        with SuperLink(coordinator, port=0) as link:
            made = Network(root, interpreter, coordinator, mark)
            try:
                for name, executor in SITES.items():
                    start(made, name, executor=executor, address=link.address)
                for name in SITES:
                    until(lambda name=name: "online" in made.log(f"{name}-node"), timeout_s=90)
                yield made
            finally:
                made.services.close()
        until(lambda: not living(mark), timeout_s=15)


def start(network: Network, name: str, *, executor: str, address: str) -> None:
    images = network.root / f"{name}-images"
    images.mkdir(mode=0o700)
    (images / "one.dcm").write_bytes(b"image")
    home = init_site(
        network.root / name,
        name=name,
        coordinator=address,
        ca_certificate=network.coordinator.ca_certificate,
        coordinator_public_key=network.coordinator.signing_public_key,
        data=images,
    )
    register_node(network.coordinator, home.node_public_key, name)
    settings = (home.root / "site.toml").read_text()
    for key, value in (("executor", f'"{executor}"'), ("poll_s", "0.5"), ("max_message_mb", "50")):
        line = next(line for line in settings.splitlines() if line.startswith(f"{key} ="))
        settings = settings.replace(line, f"{key} = {value}")
    (home.root / "site.toml").write_text(settings.replace("# relay_user =", f'relay_user = "{OTHER}"'))
    (home.root / "store.key").write_text("0" * 64)
    (home.root / "store.key").chmod(0o600)
    give_to_owner(images, home.root)
    python, environment = network.interpreter, environment_for(network.interpreter)
    subprocess.run([python, "-c", SPLIT, home.root], env={**os.environ, **environment}, check=True)
    agent = [python, "-c", AGENT, home.root]
    node = [python, "-m", "fedage.deploy", "site", "node", "--relay", home.relay_folder]
    for user, title, command in ((OWNER, "agent", agent), (OTHER, "node", node)):
        log = network.root / f"{name}-{title}.log"
        network.services.enter_context(running_as(user, command, log=log, **environment))


def test_nodes_and_relays_run_as_the_other_user_and_agents_do_not(network: Network) -> None:
    other = pwd.getpwnam(OTHER).pw_uid
    for name in SITES:
        status = Path(f"/proc/{network.pid_of(name, 'supernode_main')}/status").read_text()
        assert f"Uid:\t{other}\t{other}\t{other}\t{other}\n" in status
        assert "Groups:\t\n" in status or "Groups:\t \n" in status
        agent = Path(f"/proc/{network.pid_of(name, 'agent.main')}/status").read_text()
        owner = pwd.getpwnam(OWNER).pw_uid
        assert f"Uid:\t{owner}\t{owner}\t{owner}\t{owner}\n" in agent


@pytest.fixture(scope="module")
def beside(network: Network) -> Any:
    """An analysis while a training runs, as the ServerApp saw it."""
    return network.result(network.run("beside")[0])


def test_a_node_that_relays_has_nothing_heavy_loaded(network: Network, beside: Any) -> None:
    """Not even after messages have passed."""
    maps = Path(f"/proc/{network.pid_of('north', 'supernode_main')}/maps").read_text()
    assert "/grpc/" in maps
    for heavy in ("torch", "pandas", "monai", "scipy", "pyarrow"):
        assert f"/{heavy}/" not in maps, heavy


def test_the_node_key_is_the_relays_alone_and_nothing_else_is(network: Network) -> None:
    folder = network.root / "north-relay"
    assert not (network.root / "north" / "node.key").exists()
    found = (folder / "node.key").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (pwd.getpwnam(OTHER).pw_uid, 0o600)
    code = "import sys; open(sys.argv[1]).read()"
    python, environment = str(network.interpreter), environment_for(network.interpreter)
    assert as_other([python, "-c", code, str(folder / "node.key")], environment=environment).returncode == 0
    for private in ("north/site.toml", "north/store.key", "north/logs/agent.log", "north-images/one.dcm"):
        done = as_other([python, "-c", code, str(network.root / private)], environment=environment)
        assert "PermissionError" in done.stderr, private


def test_an_analysis_is_answered_while_a_training_runs(beside: Any) -> None:
    assert [said["computing"] for said in beside["asked"]] == [1, 1]
    assert beside["early"] == []
    assert sorted(said["site"] for said in beside["trained"]) == sorted(SITES)


def test_a_later_training_of_the_same_run_ends_the_earlier_within_seconds(network: Network) -> None:
    told = network.result(network.run("superseded")[0])
    assert [said["error"] for said in told["first"]] == ["Superseded"] * 2
    assert told["seconds"] < 15
    assert sorted(said["site"] for said in told["second"]) == sorted(SITES)


@pytest.mark.parametrize("stopped", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_run_that_ends_ends_its_trainings_within_seconds(network: Network, stopped: bool) -> None:
    files = {site: (network.root / site / "training", network.root / site / "stopped") for site in SITES}
    for training, ended in files.values():
        training.unlink(missing_ok=True)
        ended.unlink(missing_ok=True)
    before = network.log("north-node").count("online")
    name, run_id = network.run("leaves")
    # A run to be stopped does not last until a busy machine has started Flower's process for the south's message.
    wanted = ("north",) if stopped else tuple(SITES)
    until(lambda: all(files[site][0].exists() for site in wanted))
    if stopped:
        stop_run(network.coordinator, run_id)
    else:
        network.result(name)
    over = time.monotonic()
    # Flower's own process for a message hears of it at its next heartbeat only; the resident relay asks every second.
    within_s = {"north": 15.0, "south": 45.0}
    for site in wanted:
        until(lambda site=site: files[site][1].exists() and files[site][1].read_text() != "", timeout_s=within_s[site])
    time.sleep(8.0)  # twice as long as a node takes to end and to be looked after
    assert network.log("north-node").count("online") == before, "a withdrawn task took its node along"
    seconds = {site: float(files[site][1].read_text()) - over for site in wanted}
    print(f"a training ended after its run, seconds: {seconds}")


def test_shipped_code_gets_nothing_and_with_a_resident_relay_it_never_runs(network: Network) -> None:
    root, out = network.root, uuid.uuid4().hex[:8]
    targets = [str(root / "south-images" / "one.dcm"), f"{root / 'south-images'}/", f"{root / 'south'}/"]
    targets += [str(root / "south" / file) for file in ("store.key", "site.toml", "cohort.db", "logs/agent.log")]
    targets += [f"{root / 'north'}/", str(root / "north-relay" / "run" / "x")]
    config = {
        "targets": json.dumps(targets),
        "marks": str(root / "marks"),
        "scenario": "loot",
        "name": out,
        "nodes": len(SITES),
    }
    text = control.app_text(config, server_app="scenario_server:app", client_app="hostile:app")
    app = root / "fab" / "hostile-app"
    app.mkdir(parents=True)
    (app / "pyproject.toml").write_text(text.replace('fab-include = ["/README.md"]', ""))
    shutil.copy(APPS / "hostile" / "hostile.py", app)
    agents = [network.pid_of(name, "agent.main") for name in SITES]
    control._flwr(network.coordinator, "run", str(app), control.CONNECTION)
    told = network.result(out)["told"]
    looted = next(said for said in told if "found" in said)
    assert looted["uid"] == pwd.getpwnam(OTHER).pw_uid
    found = json.loads(looted["found"])
    both = {**found}
    assert both.pop(targets[-1]) in {"PermissionError", "FileNotFoundError"}  # one user for both only in this test
    assert set(both.values()) == {"PermissionError"}, found
    # Thirty streams of 40 MB at an agent that takes 50 MB a message: no more than two at a time were let in.
    assert looted["refused"] >= 20
    peak = Path(f"/proc/{agents[1]}/status").read_text().split("VmHWM:")[1].split()[0]
    assert int(peak) < 600_000  # kB
    assert [network.pid_of(name, "agent.main") for name in SITES] == agents
    assert [mark.name for mark in (root / "marks").iterdir()] == [f"{looted['uid']}-south-relay"]
    assert [said["error"] for said in told if "found" not in said] == [
        "ValueError"
    ]  # the resident's agent knows no loot


@pytest.mark.parametrize("what", ["agent.main", "supernode_main"])
def test_kill_9_during_training_is_answered_or_named_and_the_site_comes_back(network: Network, what: str) -> None:
    file = network.root / "north" / "training"
    file.unlink(missing_ok=True)
    (network.root / "north" / "stopped").unlink(missing_ok=True)
    name, _run_id = network.run("waits")
    until(file.exists)
    victim = network.pid_of("north", what)
    before = len(living(network.mark))
    os.kill(victim, signal.SIGKILL)
    if what != "agent.main":
        until((network.root / "north" / "stopped").exists, timeout_s=15)  # the agent does not go on for nobody
    told = network.result(name, timeout_s=160)
    # South answers nobody's "go" either and runs into the deadline; north's is named, whichever end was killed.
    assert all("error" in said for said in told["trained"]), told
    assert len(told["asked"]) == len(SITES)  # both sites answer the next message of the same run
    until(lambda: len(living(network.mark)) <= before + 1, timeout_s=30)
    assert victim not in living(network.mark)
