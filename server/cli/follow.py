"""Following a run by its events: each line once, in words, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from fedage.common.protocol.messages import KINDS
from fedage.server.record.events import read_events

_WORTH_SAYING_S = 5.0
_REMIND_S = 10.0


class Pending:
    """What a run waits for, told again when it takes long: after 10 s, then each time after twice as long."""

    def __init__(self) -> None:
        self._what = ""
        self._sites: set[str] = set()
        self._since = self._next = time.monotonic()

    def wait_for(self, what: str, *, sites: Collection[str] = ()) -> None:
        """Something else is waited for from now on; empty: nothing that a person could do something about."""
        self._what, self._sites = what, set(sites)
        self._since = time.monotonic()
        self._next = self._since + _REMIND_S

    def take(self, event: dict[str, Any]) -> None:
        """See what is waited for after an event."""
        match event["event"]:
            case "started":
                self.wait_for("waiting for sites to come online")
            case "nodes":
                self.wait_for(f"waiting for sites: {_online(event['online'], event['expected'])}")
            case "asked":
                step = KINDS.get(event["step"], event["step"])
                of = f", round {event['round']}" if event.get("round") else ""
                self.wait_for(f"{step}{of}", sites=event["sites"])
            case "away":
                self.wait_for(f"waiting for {', '.join(event['sites'])} to come back online")
            case "answer":
                self._sites.discard(str(event["site"]))
                if not self._sites:
                    self.wait_for("")
            case "approval-awaited" if event["sites"]:
                self.wait_for(f"waiting for {', '.join(event['sites'])} to approve")
            case "finished":
                self.wait_for("")

    def due(self) -> str:
        """What is waited for, if it is time to say so."""
        now = time.monotonic()
        if not self._what or now < self._next:
            return ""
        self._next = now + (now - self._since)
        waited = f"({now - self._since:.0f} s)"
        if self._sites:
            return f"waiting for {', '.join(sorted(self._sites))}: {self._what} {waited}"
        return f"{self._what} {waited}"


class Follower:
    """Reads an event log that is being written and tells what is new; of a run that is resumed only what comes now."""

    def __init__(self, path: Path, *, console: Console, resumed: bool = False) -> None:
        self._path = path
        self._console = console
        self._seen = len(read_events(path)) if resumed else 0
        self._began: datetime | None = None
        self._rounds = False
        self._pending = Pending()

    def say(self, text: str) -> None:
        """Print a line of the command's own, with the time of day (UTC) as events have it."""
        self._console.print(f"{datetime.now(UTC):%H:%M:%S}  {text}")
        self._pending.wait_for(text if text.startswith("waiting") else "")

    def look(self) -> str | None:
        """Print what has happened since the last look; the run's status once it has ended.

        Where nothing has happened for a while, what is waited for is printed: which site, with what, how long already.
        """
        for event in read_events(self._path)[self._seen :]:
            self._seen += 1
            self._pending.take(event)
            if line := event_text(event):
                self._console.print(line + self._left(event))
            if event["event"] == "finished":
                if event.get("reason"):
                    self._console.print(f"{event['status']}: {event['reason']}", style="red")
                return str(event["status"])
        if waited := self._pending.due():
            self._console.print(f"{datetime.now(UTC):%H:%M:%S}  {waited}")
        return None

    def _left(self, event: dict[str, Any]) -> str:
        """About how long the rounds and folds to come will take, from those done since the sites were there."""
        now = datetime.fromisoformat(str(event["time"]))
        if event["event"] == "site":
            self._began = now
        if event["event"] == "round":
            self._rounds = True
            total = int(event["of"]) * int(event.get("folds", 1))
            done = int(event["number"]) + int(event.get("fold", 0)) * int(event["of"])
        elif event["event"] == "fold" and not self._rounds:
            total, done = int(event["of"]), int(event["number"])
        else:
            return ""
        if self._began is None or done >= total:
            return ""
        seconds = (total - done) * (now - self._began).total_seconds() / max(done, 1)
        if seconds < _WORTH_SAYING_S:
            return ""
        left = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        return f", about {left} of training left"


def _online(online: int, expected: int, *, of: str = "") -> str:
    """How many sites are online of those expected; a campaign that names no sites takes all, and needs a quorum.

    Examples
    --------
    >>> _online(2, 3, of=" sites"), _online(3, 2, of=" sites")
    ('2 of 3 sites online', '3 sites online, at least 2 are needed')
    """
    if online > expected:
        return f"{online} sites online, at least {expected} {'is' if expected == 1 else 'are'} needed"
    return f"{online} of {expected}{of} online"


def _patients(count: int | None, *, hidden: bool = False) -> str:
    if hidden:
        return "how many patients is hidden"
    return "fewer patients than may be told" if count is None else f"{count} patients"


def _loss(loss: float | None) -> str:
    return "loss not told" if loss is None else f"loss {loss:.3f}"


def event_text(event: dict[str, Any]) -> str:
    """One line for a person, empty for events that only machines need."""
    time_of_day = str(event["time"])[11:19]
    match event["event"]:
        case "nodes":
            text = _online(event["online"], event["expected"], of=" sites")
        case "site":
            role = str(event.get("role") or "")
            only = f", {role}" if role.endswith("only") else ""
            brings = _patients(event["patients"], hidden=event.get("hidden", False))
            text = f"{event['site']}: {brings}, computing on {event['device']}{only}"
        case "site-trouble":
            in_round = f" (round {event['round']})" if event.get("round") else ""
            text = f"{event['site']}: {KINDS.get(event['step'], event['step'])}{in_round}: {event['reason']}"
        case "approval-awaited":
            sites = list(event["sites"])
            if not sites:
                return ""
            until = f", until {str(event['until'])[:16].replace('T', ' ')} UTC at most" if event.get("until") else ""
            text = f"waiting for {', '.join(sites)} to approve{until}: fedage site approve {str(event['digest'])[:16]}"
        case "site-left-out":
            text = f"{event['site']} does not take part: {event['reason']}"
        case "away":
            text = f"waiting for {', '.join(event['sites'])} to come back online; the quorum is {event['quorum']} sites"
        case "round":
            of_fold = f"fold {int(event['fold']) + 1}/{event['folds']}, " if int(event.get("folds", 1)) > 1 else ""
            text = (
                f"{of_fold}round {event['number']}/{event['of']}: {_loss(event['train_loss'])}, "
                f"{len(event['sites'])} sites, {event['seconds']:.1f} s"
            )
        case "validation":
            text = f"    after round {event['round']}: validation MAE {event['mae_years']:.2f} years"
        case "stopped-early":
            text = f"no better since round {event['best']} (MAE {event['mae_years']:.2f} years): the rounds end early"
        case "ended-without":
            text = f"{event['why']}; the rounds end with the model of round {event['after']}"
        case "kept-best":
            text = f"the model of round {event['round']} is kept (validation MAE {event['mae_years']:.2f} years)"
        case "fold":
            text = f"fold {event['number']}/{event['of']}: predicted at {len(event['sites'])} sites"
        case "final-model":
            at = f", predicted at {', '.join(event['sites'])}" if event["sites"] else ""
            text = f"one more model made on everybody{at}"
        case "bundle":
            text = f"bundle {str(event['digest'])[:16]}…: predicted at {len(event['sites'])} sites"
        case "exchange":
            text = f"exchange {event['number']}: {', '.join(event['steps'])}"
        case "analysis-restarted":
            text = f"{event['step']} begins again without {', '.join(event['left'])}"
        case "analysed":
            text = f"analyses done in {event['seconds']:.1f} s"
        case _:
            return ""
    return f"{time_of_day}  {text}"
