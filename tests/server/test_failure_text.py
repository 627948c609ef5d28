"""Failures are told by the kind of exception that a site names: each kind has to be one that there is."""

import builtins
from pathlib import Path

import pytest

from fedage.server.sites import failure_text

ROOT = Path(__file__).parents[2]
OF_LIBRARIES = {"OutOfMemoryError"}


@pytest.mark.parametrize("kind", sorted(failure_text._WORDS.keys() - OF_LIBRARIES))
def test_every_kind_of_failure_with_words_exists(kind: str) -> None:
    ours = any(kind in file.read_text(encoding="utf-8") for file in (ROOT / "client").rglob("*.py"))
    assert ours or hasattr(builtins, kind), f"no exception of a site is called {kind}"
