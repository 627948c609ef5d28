"""A store and a folder for its images, both empty."""

from pathlib import Path

import pytest

from fedage.client.cohort.store.store import CohortStore


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return CohortStore.open(tmp_path / "home")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder
