"""`events.jsonl`: what happened in a run, one line each as it happens; the command line and the report read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESUMED = "resumed"
"""The event with which a run goes on that had ended."""


class EventLog:
    """Appends events; every line is on its own and flushed, so a reader may follow while a run goes on.

    Parameters
    ----------
    path
        The file; appended to if it is there.
    after
        Told the name of each event once it is written.
    silent
        Whether what happens now has been written before, by the run that this one goes on from.
    """

    def __init__(
        self,
        path: Path,
        *,
        after: Callable[[str], None] | None = None,
        silent: Callable[[], bool] = lambda: False,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        self._stream = path.open("a", encoding="utf-8")
        self._after = after
        self._silent = silent
        if torn:  # whoever wrote before was cut off in a line; the next one must not be glued to it
            self._stream.write("\n")

    def emit(self, event: str, **details: Any) -> None:
        """Write one event with its UTC time. Details must be JSON-able and free of patient data."""
        if self._silent():
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._stream.write(json.dumps({"time": now, "event": event, **details}, sort_keys=False) + "\n")
        self._stream.flush()
        if self._after is not None:
            self._after(event)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """All complete lines of an event log; a line that was cut off (by a full disk, by kill -9) is left out.

    An end that the run was resumed after is none.
    """
    if not path.is_file():
        return []
    events: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event and "time" in event:
            if event["event"] == RESUMED:
                events = [earlier for earlier in events if earlier["event"] != "finished"]
            events.append(event)
    return events
