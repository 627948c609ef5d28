"""How a site's processes are doing, in a file that `fedage site status` reads."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import psutil

from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.bounded import MAX_STATE_BYTES, FileTooLarge, read_json

STATE_FILE = "state.json"


class StateFile:
    """Written by whoever supervises; read by anybody who may.

    Parameters
    ----------
    file
        The file, replaced as a whole at every change.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._parts: dict[str, dict[str, Any]] = {}

    def put(self, part: str, state: str, *, started: bool = False) -> None:
        """Set a part's state in words; the time of a change, and how often it was started, are kept with it."""
        before = self._parts.get(part, {"state": "", "since": 0.0, "starts": 0})
        since = before["since"] if before["state"] == state and not started else time.time()
        self._parts[part] = {"state": state, "since": since, "starts": before["starts"] + started}
        content = json.dumps({"pid": os.getpid(), "parts": self._parts}).encode()
        write_atomically(self._file, content, mode=0o644, durable=False)

    def remove(self) -> None:
        """Nothing is supervised any more."""
        self._file.unlink(missing_ok=True)


def read_state(file: Path) -> dict[str, dict[str, Any]]:
    """The parts by name; empty if nothing is supervised, or the supervisor was killed.

    Raises
    ------
    PermissionError
        If this user may not read it.
    """
    try:
        stored = read_json(file, most_bytes=MAX_STATE_BYTES)
        pid = int(stored["pid"])
        parts: dict[str, dict[str, Any]] = stored["parts"]
    except (FileNotFoundError, FileTooLarge, ValueError, KeyError, TypeError):
        return {}
    return parts if psutil.pid_exists(pid) else {}
