"""Other programs: in a session of their own, with a log, and gone with all their descendants when stopped.

Flower starts helpers in sessions of their own, so the session is not the whole family. Every descendant inherits an
environment variable with a token, and where there is a `/proc` that finds the rest of them. Nor is the token enough:
Ray's agents rename themselves (`setproctitle`), which writes over the environment that `/proc` shows.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedage.common.errors import FedAgeError

TOKEN = "FEDAGE_FAMILY"
PARENT = "FEDAGE_PARENT"
_POLL_S = 0.05
_PARENT_POLL_S = 0.5
_KILL_S = 10.0
_ORPHAN_GRACE_S = 8.0
_TAIL_LINES = 15
_LOG_BYTES = 20_000_000


class ProcessTree:
    """A program and everything it starts.

    Parameters
    ----------
    command
        The program and its arguments.
    environment
        Its whole environment.
    log
        File that its output is appended to; one that has grown large is put aside first.
    folder
        Its working folder; None for this process's.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        log: Path,
        folder: Path | None = None,
    ) -> None:
        self._token = secrets.token_hex(16)
        self._name = Path(command[0]).name
        self.log = log
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))
        with log.open("ab") as stream:
            self._log_start = stream.tell()
            self.process = subprocess.Popen(
                [str(part) for part in command],
                env={**environment, TOKEN: self._token, PARENT: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=folder,
            )
        self._members = ProcessTreeMembers(self._token, session=self.process.pid)

    def poll(self) -> int | None:
        """The program's exit status, None while it runs."""
        return self.process.poll()

    def tail(self) -> str:
        """The last lines of what it wrote since it was started."""
        with self.log.open("rb") as stream:
            stream.seek(self._log_start)
            lines = stream.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def stop(self, *, grace_s: float = 10.0) -> None:
        """End the whole family: a polite request, then, after `grace_s`, by force. Returns when nothing is left."""
        self.members()  # who hides is known by a parent that ends now
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _wait(lambda: self.process.poll() is not None and not self.members(), timeout_s=grace_s)
        _kill_all(self._living, first=self._members.first_group, timeout_s=_KILL_S)
        self.process.wait(timeout=_KILL_S)
        self._members.session = None  # nobody is in it any more, so its number may become another program's

    def members(self) -> list[int]:
        """Living processes of the family; empty where there is no `/proc`."""
        return self._members.living()

    def _living(self) -> list[int]:
        return sorted({*self.members(), *([self.process.pid] if self.process.poll() is None else [])})


class ProcessTreeMembers:
    """Who is of a family, as `/proc` tells.

    Parameters
    ----------
    token
        Whose environment carries it is of the family, and so is every process in a session of theirs or below them.
    session
        The session of the family's first process: all in it are of the family, also those that hide their environment.
    known
        Members seen before, each with its id and start (see `_Process`); whoever was seen once stays known.
    """

    def __init__(self, token: str, *, session: int | None, known: Iterable[tuple[int, int]] = ()) -> None:
        self.session = session
        self.known = set(known)
        self._entry = f"{TOKEN}={token}".encode()

    def living(self) -> list[int]:
        """Ids of the living members, without this process."""
        table = _process_table()
        sessions = {self.session} if self.session is not None else set()
        pids = {pid for pid, process in table.items() if (pid, process.started) in self.known}
        for pid, process in table.items():
            with contextlib.suppress(OSError):
                if self._entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    pids.add(pid)
                    sessions.add(process.session)
        pids |= {pid for pid, process in table.items() if process.session in sessions}
        while below := {pid for pid, process in table.items() if process.parent in pids} - pids:
            pids |= below
        pids -= {os.getpid()}
        self.known |= {(pid, table[pid].started) for pid in pids}
        return sorted(pids)

    def first_group(self) -> int | None:
        """The process group of the family's first process, which leads its session, while anybody is in it."""
        if self.session is None:
            return None
        try:
            os.killpg(self.session, 0)
        except (ProcessLookupError, PermissionError):
            return None
        return self.session


@dataclass(frozen=True)
class _Process:
    parent: int
    group: int
    session: int
    started: int
    """In clock ticks since the machine started: with its id it is one process and no later one."""


def _process_table() -> dict[int, _Process]:
    """The processes of this machine by id, without zombies: those are gone but for their parents' knowledge.

    By hand, as `psutil` knows no sessions, tells starts by a clock that may be set, and takes twice as long for this
    table and four times as long for the environments: 130 ms a look against 60 at 150 processes, twenty looks a second.
    """
    table = {}
    for pid in _process_ids():
        with contextlib.suppress(OSError, ValueError, IndexError):
            # proc(5): pid (name) state ppid pgrp session ... starttime; a name may hold blanks and parentheses.
            words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            if words[0] not in "ZX":
                numbers = (int(words[place]) for place in (1, 2, 3, 19))
                table[pid] = _Process(*numbers)
    return table


def _process_ids() -> list[int]:
    """Ids of the processes of this machine; none where there is no `/proc`.

    `Path.glob("[0-9]*/stat")` is no such list: it raises ProcessLookupError if a process ends while it looks.
    """
    with contextlib.suppress(FileNotFoundError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names are enough
    return []


def _kill_all(living: Callable[[], list[int]], *, first: Callable[[], int | None], timeout_s: float) -> None:
    """SIGKILL to processes until none is found twice in a row.

    A whole process group dies at once, so none of its processes can start another one in time. One look alone may miss
    a process whose parent ended while the look went on.
    """
    deadline, quiet = time.monotonic() + timeout_s, 0
    while quiet < 2 and time.monotonic() < deadline:
        pids = living()
        quiet = 0 if pids else quiet + 1
        table = _process_table() if pids else {}
        # A member leads or has joined groups of its own family only: the first of it began a session.
        groups = {table[pid].group for pid in pids if pid in table}
        # Processes that live for less than a look are in no list; a signal to their group reaches whoever is in it.
        groups |= {group for group in (first(),) if group is not None}
        groups -= {os.getpgrp()}
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def _wait(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def executable(name: str) -> Path:
    """A program that was installed with this interpreter.

    Raises
    ------
    FedAgeError
        If it is neither beside the interpreter nor on the path.
    """
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if (folder / name).is_file():
            return folder / name
    program = shutil.which(name)
    if program is None:
        raise FedAgeError(f"{name} is not beside {sys.executable} nor on the path; install fedage in this environment")
    return Path(program)


def flower_environment(flower_home: Path) -> dict[str, str]:
    """The environment of Flower's programs: their home, no telemetry, no installing, helpers found beside us."""
    scripts = [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    return {
        **inherited,
        "PATH": os.pathsep.join([*dict.fromkeys(scripts), os.environ.get("PATH", os.defpath)]),
        "FLWR_HOME": str(flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        "PYTHONUNBUFFERED": "1",
    }


def free_port(host: str = "127.0.0.1", *, near: int = 0) -> int:
    """A port nobody listens on: the first free one from `near` on, or any for 0."""
    for port in [*range(near, min(near + 100, 65536)), 0] if near else [0]:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    raise FedAgeError(f"no free port on {host}")


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def end_with_parent(*, grace_s: float = _ORPHAN_GRACE_S) -> None:
    """End this process, and the family it is the first of, once the process that started it is gone.

    However that one died, kill -9 included: this process gets SIGTERM, and what is left after `grace_s`, SIGKILL. That
    the parent is gone is seen by who the parent is now: a parent that is dead and that nobody has waited for (a zombie)
    still has its number.

    The parent's id comes through the environment: it may be dead before this process is far enough to ask.

    Parameters
    ----------
    grace_s
        Time to end in order.
    """
    parent = int(os.environ.get(PARENT, os.getppid()))

    def watch() -> None:
        while not is_orphaned(parent):
            time.sleep(_PARENT_POLL_S)
        _end_orphans(grace_s)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def is_orphaned(parent: int | None = None) -> bool:
    """Whether the process that started this one, by default the one that the environment names, is gone."""
    return os.getppid() != (int(os.environ.get(PARENT, os.getppid())) if parent is None else parent)


def _end_orphans(grace_s: float) -> None:
    # Another process sees to the rest of the family: this one may be gone before them, or hang.
    if (token := os.environ.get(TOKEN)) and os.getsid(0) == os.getpid():
        members = ProcessTreeMembers(token, session=os.getpid())
        members.living()
        known = [f"{pid}:{started}" for pid, started in members.known]
        code = "import sys; from fedage.deploy.machine.processes import end_family; end_family(*sys.argv[1:])"
        with contextlib.suppress(OSError):
            subprocess.Popen(
                [sys.executable, "-c", code, token, str(os.getpid()), str(grace_s), *known],
                env={name: value for name, value in os.environ.items() if name != TOKEN},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


def end_family(token: str, session: str, grace_s: str, *known: str) -> None:
    """Wait until nothing is left of a family whose supervisor is gone, and after `grace_s` kill the rest.

    A process of its own runs this; it is given texts, as a command line has them. `known` are members, `id:started`.
    """
    pairs = (text.split(":") for text in known)
    members = ProcessTreeMembers(
        token, session=int(session), known=((int(pid), int(started)) for pid, started in pairs)
    )
    deadline = time.monotonic() + float(grace_s)
    while (pids := members.living()) and time.monotonic() < deadline:
        time.sleep(_POLL_S * 4)
    if pids or members.first_group() is not None:
        _kill_all(members.living, first=members.first_group, timeout_s=_KILL_S)
