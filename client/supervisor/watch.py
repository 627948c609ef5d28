"""Looking after the agent and the node: start, see whether they answer, start again."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from fedage.client.supervisor.state import StateFile
from fedage.deploy.machine.processes import ProcessTree

Status = Callable[[str], None]

_BACKOFF_S = (1.0, 2.0, 4.0, 8.0)
_STEADY_S = 60.0
_DEAF_CHECK_S = 5.0
_FIRST_HEARS_S = 60.0
"""A busy machine starts an executor long after its node is online; a node must not be ended for that."""


class Child:
    """One of the two processes, with what is needed to start it again."""

    def __init__(self, name: str, launch: Callable[[], ProcessTree], tell: Status, state: StateFile) -> None:
        self.name = name
        self.family: ProcessTree | None = None
        self._launch = launch
        self._tell = tell
        self._state = state
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
            self._state.put(self.name, "starting", started=True)
            return True
        return False

    def is_well(self, word: str) -> None:
        """Note that it does what it should."""
        self._state.put(self.name, word)

    def restart(self, reason: str) -> None:
        """End it; `ensure` starts it again."""
        self._tell(f"{self.name}: {reason}; starting it again")
        self._state.put(self.name, reason)
        self.stop()

    def stop(self) -> None:
        """End it and all it started."""
        if self.family is not None:
            self.family.stop()
            self.family = None

    def _bury(self, family: ProcessTree) -> None:
        reason = why(family)
        family.stop()
        self.family = None
        self._failures = 0 if time.monotonic() - self._started > _STEADY_S else self._failures + 1
        pause_s = _BACKOFF_S[min(self._failures, len(_BACKOFF_S)) - 1] if self._failures else _BACKOFF_S[0]
        self._not_before = time.monotonic() + pause_s
        self._tell(f"{self.name}: {reason}; starting it again in {pause_s:g} s")
        self._state.put(self.name, reason)


class ProcessWatch:
    """Looks after what there is of both: the node only while the agent answers, and never a node that cannot hear.

    Parameters
    ----------
    agent, node
        Either may be somebody else's to look after.
    socket_path
        The agent's.
    hears
        Whether a node's executor lives.
    tell
        Told in a few words whenever something changes.
    """

    def __init__(
        self,
        agent: Child | None,
        node: Child | None,
        *,
        socket_path: Path,
        hears: Callable[[ProcessTree], bool],
        tell: Status,
    ) -> None:
        self._agent = agent
        self._node = node
        self._socket_path = socket_path
        self._hears = hears
        self._tell = tell
        self._agent_ready = False
        self._node_online = False
        self._checked = self._online_since = 0.0
        self._has_heard = False

    def look(self) -> None:
        """One look at both."""
        if self._agent is not None and self._agent.ensure():
            self._agent_ready = False
        if not self._agent_ready:
            if (self._agent is not None and self._agent.family is None) or not answers(self._socket_path):
                return
            self._agent_ready = True
            self._tell("agent ready")
            if self._agent is not None:
                self._agent.is_well("ready")
        if self._node is not None:
            self._look_at_node(self._node)

    def _look_at_node(self, child: Child) -> None:
        if child.ensure():
            self._node_online = False
        node = child.family
        if node is None:
            return
        if not self._node_online and "SuperNode ID:" in node.tail():
            self._node_online, self._has_heard = True, False
            self._checked = self._online_since = time.monotonic()
            self._tell("online")
            child.is_well("online")
        if self._node_online and time.monotonic() - self._checked > _DEAF_CHECK_S:
            self._checked = time.monotonic()
            if self._hears(node):
                self._has_heard = True
            elif self._has_heard or self._checked - self._online_since > _FIRST_HEARS_S:
                self._node_online = False
                child.restart("its executor is gone")


def why(family: ProcessTree) -> str:
    """Why a process ended, in words where they are known."""
    tail = family.tail().lower()
    if "activate supernode" in tail or "not registered" in tail or "unauthenticated" in tail:
        return "the coordinator does not admit this node (yet): send it node.pub; after a crash it takes half a minute"
    if "certificate_verify_failed" in tail or "certificate verify failed" in tail:
        return "the coordinator's certificate is not of the authority in ca.crt"
    return f"ended with status {family.poll()}, see {family.log}"


def answers(path: Path) -> bool:
    """Whether somebody listens on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def hears(node: ProcessTree) -> bool:
    """Whether Flower's executor lives: it is never started again, and the node looks online but is deaf.

    It is known by its command, which names its parent: it hides its environment from everybody but root.
    """
    parent = ("--parent-pid", str(node.process.pid))
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or ()
        if any("flower-superexec" in word for word in words) and parent in itertools.pairwise(words):
            return True
    return not psutil.LINUX  # elsewhere another user's commands may be hidden


def always(_node: ProcessTree) -> bool:
    """For a SuperNode that relays by itself."""
    return True
