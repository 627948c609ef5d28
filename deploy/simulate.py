"""`fedage simulate`: the same ServerApp and ClientApp in Flower's simulation engine, one virtual node a site."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from fedage.client.cohort.index import index_folder
from fedage.client.cohort.store import CohortStore
from fedage.client.table_store import write_site_table
from fedage.common.campaign import Campaign, load_campaign
from fedage.common.errors import FedAgeError
from fedage.common.simulation import SimulatedSiteJob, SimulationJob
from fedage.server.follow import Follower
from fedage.server.results import read_results
from fedage.server.summary import print_summary

WORK = "work"


def simulate(campaign_file: Path, *, data: Path, site_column: str | None, out: Path | None) -> int:
    """Simulate a campaign on a table or a folder and leave its record in `out`. Returns an exit status.

    Raises
    ------
    FedAgeError
        If the campaign file, the data or the output folder cannot be used.
    """
    campaign = load_campaign(campaign_file)
    folder = _output_folder(out, campaign)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"campaign {campaign.campaign.name}, digest {campaign.digest}")
    if not campaign.simulation.guard:
        console.print("disclosure control is off in this simulation: figures may rest on single patients")
    work = folder / WORK
    sites = _sites(campaign, data, site_column=site_column, work=work, console=console)
    job = SimulationJob(
        campaign=(folder / "campaign.toml"),
        run=datetime.now(UTC).strftime("%Y%m%d-%H%M%S"),
        folder=folder,
        threads=1,
        sites=tuple(sites),
    )
    job.campaign.write_bytes(campaign_file.read_bytes())
    status = _run(job, console=console)
    results = folder / "results.json"
    if results.is_file():
        print_summary(read_results(results), console=console)
        console.print(f"report: {folder / 'report.html'}")
    shutil.rmtree(work, ignore_errors=True)
    return 0 if status == "finished" else 1


def _output_folder(out: Path | None, campaign: Campaign) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = (out or Path("runs") / campaign.campaign.name / stamp).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FedAgeError(f"{folder} is not an empty folder; give another with --out, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _sites(
    campaign: Campaign, data: Path, *, site_column: str | None, work: Path, console: Console
) -> list[SimulatedSiteJob]:
    """The virtual hospitals, each with a home on disk."""
    if not data.exists():
        raise FedAgeError(f"{data} is not there; give a table, or a folder with one sub-folder a site")
    if campaign.table is None:
        return _image_sites(data, work=work, console=console)
    # Imported here: pandas takes a moment.
    from fedage.client.table.sites import read_site_tables

    read = read_site_tables(data, campaign, site_column=site_column)
    for line in read.said:
        console.print(line)
    jobs = []
    for name, table in sorted(read.sites.items()):
        home = work / name
        write_site_table(home, table)
        jobs.append(SimulatedSiteJob(name=name, kind="table", home=home))
    return jobs


def _image_sites(data: Path, *, work: Path, console: Console) -> list[SimulatedSiteJob]:
    folders = sorted(path for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
    if not folders:
        raise FedAgeError(f"{data} has no sub-folders; a campaign on images needs one a site")
    jobs = []
    for folder in folders:
        home = work / folder.name
        home.mkdir(parents=True)
        outcomes = folder / "outcomes.csv"
        with CohortStore.open(home) as store:
            report = index_folder(store, folder, outcomes_csv=outcomes if outcomes.is_file() else None)
        rejected = ", ".join(f"{count} {code}" for code, count in report.rejected.items())
        console.print(f"{folder.name}: {report.patients} patients" + (f"; set aside: {rejected}" if rejected else ""))
        jobs.append(SimulatedSiteJob(name=folder.name, kind="images", home=home))
    return jobs


def _run(job: SimulationJob, *, console: Console) -> str:
    """Run the engine in a process of its own and follow its events. Returns how the run ended."""
    job_file = job.folder / WORK / "job.json"
    job.write(job_file)
    log = job.folder / WORK / "simulation.log"
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "fedage.deploy.simulation_main"],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    follower = Follower(job.folder / "events.jsonl", console=console)
    try:
        while (status := follower.look()) is None and process.poll() is None:
            time.sleep(0.2)
        process.wait()
        status = status or follower.look()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if status is None:
        kept = job.folder / "simulation.log"
        shutil.copyfile(log, kept)
        raise FedAgeError(f"the simulation ended without a record; see {kept}")
    return status
