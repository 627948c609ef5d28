"""How a run is: its sites, its round, the error so far, and how long it will take, from its events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedage.common.errors import FedAgeError
from fedage.common.protocol.messages import KINDS
from fedage.server.record.events import read_events
from fedage.server.record.run_folder import RunFolder, run_folders

_LOOK_S = 1.0
_LAST_ROUNDS = 10
"""By so many last rounds it is told how long one takes."""


@dataclass
class SiteState:
    """One site of a run."""

    patients: int | None = None
    device: str = ""
    doing: str = ""
    trouble: str = ""


@dataclass
class RunState:
    """A run as its events tell it until now."""

    status: str = "has not begun"
    sites: dict[str, SiteState] = field(default_factory=dict)
    place: str = ""
    loss: float | None = None
    mae_years: float | None = None
    round_s: list[float] = field(default_factory=list)
    rounds_left: int = 0

    def left_s(self) -> float | None:
        """About how long the rounds to come will take; None before the first."""
        last = self.round_s[-_LAST_ROUNDS:]
        return self.rounds_left * sum(last) / len(last) if last else None

    def take(self, event: dict[str, Any]) -> None:
        """See one more event."""
        match event["event"]:
            case "started" | "resumed":
                self.status = "goes on"
            case "site":
                known = self._site(event["site"])
                known.patients, known.device = event["patients"], str(event["device"])
            case "asked":
                what = KINDS.get(event["step"], event["step"])
                for known in self.sites.values():  # one that is offline is not asked
                    known.doing = "not asked"
                for site in event["sites"]:
                    self._site(site).doing = f"{what}, round {event['round']}" if event["round"] else what
            case "answer":
                self._site(event["site"]).doing = "answered"
            case "site-trouble" | "site-left-out":
                self._site(event["site"]).trouble = str(event["reason"])
            case "round":
                folds = int(event.get("folds", 1))
                fold = f"fold {int(event['fold']) + 1} of {folds}, " if folds > 1 else ""
                self.place = f"{fold}round {event['number']} of {event['of']}"
                self.loss = event["train_loss"]
                self.round_s.append(float(event["seconds"]))
                later_folds = max(folds - int(event["fold"]) - 1, 0)
                self.rounds_left = int(event["of"]) - int(event["number"]) + later_folds * int(event["of"])
                for site in event["sites"]:
                    self._site(site).trouble = ""
            case "validation":
                self.mae_years = float(event["mae_years"])
            case "exchange":
                self.place = f"exchange {event['number']}: {', '.join(event['steps'])}"
            case "finished":
                why = f": {event['reason']}" if event.get("reason") else ""
                self.status, self.rounds_left = f"{event['status']}{why}", 0

    def _site(self, name: object) -> SiteState:
        return self.sites.setdefault(str(name), SiteState())


def state_of(run: RunFolder) -> RunState:
    """How a run is now."""
    state = RunState()
    for event in read_events(run.events):
        state.take(event)
    if state.status == "goes on" and not run.is_conducted():
        state.status = "its process is gone"
    return state


def shown(run: RunFolder, state: RunState, *, now: datetime) -> RenderableType:
    """A run as a heading and a table of its sites."""
    said = [state.status, state.place]
    if state.loss is not None:
        said.append(f"loss {state.loss:.3f}")
    if state.mae_years is not None:
        said.append(f"validation MAE {state.mae_years:.2f} years")
    if state.round_s:
        last = state.round_s[-_LAST_ROUNDS:]
        said.append(f"{sum(last) / len(last):.1f} s a round")
    if state.status == "goes on" and state.rounds_left and (left := state.left_s()) is not None:
        said.append(f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left")
    table = Table("site", "patients", "computing on", "now", "last trouble", box=None, pad_edge=False)
    for name, site in sorted(state.sites.items()):
        patients = "" if site.patients is None else str(site.patients)
        doing = site.doing if state.status == "goes on" else ""
        table.add_row(*map(Text, (name, patients, site.device, doing, site.trouble)))
    heading = Text(f"{run.campaign}/{run.name} ({now:%H:%M:%S}): {', '.join(filter(None, said))}")
    return Group(heading, table) if state.sites else heading


def show_status(runs: Path, name: str | None, *, console: Console) -> None:
    """Print the named run, or those that go on; where none does, the last one."""
    chosen = [run_named(runs, name)] if name else [run for run in run_folders(runs) if run.is_conducted()]
    for run in chosen or run_folders(runs)[-1:]:
        console.print(shown(run, state_of(run), now=datetime.now()))
    if not chosen and not run_folders(runs):
        console.print(f"no run yet below {runs}")


def watch_run(run: RunFolder, *, console: Console, look_s: float = _LOOK_S) -> str:
    """Draw the run anew every second until it has ended; how it ended."""
    state = state_of(run)
    with Live(shown(run, state, now=datetime.now()), console=console, auto_refresh=False) as live:
        while state.status == "goes on":
            time.sleep(look_s)
            state = state_of(run)
            live.update(shown(run, state, now=datetime.now()), refresh=True)
    return state.status


def run_named(runs: Path, name: str | None) -> RunFolder:
    """The run called `CAMPAIGN/RUN`, or the one that goes on.

    Raises
    ------
    FedAgeError
        If there is no such run, or none goes on, or several do and none is named.
    """
    known = run_folders(runs)
    if name is not None:
        chosen = [run for run in known if f"{run.campaign}/{run.name}" == name]
        if not chosen:
            names = ", ".join(f"{run.campaign}/{run.name}" for run in known) or "none"
            raise FedAgeError(f"there is no run {name} below {runs}; there are: {names}")
        return chosen[0]
    chosen = [run for run in known if run.is_conducted()]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(f"{run.campaign}/{run.name}" for run in chosen)
    if chosen:
        raise FedAgeError(f"several runs go on; name one: {names}")
    ended = ", ".join(f"{run.campaign}/{run.name}" for run in known)
    those = f"name one that ended ({ended})" if known else "start one with fedage campaign run"
    raise FedAgeError(f"no run below {runs} goes on; {those}")


def wait_for_round(run: RunFolder, *, look_s: float = _LOOK_S, tell: Callable[[str], None]) -> None:
    """Wait until the round under way has ended, or the run has."""
    before = len(state_of(run).round_s)
    tell("waiting for the round to end")
    while run.is_conducted() and len(state_of(run).round_s) == before:
        time.sleep(look_s)
