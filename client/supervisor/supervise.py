"""A running site: its agent and its SuperNode, started in this order, restarted when they die, both gone at the end.

Usually one process looks after both (`run_site`). Where each has an OS user of its own, there are two services: one
looks after the agent (`run_agent`) and one after the node (`run_node`). No process of them runs as root.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fedage.client.agent.main import HANDLERS
from fedage.client.node import node_folder as node_side
from fedage.client.node.node_folder import MAX_SOCKET_PATH, NodeFolder
from fedage.client.node.relay import AGENT_SOCKET
from fedage.client.site.home import SiteHome
from fedage.client.supervisor.state import STATE_FILE, StateFile
from fedage.client.supervisor.watch import Child, ProcessWatch, Status, always, hears
from fedage.common.errors import FedAgeError
from fedage.deploy.machine.processes import ProcessTree, flower_environment, free_port

_LOOK_S = 0.2


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
        The site. With `relay_user` it is run as two services instead.
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
    FedAgeError
        If the site names a `relay_user`: looking after processes of two users would take root for as long as they run.
    """
    if (user := home.config.relay_user) is not None:
        raise FedAgeError(
            f"relay_user = {user!r} makes two services of this site: run fedage site split --home {home.root} once as "
            f"root, then fedage site agent --home {home.root} as the site's user and "
            f"fedage site node --relay {home.relay_folder} as {user}; or take relay_user out of site.toml"
        )
    with _only_one(home.root, home.run), _node_side(home) as side:
        _look_after(
            lambda: _launch_agent(home, side.socket_path, agent_app, shared=False),
            lambda: _launch_node(side),
            side=side,
            state=StateFile(home.run / STATE_FILE),
            stop_event=stop_event,
            on_status=on_status,
        )


def run_agent(
    home: SiteHome,
    *,
    stop_event: threading.Event,
    on_status: Status | None = None,
    agent_app: str = HANDLERS,
) -> None:
    """Run only the agent, for a relay with a folder of its own (made by `node_side.prepare`). See `run_site`.

    Raises
    ------
    SiteBusy
        If another process runs this site.
    FedAgeError
        If the relay has no folder yet, or this is root.
    """
    if os.geteuid() == 0:
        raise FedAgeError(f"the agent does not run as root; run it as {node_side.owner_of(home)}")
    socket_path = node_side.socket_of(home.relay_folder)
    if home.config.relay_user is None or not socket_path.parent.is_dir():
        raise FedAgeError(
            f"{home.relay_folder} is missing: name relay_user in {home.root}/site.toml and run fedage site split "
            "as root"
        )
    side = node_side.in_home(home, socket_path=socket_path)
    with _only_one(home.root, home.run):
        _look_after(
            lambda: _launch_agent(home, socket_path, agent_app, shared=True),
            None,
            side=side,
            state=StateFile(home.run / STATE_FILE),
            stop_event=stop_event,
            on_status=on_status,
        )


def run_node(folder: Path, *, stop_event: threading.Event, on_status: Status | None = None) -> None:
    """Run only the SuperNode and its relay, as the relay's user, from the relay's folder. See `run_site`.

    Raises
    ------
    SiteBusy
        If another process runs this node.
    FedAgeError
        If the folder is none, or this user cannot read it.
    """
    side = node_side.of_relay(folder)
    with _only_one(side.folder, side.run):
        _look_after(
            None,
            lambda: _launch_node(side),
            side=side,
            state=StateFile(side.run / STATE_FILE),
            stop_event=stop_event,
            on_status=on_status,
        )


def _look_after(
    agent: Callable[[], ProcessTree] | None,
    node: Callable[[], ProcessTree] | None,
    *,
    side: NodeFolder,
    state: StateFile,
    stop_event: threading.Event,
    on_status: Status | None,
) -> None:
    tell = on_status or (lambda _text: None)
    agent_child = Child("agent", agent, tell, state) if agent is not None else None
    node_child = Child("node", node, tell, state) if node is not None else None
    # A SuperNode that relays by itself is never deaf; with Flower's own executor it may be.
    listening = hears if side.config.executor == "per-message" else always
    watch = ProcessWatch(agent_child, node_child, socket_path=side.socket_path, hears=listening, tell=tell)
    try:
        while not stop_event.wait(_LOOK_S):
            watch.look()
    finally:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Child.stop, [child for child in (node_child, agent_child) if child is not None]))
        state.remove()
        tell("stopped")


def _launch_agent(home: SiteHome, socket_path: Path, app: str, *, shared: bool) -> ProcessTree:
    socket_path.unlink(missing_ok=True)
    command: list[str | Path] = [sys.executable, "-m", "fedage.client.agent.main", home.root]
    command += ["--socket", socket_path, "--app", app, "--max-bytes", str(home.config.max_message_mb * 1_000_000)]
    command += ["--shared-socket"] if shared else []
    return ProcessTree(command, environment=flower_environment(home.flower_home), log=home.logs / "agent.out")


def _launch_node(side: NodeFolder) -> ProcessTree:
    command: list[str | Path] = [sys.executable, "-m", "fedage.client.node.supernode_main"]
    command += ["--poll-s", str(side.config.poll_s), "--port", str(free_port())]
    command += ["--superlink", side.config.coordinator, "--root-certificates", side.ca_certificate]
    command += ["--auth-supernode-private-key", side.node_key]
    command += ["--node-config", f'{AGENT_SOCKET}="{side.socket_path}"']
    if side.config.executor == "resident":
        command += ["--agent-socket", side.socket_path, "--runtime-secret", side.run / "runtime.secret"]
    environment = flower_environment(side.flower_home)
    if side.apart:
        environment = node_side.relay_environment(environment, folder=side.folder)
    return ProcessTree(
        command, environment=environment, log=side.logs / "node.log", folder=side.folder if side.apart else None
    )


@contextmanager
def _only_one(root: Path, run: Path) -> Iterator[None]:
    run.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(run / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise SiteBusy(f"{root} is running already; stop that one, or use another home") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _node_side(home: SiteHome) -> Iterator[NodeFolder]:
    """The node's files; as sockets have short names, the agent's may be in a private temporary folder."""
    if home.node_key.parent != home.root and os.geteuid() != 0:
        raise FedAgeError(f"{home.node_key} is another user's; name relay_user in site.toml again, or move it back")
    path = home.run / "agent.sock"
    if len(str(path).encode()) <= MAX_SOCKET_PATH:
        yield node_side.in_home(home, socket_path=path)
        return
    folder = Path(tempfile.mkdtemp(prefix="fedage-"))
    note = home.run / "socket-folder"
    note.write_text(f"{folder}\n")
    try:
        yield node_side.in_home(home, socket_path=folder / "agent.sock")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)
