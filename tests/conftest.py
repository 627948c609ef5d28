"""What every test stands on."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from fedage.common import estimators

if TYPE_CHECKING:
    from tests.client.hospital import Template
    from tests.of_bundles import Exported

# A run of the tests in the background inherits that Ctrl-C is ignored, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Workers of pytest-xdist share the cores: with threads of their own they wait for one another. Before numpy is loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

# Each commit of a site's accounts waits for the disk, tens of thousands of times in all; memory does not let it wait.
_IN_MEMORY, _ROOM_BYTES, _LEFT_BYTES = Path("/dev/shm"), 4_000_000_000, 8_000_000_000
_HAS_ROOM = os.access(_IN_MEMORY, os.W_OK) and shutil.disk_usage(_IN_MEMORY).free > _ROOM_BYTES
if _HAS_ROOM and psutil.virtual_memory().available > _LEFT_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_IN_MEMORY))

_COMPUTING_FILES = 6
"""After one file that starts processes; all of these have begun before two thirds of the others have."""
_STARTED_BY = "FEDAGE_TESTS_STARTED_BY"
_PACKAGE = Path(__file__).parent / "plugins" / "fedage-trial"


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Whatever the tests of this process have started ends with them: it inherits a mark, by which it is found."""
    mark = uuid.uuid4().hex
    os.environ[_STARTED_BY] = mark
    yield
    deadline = time.monotonic() + 30
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == [], "processes that outlive the tests that started them"


def _marked(mark: str) -> list[str]:
    """Commands of the processes that inherited the mark, but for this one and what Python keeps beside it."""
    found = []
    for environ in (entry / "environ" for entry in Path("/proc").glob("[0-9]*")):
        try:
            if int(environ.parent.name) != os.getpid() and f"{_STARTED_BY}={mark}".encode() in environ.read_bytes():
                found.append((environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [command for command in found if "multiprocessing." not in command]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the out-of-tree package of estimators is installed in; they are registered meanwhile."""
    source, target = tmp_path_factory.mktemp("source") / "fedage-trial", tmp_path_factory.mktemp("installed")
    shutil.copytree(_PACKAGE, source)  # a build leaves files behind
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", *install, str(source)], check=True, capture_output=True)
    sys.path.insert(0, str(target))
    _look_again()
    yield target
    sys.path.remove(str(target))
    _look_again()


def _look_again() -> None:
    importlib.invalidate_caches()
    estimators._installed.cache_clear()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """The home of a hospital with images, to be copied and never changed: rendering and indexing take over a second."""
    from tests.client.hospital import Template  # torch and pydicom: only where a test asks for it

    return Template.make(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A simulated run at three hospitals and its bundle, made once; tests copy what they change."""
    from tests.of_bundles import exported

    return exported(tmp_path_factory.mktemp("exported"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that start processes, and so wait more than they compute, between the others, and long ones first.

    pytest-xdist hands files out in this order: workers then wait at different times, and none begins a long file last.
    Of the files that start processes those with few tests take longest.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    by_size = sorted(files.values(), key=len, reverse=True)
    waiting = [file for file in reversed(by_size) if any(item.get_closest_marker("processes") for item in file)]
    computing = [file for file in by_size if file not in waiting]
    ordered = []
    while waiting or computing:
        ordered += waiting[:1] + computing[:_COMPUTING_FILES]
        del waiting[:1], computing[:_COMPUTING_FILES]
    items[:] = [item for file in ordered for item in file]
