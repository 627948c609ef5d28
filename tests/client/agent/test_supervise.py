"""A site on its own: it starts, tells, keeps to itself and leaves nothing behind, with no coordinator in reach."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedage.client.site.home import SiteHome, init_site
from fedage.client.supervisor import watch
from fedage.client.supervisor.state import StateFile
from fedage.client.supervisor.supervise import run_agent, run_site
from fedage.client.supervisor.watch import Child, ProcessWatch
from fedage.common.errors import FedAgeError
from fedage.deploy.machine.processes import ProcessTree
from fedage.server.superlink.home import init_home

pytestmark = pytest.mark.processes

MARK = "FEDAGE_TEST_MARK"


def living(mark: str) -> list[int]:
    found = []
    for environ in (entry / "environ" for entry in Path("/proc").glob("[0-9]*")):
        try:
            if f"{MARK}={mark}".encode() in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def until(condition: object, *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    value = uuid.uuid4().hex
    monkeypatch.setenv(MARK, value)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "server" / "superlink" / "apps"))
    yield value
    until(lambda: not living(value), timeout_s=15)


def site(root: Path) -> SiteHome:
    coordinator = init_home(root / "c", hosts=("localhost",))
    return init_site(
        root / "s",
        name="north",
        coordinator="localhost:9",
        ca_certificate=coordinator.ca_certificate,
        coordinator_public_key=coordinator.signing_public_key,
    )


def test_a_home_with_a_long_path_listens_elsewhere_in_private(tmp_path: Path, mark: str) -> None:
    root = tmp_path / ("deep-" * 12) / ("deeper-" * 12)
    root.mkdir(parents=True)
    home = site(root)
    stop, status = threading.Event(), list[str]()
    thread = threading.Thread(
        target=run_site,
        args=(home,),
        kwargs={"stop_event": stop, "on_status": status.append, "agent_app": "scratch_site:app"},
    )
    thread.start()
    try:
        until(lambda: "agent ready" in status)
        folder = Path((home.run / "socket-folder").read_text().strip())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "agent.sock").stat().st_mode) == 0o600
    finally:
        stop.set()
        thread.join(30)
    assert status[-1] == "stopped"
    assert not folder.exists()
    assert not (home.run / "socket-folder").exists()


def test_an_agent_that_cannot_start_is_tried_again_with_pauses(tmp_path: Path, mark: str) -> None:
    home = site(tmp_path)
    stop, status = threading.Event(), list[str]()
    thread = threading.Thread(
        target=run_site,
        args=(home,),
        kwargs={"stop_event": stop, "on_status": status.append, "agent_app": "no_such_module:app"},
    )
    thread.start()
    try:
        until(lambda: len(status) >= 2)
    finally:
        stop.set()
        thread.join(30)
    pauses = [text.rsplit("starting it again in ", 1)[1] for text in status if "ended with status 1" in text]
    assert pauses[:2] == ["1 s", "2 s"]
    assert not any(text.startswith("node") for text in status)
    assert "cannot start: ModuleNotFoundError < " in (home.logs / "agent.log").read_text()


def test_nothing_outlives_a_site_that_is_killed(tmp_path: Path, mark: str) -> None:
    home = site(tmp_path)
    code = f"""
import threading
from pathlib import Path
from fedage.client.supervisor.supervise import run_site
from fedage.client.site.home import SiteHome
run_site(SiteHome.load(Path({str(home.root)!r})), stop_event=threading.Event(), agent_app="scratch_site:app",
         on_status=lambda text: print(text, flush=True))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "agent ready\n"
    until(lambda: len(living(mark)) >= 3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not living(mark), timeout_s=20)


def test_a_site_of_two_users_is_refused_as_one_with_the_mend(tmp_path: Path, mark: str) -> None:
    home = site(tmp_path)
    file = home.root / "site.toml"
    file.write_text(file.read_text().replace("# relay_user =", 'relay_user = "nobody"'))
    with pytest.raises(FedAgeError, match=r"two services.*fedage site split.*site agent.*site node"):
        run_site(SiteHome.load(home.root), stop_event=threading.Event())
    with pytest.raises(FedAgeError, match="run chown -R" if os.geteuid() == 0 else "run fedage site split"):
        run_agent(SiteHome.load(home.root), stop_event=threading.Event())


def test_a_node_is_deaf_only_if_its_executor_was_there_or_never_comes(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_DEAF_CHECK_S", 0.05)
    monkeypatch.setattr(watch, "_FIRST_HEARS_S", 0.8)
    monkeypatch.setattr(watch, "answers", lambda _path: True)
    told, heard = list[str](), False

    def launch() -> ProcessTree:
        code = "import time; print('SuperNode ID: 1', flush=True); time.sleep(60)"
        return ProcessTree([sys.executable, "-c", code], environment=dict(os.environ), log=tmp_path / "node.log")

    def look_for(seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            looking.look()
            time.sleep(0.02)

    child = Child("node", launch, told.append, StateFile(tmp_path / "state.json"))
    looking = ProcessWatch(None, child, socket_path=tmp_path, hears=lambda _family: heard, tell=told.append)
    try:
        until(lambda: looking.look() or "online" in told)  # type: ignore[func-returns-value]
        look_for(0.4)
        assert told[-1] == "online", "an executor may come late"
        heard = True
        look_for(1.0)
        assert told[-1] == "online"
        heard = False
        look_for(0.3)
        assert "node: its executor is gone; starting it again" in told
        until(lambda: looking.look() or told.count("online") == 2)  # type: ignore[func-returns-value]
        look_for(1.2)
        assert told.count("node: its executor is gone; starting it again") == 2, "it never came"
    finally:
        child.stop()
