"""The folder that a command writes to: a new one, so that nothing of another run is taken for this one's."""

from __future__ import annotations

from pathlib import Path

from fedage.common.errors import FedAgeError


def require_empty(folder: Path) -> None:
    """Refuse a folder in which there is something, or a file. Raises `FedAgeError`."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FedAgeError(f"{folder} is not an empty folder; give another with --out, or remove it")
