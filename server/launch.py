"""`fedage campaign run`: submit a campaign to the SuperLink and follow its events to the end."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.server.follow import Follower
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
    follower = Follower(events, console=console)
    while (status := follower.look()) is None:
        if time.monotonic() - follower.last_news > _ALIVE_EVERY_S:
            follower.last_news = time.monotonic()
            told = run_status(home, run_id)
            if told.startswith("finished") and follower.look() is None:
                console.print(f"the run ended without a record ({told}); see {home.logs}")
                return "failed"
        time.sleep(0.2)
    return status


def _copy(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in RECORD:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
