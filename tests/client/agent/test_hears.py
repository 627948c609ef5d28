"""Whether a SuperNode's executor lives, by what the machine's processes were called with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from fedage.client.supervisor.watch import hears

PARENT = 4_000_001  # beyond any process of this machine


@pytest.fixture(params=[["flower-superexec", "--parent-pid", str(PARENT)]])
def executor(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is called with these words and waits for its input to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()", *request.param], stdin=subprocess.PIPE
    )
    yield process
    process.communicate()


def node(pid: int) -> Any:
    return SimpleNamespace(process=SimpleNamespace(pid=pid))


def test_the_executor_of_a_node_is_heard_while_it_lives(executor: subprocess.Popen[bytes]) -> None:
    assert hears(node(PARENT))
    assert not hears(node(PARENT + 1))
    executor.communicate()
    assert not hears(node(PARENT))


@pytest.mark.parametrize(
    "executor",
    [
        ["flower-supernode", "--parent-pid", str(PARENT)],
        ["flower-superexec", "--parent-pid", f"{PARENT}0"],
        ["flower-superexec", str(PARENT), "--parent-pid"],
        ["flower-superexec"],
    ],
    indirect=True,
)
def test_another_program_or_another_nodes_executor_is_not(executor: subprocess.Popen[bytes]) -> None:
    assert executor.poll() is None
    assert not hears(node(PARENT))


@pytest.mark.parametrize("hidden", [True, False], ids=["commands hidden", "no processes seen"])
def test_where_commands_may_be_hidden_a_node_is_not_taken_for_deaf(
    hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "LINUX", False)
    processes = [SimpleNamespace(info={"cmdline": None})] if hidden else []
    monkeypatch.setattr(psutil, "process_iter", lambda _attributes: processes)
    assert hears(node(PARENT))
