"""`events.jsonl`: what happened in a run, one line each as it happens; the command line and the report read it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class EventLog:
    """Appends events; every line is on its own and flushed, so a reader may follow while a run goes on."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a", encoding="utf-8")

    def emit(self, event: str, **details: Any) -> None:
        """Write one event with its UTC time. Details must be JSON-able and free of patient data."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._stream.write(json.dumps({"time": now, "event": event, **details}, sort_keys=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """All complete lines of an event log; an unfinished last line (a run cut off) is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
