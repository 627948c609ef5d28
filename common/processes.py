"""Other programs: in a process group of their own, with a log, and gone with all their descendants when stopped.

Flower starts helpers in sessions of their own, so a process group is not the whole family. Every descendant inherits an
environment variable with a token, though, and where there is a `/proc` that finds the rest of them.
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedage.common.errors import FedAgeError

TOKEN = "FEDAGE_FAMILY"
PARENT = "FEDAGE_PARENT"
_POLL_S = 0.05
_PARENT_POLL_S = 1.0
_KILL_S = 5.0
_TAIL_LINES = 15
_LOG_BYTES = 20_000_000


class Family:
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
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _wait(lambda: self.process.poll() is not None and not self.members(), timeout_s=grace_s)
        deadline = time.monotonic() + _KILL_S
        while (self.process.poll() is None or self.members()) and time.monotonic() < deadline:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            for pid in self.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_S)
        self.process.wait(timeout=_KILL_S)

    def members(self) -> list[int]:
        """Living processes of the family; empty where there is no `/proc`."""
        return family_members(self._token)


def family_members(token: str) -> list[int]:
    """Ids of living processes whose environment carries the token."""
    entry = f"{TOKEN}={token}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            # A zombie's environment is empty: it is gone but for its parent's knowledge.
            if entry in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found


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
    found = shutil.which(name)
    if found is None:
        raise FedAgeError(f"{name} is not beside {sys.executable} nor on the path; install fedage in this environment")
    return Path(found)


def flower_environment(flower_home: Path) -> dict[str, str]:
    """The environment of Flower's programs: their home, no telemetry, no installing, helpers found beside us."""
    scripts = [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    return {
        **kept,
        "PATH": os.pathsep.join([*dict.fromkeys(scripts), os.environ.get("PATH", os.defpath)]),
        "FLWR_HOME": str(flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
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


def end_with_parent() -> None:
    """Send this process SIGTERM once the one that started it is gone, however that one died.

    The parent's id comes through the environment: it may be dead before this process is far enough to ask.
    """
    parent = int(os.environ.get(PARENT, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()
