"""Installs the out-of-tree package of estimators, as a hospital would, beside the installed FedAge."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedage.common import estimators

PACKAGE = Path(__file__).parent / "fedage-trial"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the package is installed in; its estimators are registered while tests run."""
    source, target = tmp_path_factory.mktemp("source") / "fedage-trial", tmp_path_factory.mktemp("installed")
    shutil.copytree(PACKAGE, source)  # a build leaves files behind
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
