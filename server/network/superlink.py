"""A coordinator's SuperLink as a process: TLS, node authentication, a database, a log, and gone when stopped."""

from __future__ import annotations

import fcntl
import socket
import ssl
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

from fedage.common.errors import FedAgeError
from fedage.common.processes import Family, flower_environment, free_port, port_is_free
from fedage.server.network.control import register_node, run_status, stop_run, submit, write_connection
from fedage.server.network.home import CoordinatorHome

__all__ = ["SuperLink", "SuperLinkFailed", "register_node", "run_status", "stop_run", "submit"]

HOME_VARIABLE = "FEDAGE_COORDINATOR_HOME"
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
    """

    def __init__(self, home: CoordinatorHome, *, port: int | None = None, ready_s: float = 60.0) -> None:
        self._home = home
        self._asked = port
        self._ready_s = ready_s
        self._family: Family | None = None
        self._lock: TextIO | None = None
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
        """Start and wait until it answers.

        Raises
        ------
        SuperLinkFailed
            If the port is busy, the home is in use, or it does not answer in time.
        """
        self._take_home()
        try:
            for attempt in range(_TRIES):
                self.port = self._choose_port()
                write_connection(self._home, port=self.port)
                self._family = self._launch()
                if self._wait_until_ready():
                    return
                # Somebody may have taken the free port between our look and its bind.
                taken = self._asked == 0 and "address already in use" in self._family.tail().lower()
                if not taken or attempt == _TRIES - 1:
                    raise SuperLinkFailed(self._why_not())
                self._family.stop()
        except BaseException:
            self.stop()
            raise

    def check_alive(self) -> None:
        """Raise if it has ended by itself.

        Raises
        ------
        SuperLinkFailed
            With its exit status and the tail of its log.
        """
        if self._family is not None and self._family.poll() is not None:
            raise SuperLinkFailed(self._why_not())

    def stop(self, *, grace_s: float = 10.0) -> None:
        """Stop it and everything it started, running campaigns included; returns when nothing is left."""
        if self._family is not None:
            self._family.stop(grace_s=grace_s)
            self._family = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_home(self) -> None:
        self._home.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (self._home.root / "superlink.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
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

    def _launch(self) -> Family:
        home = self._home
        command: list[str | Path] = [sys.executable, "-m", "fedage.server.network.superlink_main"]
        command += ["--host", home.config.host, "--port", str(self.port)]
        command += ["--ssl-ca-certfile", home.ca_certificate]
        command += ["--ssl-certfile", home.server_certificate, "--ssl-keyfile", home.server_key]
        command += ["--enable-supernode-auth", "--database", home.database]
        command += ["--disable-runtime-dependency-installation"]
        environment = {**flower_environment(home.flower_home), HOME_VARIABLE: str(home.root)}
        return Family(command, environment=environment, log=self.log)

    def _why_not(self) -> str:
        assert self._family is not None
        status = self._family.poll()
        what = f"did not answer within {self._ready_s:g} s" if status is None else f"ended with status {status}"
        return (
            f"the SuperLink {what}; it was to listen on port {self.port}. The end of {self.log}:\n{self._family.tail()}"
        )

    def _wait_until_ready(self) -> bool:
        """Whether it answers TLS with a certificate of ours before the time is over."""
        assert self._family is not None
        trusted = ssl.create_default_context(cafile=str(self._home.ca_certificate))
        deadline = time.monotonic() + self._ready_s
        while time.monotonic() < deadline and self._family.poll() is None:
            try:
                with (
                    socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as plain,
                    trusted.wrap_socket(plain, server_hostname="127.0.0.1"),
                ):
                    return self._family.poll() is None
            except OSError:
                time.sleep(_POLL_S)
        return False
