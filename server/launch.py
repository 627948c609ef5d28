"""`fedage campaign run`: submit a campaign to the SuperLink and follow its events to the end."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.server.events import read_events
from fedage.server.network.home import CoordinatorHome
from fedage.server.network.superlink import run_status, stop_run, submit
from fedage.server.results import read_results
from fedage.server.summary import print_summary

RECORD = ("campaign.toml", "events.jsonl", "model.safetensors", "results.json", "report.html")
_ALIVE_EVERY_S = 20.0
"""The SuperLink is asked whether the run is alive only when nothing has happened for so long."""


def launch(home: CoordinatorHome, campaign: Campaign, *, run: str | None, out: Path | None) -> str:
    """Submit, follow, and copy the record to `out`. Returns the status: finished, stopped or failed.

    Ctrl-C stops the run at the coordinator too; what was recorded until then stays.
    """
    # What sites say is shown as it is, never read as markup.
    console = Console(highlight=False, soft_wrap=True, markup=False)
    run = run or datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = home.run_folder(campaign.campaign.name, run)
    if folder.exists():
        raise FedAgeError(f"{folder} exists: a run named {run!r} was recorded there; give another name with --name")
    console.print(f"campaign {campaign.campaign.name}, digest {campaign.digest}")
    run_id = submit(home, campaign_text=campaign.text, run_name=run)
    try:
        status = _follow(home, run_id, folder / "events.jsonl", console=console)
    except KeyboardInterrupt:
        stop_run(home, run_id)
        console.print("stopped")
        raise
    finally:
        if out is not None:
            _copy(folder, out)
    results = folder / "results.json"
    if results.is_file():
        print_summary(read_results(results), console=console)
        console.print(f"report: {(out or folder) / 'report.html'}")
    return status


def _follow(home: CoordinatorHome, run_id: int, events: Path, *, console: Console) -> str:
    """Print events as they come. A run that ends without saying so (its process died) is failed."""
    seen, checked = 0, time.monotonic()
    while True:
        for event in read_events(events)[seen:]:
            seen, checked = seen + 1, time.monotonic()
            if line := in_words(event):
                console.print(line)
            if event["event"] == "finished":
                if event.get("reason"):
                    console.print(f"{event['status']}: {event['reason']}", style="red")
                return str(event["status"])
        if time.monotonic() - checked > _ALIVE_EVERY_S:
            checked = time.monotonic()
            status = run_status(home, run_id)
            if status.startswith("finished") and len(read_events(events)) == seen:
                console.print(f"the run ended without a record ({status}); see {home.logs}")
                return "failed"
        time.sleep(0.2)


def in_words(event: dict[str, Any]) -> str:
    """One line for a person, empty for events that only machines need."""
    time_of_day = str(event["time"])[11:19]
    match event["event"]:
        case "nodes":
            text = f"{event['online']} of {event['expected']} sites online"
        case "site":
            text = f"{event['site']}: {event['patients']} patients, computing on {event['device']}"
        case "site-trouble":
            text = f"{event['site']}: {event['step']}: {event['reason']}"
        case "site-left-out" | "site-failed":
            text = f"{event.get('site') or event.get('node')}: {event['reason']}"
        case "round":
            text = (
                f"round {event['number']}/{event['of']}: loss {event['train_loss']:.3f}, "
                f"{len(event['sites'])} sites, {event['seconds']:.1f} s"
            )
        case "validation":
            text = f"    after round {event['round']}: validation MAE {event['mae_years']:.2f} years"
        case "exchange":
            text = f"exchange {event['number']}: {', '.join(event['steps'])}"
        case "analysis-restarted":
            text = f"{event['step']} begins again without {', '.join(event['left'])}"
        case "analysed":
            text = f"analyses done in {event['seconds']:.1f} s"
        case _:
            return ""
    return f"{time_of_day}  {text}"


def _copy(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in RECORD:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
