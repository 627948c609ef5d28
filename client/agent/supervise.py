"""A running site: its agent and its SuperNode, started in this order, restarted when they die, both gone at the end."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from fedage.client.agent.main import HANDLERS
from fedage.client.home import SiteHome
from fedage.client.relay import AGENT_SOCKET
from fedage.common.errors import FedAgeError
from fedage.common.processes import Family, flower_environment, free_port

Status = Callable[[str], None]

_LOOK_S = 0.2
_BACKOFF_S = (1.0, 2.0, 4.0, 8.0)
_STEADY_S = 60.0
_DEAF_CHECK_S = 5.0
_MAX_SOCKET_PATH = 100


class SiteBusy(FedAgeError):
    """Another process runs this site."""


def run_site(
    home: SiteHome,
    *,
    stop_event: threading.Event,
    on_status: Status | None = None,
    agent_app: str = HANDLERS,
) -> None:
    """Run a site until `stop_event` is set. Returns when both processes and all they started are gone.

    Parameters
    ----------
    home
        The site.
    stop_event
        Set by whoever handles signals.
    on_status
        Told in a few words whenever something changes.
    agent_app
        The ClientApp the agent runs, as `module:attribute`.

    Raises
    ------
    SiteBusy
        If another process runs this site.
    """
    tell = on_status or (lambda _text: None)
    with _only_one(home), _socket_path(home) as socket_path:
        agent = _Child("agent", lambda: _launch_agent(home, socket_path, agent_app), tell)
        node = _Child("node", lambda: _launch_node(home, socket_path), tell)
        # A resident executor takes its SuperNode along when it ends; Flower's own does not.
        hears = _hears if home.config.executor == "per-message" else _always
        watch = _Watch(agent, node, socket_path=socket_path, hears=hears, tell=tell)
        try:
            while not stop_event.wait(_LOOK_S):
                watch.look()
        finally:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(_Child.stop, (node, agent)))
            tell("stopped")


class _Child:
    """One of the two processes, with what is needed to start it again."""

    def __init__(self, name: str, launch: Callable[[], Family], tell: Status) -> None:
        self.name = name
        self.family: Family | None = None
        self._launch = launch
        self._tell = tell
        self._failures = 0
        self._started = 0.0
        self._not_before = 0.0

    def ensure(self) -> bool:
        """Start it if it does not run and its pause is over. Whether it was started just now."""
        if self.family is not None and self.family.poll() is not None:
            self._bury(self.family)
        if self.family is None and time.monotonic() >= self._not_before:
            self._started = time.monotonic()
            self.family = self._launch()
            return True
        return False

    def restart(self, reason: str) -> None:
        """End it; `ensure` starts it again."""
        self._tell(f"{self.name}: {reason}; starting it again")
        self.stop()

    def stop(self) -> None:
        """End it and all it started."""
        if self.family is not None:
            self.family.stop()
            self.family = None

    def _bury(self, family: Family) -> None:
        reason = _why(family)
        family.stop()
        self.family = None
        self._failures = 0 if time.monotonic() - self._started > _STEADY_S else self._failures + 1
        pause_s = _BACKOFF_S[min(self._failures, len(_BACKOFF_S)) - 1] if self._failures else _BACKOFF_S[0]
        self._not_before = time.monotonic() + pause_s
        self._tell(f"{self.name}: {reason}; starting it again in {pause_s:g} s")


class _Watch:
    """Looks after both: the node only while the agent answers, and never a node that cannot hear."""

    def __init__(
        self, agent: _Child, node: _Child, *, socket_path: Path, hears: Callable[[Family], bool], tell: Status
    ) -> None:
        self._agent = agent
        self._node = node
        self._socket_path = socket_path
        self._hears = hears
        self._tell = tell
        self._agent_ready = False
        self._node_online = False
        self._checked = 0.0

    def look(self) -> None:
        """One look at both."""
        if self._agent.ensure():
            self._agent_ready = False
        if not self._agent_ready:
            if self._agent.family is None or not _answers(self._socket_path):
                return
            self._agent_ready = True
            self._tell("agent ready")
        if self._node.ensure():
            self._node_online = False
        node = self._node.family
        if node is None:
            return
        if not self._node_online and "SuperNode ID:" in node.tail():
            self._node_online = True
            self._checked = time.monotonic()
            self._tell("online")
        if self._node_online and time.monotonic() - self._checked > _DEAF_CHECK_S:
            self._checked = time.monotonic()
            if not self._hears(node):
                self._node_online = False
                self._node.restart("its executor is gone")


def _launch_agent(home: SiteHome, socket_path: Path, app: str) -> Family:
    socket_path.unlink(missing_ok=True)
    command: list[str | Path] = [sys.executable, "-m", "fedage.client.agent.main", home.root]
    command += ["--socket", socket_path, "--app", app, "--max-bytes", str(home.config.max_message_mb * 1_000_000)]
    return Family(command, environment=flower_environment(home.flower_home), log=home.logs / "agent.out")


def _launch_node(home: SiteHome, socket_path: Path) -> Family:
    command: list[str | Path] = [sys.executable, "-m", "fedage.client.agent.supernode_main"]
    command += ["--poll-s", str(home.config.poll_s), "--port", str(free_port())]
    command += ["--superlink", home.config.coordinator, "--root-certificates", home.ca_certificate]
    command += ["--auth-supernode-private-key", home.node_key]
    command += ["--node-config", f'{AGENT_SOCKET}="{socket_path}"']
    if home.config.executor == "resident":
        secret = home.run / "executor.secret"
        secret.unlink(missing_ok=True)
        secret.touch(mode=0o600)
        secret.write_bytes(secrets.token_bytes(32))
        command += ["--executor-socket", socket_path, "--executor-secret", secret]
    return Family(command, environment=flower_environment(home.flower_home), log=home.logs / "node.log")


def _why(family: Family) -> str:
    """Why a process ended, in words where they are known."""
    tail = family.tail().lower()
    if "activate supernode" in tail or "not registered" in tail or "unauthenticated" in tail:
        return "the coordinator does not admit this node (yet): send it node.pub; after a crash it takes a minute"
    if "certificate_verify_failed" in tail or "certificate verify failed" in tail:
        return "the coordinator's certificate is not of the authority in ca.crt"
    return f"ended with status {family.poll()}, see {family.log}"


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _hears(node: Family) -> bool:
    """Whether Flower's executor lives: it is never started again, and the node looks online but is deaf."""
    if not Path("/proc/self/cmdline").exists():
        return True
    for pid in node.members():
        with contextlib.suppress(OSError):
            if b"flower-superexec" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
    return False


def _always(_node: Family) -> bool:
    return True


@contextmanager
def _only_one(home: SiteHome) -> Iterator[None]:
    home.run.mkdir(mode=0o700, exist_ok=True)
    with (home.run / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SiteBusy(f"{home.root} is running already; stop that one, or use another home") from None
        yield


@contextmanager
def _socket_path(home: SiteHome) -> Iterator[Path]:
    """Where the agent listens: in the home, or, as sockets have short names, in a private temporary folder."""
    path = home.run / "agent.sock"
    if len(str(path).encode()) <= _MAX_SOCKET_PATH:
        yield path
        return
    folder = Path(tempfile.mkdtemp(prefix="fedage-"))
    note = home.run / "socket-folder"
    note.write_text(f"{folder}\n")
    try:
        yield folder / "agent.sock"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)
