"""`fedage simulate` in this process: everything but Flower's engine, whose processes have tests of their own."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from fedage.client.inbox.simulated import SimulatedSite
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.deploy.machine.simulation import SimulationJob
from fedage.deploy.simulate import virtual_sites
from fedage.server.campaign.bundles import put_bundle
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import Results, read_results
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid


@dataclass(frozen=True)
class Simulated:
    results: Results
    said: str
    folder: Path
    job: SimulationJob


def simulated(
    folder: Path, text: str, *, data: Path, site_column: str | None = None, bundle: Path | None = None
) -> Simulated:
    out, work = folder / "out", folder / "work"
    out.mkdir(parents=True)
    work.mkdir()
    file = out / "campaign.toml"
    file.write_text(text, encoding="utf-8")
    campaign = load_campaign(file)
    put_bundle(campaign, bundle, folder=out)
    said = io.StringIO()
    console = Console(file=said, soft_wrap=True, markup=False, highlight=False)
    sites = tuple(virtual_sites(campaign, data, site_column=site_column, work=work, console=console))
    job = SimulationJob(campaign=file, run="r1", folder=out, sites=sites)
    grid = InProcessGrid([SimulatedSite(job, site) for site in sites])
    place = Place(
        folder=out, run="r1", environment="simulation", guard=campaign.simulation.guard, sites_there=len(sites)
    )
    conduct(PollingGrid(grid, poll_s=0.001), campaign, place, key=None, admitted=None)
    return Simulated(read_results(out / "results.json"), said.getvalue(), out, job)


def as_csv(frame: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path
