"""What happened in a run, from its event log: the turns of the story, not every message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedage.common.presentation.cells import Table, words

_QUIET = {"answer", "exchange", "nodes"}
_LONGEST = 200


def timeline(events: Sequence[Mapping[str, Any]] | None) -> Table:
    """Time, event and details of the events worth reading."""
    if events is None:
        return Table("events", why_empty="The event log was not given to this report.")
    shown = [event for event in events if event.get("event") not in _QUIET]
    rows = tuple((words(_clock(event)), words(str(event.get("event", ""))), words(_details(event))) for event in shown)
    why = "The event log is empty." if not events else "The event log holds no turn of the story."
    note = f"{len(events) - len(shown)} single answers and exchanges are left out." if len(shown) < len(events) else ""
    return Table("events", ("UTC", "event", "details"), rows, why_empty=why, note=note)


def _clock(event: Mapping[str, Any]) -> str:
    return str(event.get("time", ""))[:19].replace("T", " ")


def _details(event: Mapping[str, Any]) -> str:
    parts = [f"{key} {_short(value)}" for key, value in event.items() if key not in ("time", "event") and value != ""]
    return ", ".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(_short(item) for item in value)
    text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
