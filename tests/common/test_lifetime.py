"""Which signals end a program that runs until told to stop."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CODE = """
import sys
from fedage.deploy.machine.lifetime import until_told_to_stop
with until_told_to_stop() as stop:
    print("up", flush=True)
    print("stopped" if stop.wait(float(sys.argv[1])) else "went on", flush=True)
"""


@pytest.mark.parametrize(
    ("wrapper", "number", "expected"),
    [
        ("exec", signal.SIGHUP, "stopped"),
        ("trap '' HUP; exec", signal.SIGHUP, "went on"),
        ("exec nohup", signal.SIGHUP, "went on"),
        ("exec nohup", signal.SIGTERM, "stopped"),
        ("exec", signal.SIGINT, "stopped"),
    ],
)
def test_a_closed_terminal_stops_it_unless_it_was_to_outlive_it(
    wrapper: str, number: signal.Signals, expected: str
) -> None:
    process = subprocess.Popen(
        # Who has to stop has the time that a busy machine takes to send the signal.
        ["/bin/sh", "-c", f'{wrapper} "$0" -c "$1" "$2"', sys.executable, CODE, "60" if expected == "stopped" else "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.read() == f"{expected}\n"
    assert process.returncode == 0
