"""A coordinator's SuperLink and its executor as processes: started again when they die, gone when stopped.

The executor (`flower-superexec`), which starts a process for each run, is no child of the SuperLink: a run outlives a
SuperLink that is killed and started again on its database. Only who knows a secret of this start may take runs.
"""

from __future__ import annotations

import secrets
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from filelock import BaseFileLock, FileLock, Timeout

from fedage.common.errors import FedAgeError
from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.processes import ProcessTree, flower_environment, free_port, port_is_free
from fedage.server.superlink.admission import register_node
from fedage.server.superlink.control import (
    run_status,
    stop_run,
    submit,
    unfinished_runs,
    write_connection,
)
from fedage.server.superlink.home import CoordinatorHome
from fedage.server.superlink.restarted import Restarted

__all__ = ["SuperLink", "SuperLinkFailed", "register_node", "run_status", "stop_run", "submit"]

HOME_VARIABLE = "FEDAGE_COORDINATOR_HOME"
_FEW_ARENAS = {"MALLOC_ARENA_MAX": "2"}
"""Else the allocator keeps a model's memory for each thread that has had one."""
_POLL_S = 0.1
_TRIES = 5


class SuperLinkFailed(FedAgeError):
    """The SuperLink did not start, or ended by itself. The message ends with the tail of its log."""


class SuperLink:
    """A running SuperLink; a context manager that starts and stops it.

    Parameters
    ----------
    home
        The coordinator.
    port
        Another port than the configured one; 0 takes the first free one from the configured one on.
    ready_s
        How long the start may take.
    tell
        Told in a sentence when one of the processes ended and when it is there again.
    """

    def __init__(
        self,
        home: CoordinatorHome,
        *,
        port: int | None = None,
        ready_s: float = 60.0,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._home = home
        self._asked = port
        self._ready_s = ready_s
        self._tell = tell or (lambda _text: None)
        self._link = Restarted("SuperLink", self._launch, tell=self._tell)
        self._executor = Restarted("executor of runs (flower-superexec)", self._launch_executor, tell=self._tell)
        self._lock: BaseFileLock | None = None
        self._answers = False
        self._away_since = 0.0
        self.port = 0

    @property
    def address(self) -> str:
        """`host:port` to tell sites."""
        return f"{self._home.config.hosts[0]}:{self.port}"

    @property
    def log(self) -> Path:
        """Its log file."""
        return self._home.logs / "superlink.log"

    def __enter__(self) -> SuperLink:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it answers. Runs that an earlier start left unfinished are ended, not taken up.

        Raises
        ------
        SuperLinkFailed
            If the port is busy, the home is in use, or it does not answer in time.
        """
        self._take_home()
        try:
            self._make_secret()
            for attempt in range(_TRIES):
                self.port = self._choose_port()
                write_connection(self._home, port=self.port)
                family = self._link.start()
                if self._wait_until_ready(family):
                    break
                # Somebody may have taken the free port between our look and its bind.
                taken = self._asked == 0 and "address already in use" in family.tail().lower()
                if not taken or attempt == _TRIES - 1:
                    raise SuperLinkFailed(self._why_not(family))
                self._link.stop()
            self._answers = True
            # Before there is an executor that could begin one: their processes ended with the earlier start.
            for run in unfinished_runs(self._home):
                stop_run(self._home, run)
            self._executor.start()
        except BaseException:
            self.stop()
            raise

    def look(self) -> None:
        """Start again what has ended by itself. To be called every second or so."""
        if self._link.ensure():
            self._answers = False
        link = self._link.family
        if self._answers and (link is None or link.poll() is not None):
            self._answers, self._away_since = False, time.monotonic()
        if not self._answers and link is not None and link.poll() is None and self._is_ready():
            self._answers = True
            self._tell(f"the SuperLink answers again, after {time.monotonic() - self._away_since:.0f} s")
        self._executor.ensure()

    def stop(self, *, grace_s: float = 10.0) -> None:
        """Stop it and everything it started, running campaigns included; returns when nothing is left."""
        # The executor first: a run that is stopped tells the SuperLink so.
        self._executor.stop(grace_s=grace_s)
        self._link.stop(grace_s=grace_s)
        self._secret.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def _secret(self) -> Path:
        return self._home.root / "superexec.secret"

    def _make_secret(self) -> None:
        write_atomically(self._secret, secrets.token_bytes(32))

    def _take_home(self) -> None:
        self._home.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(self._home.root / "superlink.lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise SuperLinkFailed(
                f"a SuperLink is running from {self._home.root} already; stop it, or use another home"
            ) from None
        self._lock = lock

    def _choose_port(self) -> int:
        host, port = self._home.config.host, self._asked
        if port == 0:
            return free_port(host, near=self._home.config.port)
        port = port or self._home.config.port
        if not port_is_free(host, port):
            raise SuperLinkFailed(
                f"port {port} on {host} is in use by another program; stop that one, set port in "
                f"{self._home.root / 'coordinator.toml'}, or start with --port 0 to take a free one"
            )
        return port

    def _launch(self) -> ProcessTree:
        home = self._home
        command: list[str | Path] = [sys.executable, "-m", "fedage.server.superlink.superlink_main"]
        command += ["--host", home.config.host, "--port", str(self.port)]
        command += ["--ssl-ca-certfile", home.ca_certificate]
        command += ["--ssl-certfile", home.server_certificate, "--ssl-keyfile", home.server_key]
        command += ["--enable-supernode-auth", "--database", home.database]
        command += ["--disable-runtime-dependency-installation"]
        command += ["--isolation", "process", "--superexec-auth-secret-file", self._secret]
        environment = {**_FEW_ARENAS, **flower_environment(home.flower_home)}
        return ProcessTree(command, environment=environment, log=self.log)

    def _launch_executor(self) -> ProcessTree:
        home = self._home
        command: list[str | Path] = [sys.executable, "-m", "fedage.server.superlink.superexec_main"]
        command += ["--runtime-api-address", f"127.0.0.1:{self.port}"]
        command += ["--root-certificates", home.ca_certificate, "--superexec-auth-secret-file", self._secret]
        environment = {**_FEW_ARENAS, **flower_environment(home.flower_home), HOME_VARIABLE: str(home.root)}
        return ProcessTree(command, environment=environment, log=home.logs / "superexec.log")

    def _why_not(self, family: ProcessTree) -> str:
        status = family.poll()
        what = f"did not answer within {self._ready_s:g} s" if status is None else f"ended with status {status}"
        return f"the SuperLink {what}; it was to listen on port {self.port}. The end of {self.log}:\n{family.tail()}"

    def _wait_until_ready(self, family: ProcessTree) -> bool:
        """Whether it answers TLS with a certificate of ours before the time is over."""
        deadline = time.monotonic() + self._ready_s
        while time.monotonic() < deadline and family.poll() is None:
            if self._is_ready():
                return family.poll() is None
            time.sleep(_POLL_S)
        return False

    def _is_ready(self) -> bool:
        """Whether it answers TLS now, with a certificate of ours."""
        trusted = ssl.create_default_context(cafile=str(self._home.ca_certificate))
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as plain,
                trusted.wrap_socket(plain, server_hostname="127.0.0.1"),
            ):
                return True
        except OSError:
            return False
