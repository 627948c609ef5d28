"""Families of processes: what was started is gone when stopped, however it was started and whatever it does."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from fedage.common import processes
from fedage.common.errors import FedAgeError
from fedage.common.processes import Family, executable, flower_environment, free_port, port_is_free

WAIT = "import time; time.sleep(60)"


def family(tmp_path: Path, code: str) -> Family:
    return Family([sys.executable, "-c", code], environment=dict(os.environ), log=tmp_path / "logs" / "log")


def until(condition: object, *, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_polite_program_ends_at_once(tmp_path: Path) -> None:
    started = family(tmp_path, WAIT)
    until(lambda: started.members() == [started.process.pid])
    assert started.poll() is None
    began = time.monotonic()
    started.stop()
    assert time.monotonic() - began < 3
    assert started.poll() == -signal.SIGTERM
    assert started.members() == []


def test_a_stubborn_program_is_killed_after_its_grace(tmp_path: Path) -> None:
    started = family(tmp_path, f"import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); {WAIT}")
    until(lambda: "up" in started.tail())
    started.stop(grace_s=0.3)
    assert started.poll() == -signal.SIGKILL
    assert started.members() == []


def test_descendants_in_other_sessions_go_too(tmp_path: Path) -> None:
    code = f"""
import subprocess, sys
child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAIT!r}], start_new_session=True)"
subprocess.run([sys.executable, "-c", child], start_new_session=True)
print("up", flush=True)
{WAIT}
"""
    started = family(tmp_path, code)
    until(lambda: "up" in started.tail())
    until(lambda: len(started.members()) == 2)
    started.stop(grace_s=0.5)
    assert started.members() == []


def test_orphans_of_a_program_that_died_go_too(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAIT!r}], start_new_session=True)"
    started = family(tmp_path, code)
    until(lambda: started.poll() == 0)
    assert len(started.members()) == 1
    started.stop(grace_s=0.2)
    assert started.members() == []


def test_two_families_do_not_know_each_other(tmp_path: Path) -> None:
    first, second = family(tmp_path / "1", WAIT), family(tmp_path / "2", WAIT)
    first.stop()
    assert second.poll() is None
    assert second.members() == [second.process.pid]
    second.stop()


def test_the_tail_is_of_this_start_only(tmp_path: Path) -> None:
    for word in ("first", "second"):
        started = family(tmp_path, f"print({word!r})")
        started.process.wait()
        assert started.tail() == word
        started.stop()
    assert started.log.read_text() == "first\nsecond\n"


def test_a_log_that_has_grown_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LOG_BYTES", 5)
    for word in ("a long first run", "second"):
        started = family(tmp_path, f"print({word!r})")
        started.process.wait()
        started.stop()
    assert started.log.read_text() == "second\n"
    assert started.log.with_name("log.1").read_text() == "a long first run\n"


def test_a_free_port_is_free_and_near(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not port_is_free("127.0.0.1", port)
        assert port < free_port(near=port) <= port + 100
    assert port_is_free("127.0.0.1", port)
    assert free_port() > 0


def test_a_program_that_was_not_installed_is_said() -> None:
    assert executable("flwr").is_file()
    with pytest.raises(FedAgeError, match="install fedage"):
        executable("no-such-program-of-fedage")


def test_flowers_programs_neither_phone_home_nor_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_CONTROL_API", "1")
    environment = flower_environment(tmp_path)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert "FLWR_INTERNAL_GRPC_CONTROL_API" not in environment
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
