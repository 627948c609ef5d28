"""What every test stands on."""

import importlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedage.common import estimators

# A run of the tests in the background inherits that Ctrl-C is ignored, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_PACKAGE = Path(__file__).parent / "plugins" / "fedage-trial"


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
