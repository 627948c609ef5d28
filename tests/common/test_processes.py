"""Families of processes: what was started is gone when stopped, however it was started and whatever it does."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from fedage.common.errors import FedAgeError
from fedage.deploy.machine import processes
from fedage.deploy.machine.processes import ProcessTree, executable, flower_environment, free_port, port_is_free

WAIT = "import time; time.sleep(60)"


def family(tmp_path: Path, code: str) -> ProcessTree:
    return ProcessTree([sys.executable, "-c", code], environment=dict(os.environ), log=tmp_path / "logs" / "log")


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


HIDES = """
import ctypes, time
# proc(5): fields 50 and 51 of stat are where the environment begins and ends.
begin, end = (int(word) for word in open("/proc/self/stat").read().rpartition(")")[2].split()[47:49])
ctypes.memset(begin, 0, end - begin)
print("hidden", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("options", "parent_ends"),
    [("", False), ("", True), ("process_group=0", False), ("process_group=0", True), ("start_new_session=True", False)],
)
def test_who_hides_its_environment_goes_too(options: str, parent_ends: bool, tmp_path: Path) -> None:
    """As Ray's agents do, which write their new names over it. In a session of its own it is found by its parent."""
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {HIDES!r}], {options})"
    started = family(tmp_path, code if parent_ends else f"{code}; {WAIT}")
    until(lambda: "hidden" in started.tail())
    until(lambda: (started.poll() is None) is not parent_ends)
    assert len(started.members()) == (1 if parent_ends else 2)
    left = started.members()
    started.stop(grace_s=0.2)
    assert started.members() == []
    assert not any(lives(pid) for pid in left)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# It ends by itself: a test that is killed may not leave it for ever.
CHAIN = """
import os, time
end = time.monotonic() + 40
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
"""


def any_in(group: int) -> bool:
    """Whether a process of the group lives; zombies that nobody waits for count as gone."""
    for _look in range(200):
        for stat in Path("/proc").iterdir():
            if stat.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (stat / "stat").read_text().rpartition(")")[2].split()
                    if int(words[2]) == group and words[0] not in "ZX":
                        return True
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
    return False


def test_who_is_quicker_than_a_look_goes_too(tmp_path: Path) -> None:
    """Each process of the chain lives for a few milliseconds and starts the next one."""
    started = family(tmp_path, CHAIN)
    until(lambda: started.poll() == 0)
    group = started.process.pid
    started.stop(grace_s=0.1)
    # A look at the list of processes may miss the chain; nobody in its group is nobody.
    until(lambda: not any_in(group))


def test_a_look_outlives_those_who_end_meanwhile(tmp_path: Path) -> None:
    """Also where a process ends between the listing of `/proc` and the look at it, which has its own error (ESRCH)."""
    started = family(tmp_path, "import subprocess\nfor _ in range(20000):\n    subprocess.run(['true'])")
    try:
        until(lambda: len(started.members()) >= 1)
        for _look in range(40):
            assert started.process.pid in started.members()
    finally:
        started.stop(grace_s=0.5)


WATCHES = "from fedage.deploy.machine.processes import end_with_parent; end_with_parent(grace_s=1.0)"
READY = "print('ready', flush=True)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
STUCK = "import signal, threading; signal.signal(15, print); lock = threading.Lock(); lock.acquire()"
ELSEWHERE = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {!r}], start_new_session=True)"


@pytest.mark.processes
@pytest.mark.parametrize("waited_for", [True, False])
@pytest.mark.parametrize(
    ("code", "ready"),
    [
        (f"{WATCHES}; {READY}; {WAIT}", 1),
        (f"{WATCHES}; {STUBBORN}; {READY}; {WAIT}", 1),
        (f"{WATCHES}; {STUCK}; {READY}; lock.acquire()", 1),
        (f"{WATCHES}; {ELSEWHERE.format(f'{STUBBORN}; {READY}; {WAIT}')}; {WAIT}", 1),
        (f"{WATCHES}; {STUBBORN}; {ELSEWHERE.format(HIDES)}; {READY}; {WAIT}", 2),
        (f"{READY}; import time; time.sleep(1); {WATCHES}; {WAIT}", 1),
    ],
    ids=["polite", "stubborn", "stuck", "stubborn child", "hidden child", "still starting"],
)
def test_nothing_outlives_a_killed_supervisor(code: str, ready: int, waited_for: bool, tmp_path: Path) -> None:
    """kill -9 of the supervisor; also where nobody waits for it, so that its number stays taken (a zombie)."""
    log = tmp_path / "log"
    supervisor = f"""
import os, time
from pathlib import Path
from fedage.deploy.machine.processes import ProcessTree
ProcessTree([{sys.executable!r}, "-c", {code!r}], environment=dict(os.environ), log=Path({str(log)!r}))
time.sleep(60)
"""
    started = family(tmp_path, supervisor)
    until(lambda: log.is_file() and log.read_text().replace("hidden", "ready").count("ready") == ready)
    below = [pid for pid in started.members() if pid != started.process.pid]
    assert len(below) == (2 if "Popen" in code else 1)
    os.kill(started.process.pid, signal.SIGKILL)
    if waited_for:
        started.process.wait()
    until(lambda: not any(lives(pid) for pid in below), timeout_s=8)
    started.process.wait()


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
