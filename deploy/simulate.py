"""`fedage simulate`: the same ServerApp and ClientApp, in one process or in Flower's engine, a node a site."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Literal

from rich.console import Console

from fedage.client.cohort.ages import OLDEST_YEARS
from fedage.client.cohort.indexing.bids import index_bids, is_bids
from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.selection.image_units import unit_messages
from fedage.client.cohort.store.query import Selection, select
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.table.site_names import site_names
from fedage.client.cohort.table.site_table import write_site_table
from fedage.client.inbox.simulated import PATIENTS_DIGEST
from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.configure import agreed_features
from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.deploy.machine.given_weights import keep_given
from fedage.deploy.machine.lifetime import hang_up
from fedage.deploy.machine.out_folder import require_empty
from fedage.deploy.machine.processes import ProcessTree, flower_environment
from fedage.deploy.machine.simulation import ENGINE_ENDED, VARIABLE, Share, SimulatedSiteJob, SimulationJob, share_of
from fedage.deploy.simulation_main import RECORD_S, SCRATCH
from fedage.server.campaign.bundles import put_bundle
from fedage.server.campaign.recover import recover
from fedage.server.cli.follow import Follower
from fedage.server.cli.summary import print_summary
from fedage.server.record.events import read_events
from fedage.server.record.results import Results, read_results
from fedage.server.record.run_folder import REPORT, RESULTS, RunFolder

WORK = "work"
PARTS = "patients.json"
_ENGINES: dict[str, Literal["process", "flower"]] = {"table": "process", "images": "flower"}
"""Small tables take longer to be sent between an engine's processes than to be summed."""
_LOG = "simulation.log"
_POLL_S = 0.2
_STOP_S = 8.0
_STOPPED = "stopped by the person who ran it"
NO_GUARD = "disclosure control is off in this simulation: figures may rest on single patients"


def simulate(
    campaign: Campaign | Path | str,
    *,
    data: Path | str,
    site_column: str | None = None,
    out: Path | str | None = None,
    bundle: Path | str | None = None,
    check_pooled: bool = False,
    weights: Path | None = None,
    console: Console | None = None,
) -> Results:
    """Simulate a campaign on a table or a folder, one virtual site a site of the data; the record stays in a folder.

    Parameters
    ----------
    campaign
        A campaign, or the path of its file.
    data
        One table (CSV, TSV, Parquet) with a column that names the site, or a folder with one sub-folder a site.
    site_column
        The table's column that names the site.
    out
        Empty folder for the record; `runs/NAME/TIME` if not given.
    bundle
        The bundle that the campaign validates or begins with, where its file names one.
    check_pooled
        Fit the same models on one table of all patients too, and record how far apart the figures are.
    weights
        File of the weights that the campaign begins with, if it names some.
    console
        Where progress and the summary are printed; nowhere if not given.

    Returns
    -------
    Results
        The record; `results.run.status` tells whether the run finished.

    Raises
    ------
    FedAgeError
        If the campaign file, the data or the output folder cannot be used.
    """
    campaign = campaign if isinstance(campaign, Campaign) else load_campaign(campaign)
    keep_given(campaign, weights)
    console = console or Console(quiet=True)
    console.print(f"campaign {campaign.campaign.name}, digest {campaign.digest}")
    if not campaign.simulation.guard:
        console.print(NO_GUARD)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = (Path(out) if out is not None else Path("runs") / campaign.campaign.name / stamp).absolute()
    if check_pooled and (campaign.bundle_needed or campaign.validation.sites):
        raise FedAgeError("--check-pooled compares a campaign all of whose sites train; leave it out")
    with _terminable(), _work_in(folder) as work:
        put_bundle(campaign, Path(bundle) if bundle is not None else None, folder=folder)
        sites = tuple(virtual_sites(campaign, Path(data), site_column=site_column, work=work, console=console))
        job = SimulationJob(
            campaign=folder / "campaign.toml",
            run=stamp,
            folder=folder,
            stop_file=work / "stop",
            threads=1,
            share=_share(sites, console=console),
            sites=sites,
            engine=_ENGINES[sites[0].kind],
        )
        job.campaign.write_bytes(campaign.text.encode("utf-8"))
        keep_given(campaign, weights, folder=folder)
        try:
            _run(job, work=work, console=console)
            _keep_parts(job)
        except KeyboardInterrupt:
            with _undisturbed():
                # An engine that is stopped while it starts has no ServerApp yet that could write a record.
                recover(
                    RunFolder(folder),
                    reason=_STOPPED,
                    status="stopped",
                    environment="simulation",
                )
            raise
        if check_pooled:
            # Imported here: lifelines takes a moment.
            from fedage.deploy.pooled.check import record_check

            console.print("fitting the same models on one table of all patients")
            record_check(job, campaign)
    results = read_results(folder / "results.json")
    print_summary(results, console=console)
    if not campaign.simulation.guard:
        console.print(NO_GUARD)
    console.print(f"report: {folder / 'report.html'}")
    return results


def _keep_parts(job: SimulationJob) -> None:
    """By site a digest of its patients and the parts they are in, for runs that are to be of the same ones."""
    files = {site.name: site.home / PATIENTS_DIGEST for site in job.sites}
    told = {name: file.read_text(encoding="utf-8") for name, file in files.items() if file.is_file()}
    write_atomically(job.folder / PARTS, json.dumps(told, indent=1, sort_keys=True).encode(), mode=0o644)


@contextlib.contextmanager
def _work_in(folder: Path) -> Iterator[Path]:
    """A folder for what only the run needs, gone afterwards; the output folder too if nothing came into it."""
    require_empty(folder)
    made = not folder.exists()
    work = folder / WORK
    try:
        work.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise FedAgeError(f"{folder} cannot be made ({error.strerror}); give another folder with --out") from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does, so that what it has started ends with it.

    Only a process's main thread takes signals; in another thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, *hang_up())}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no second Ctrl-C cut short the stopping of what was started; it takes seconds."""
    main_thread = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if main_thread else ()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def virtual_sites(
    campaign: Campaign, data: Path, *, site_column: str | None, work: Path, console: Console
) -> list[SimulatedSiteJob]:
    """The virtual hospitals, each with a home on disk.

    Raises
    ------
    FedAgeError
        If the data cannot be used; in one line, with the mend.
    """
    if not data.exists():
        raise FedAgeError(f"{data} is not there; give a table, or a folder with one sub-folder a site")
    if campaign.table is None:
        return _image_sites(data, campaign, site_column=site_column, work=work, console=console)
    # Imported here: pandas takes a moment.
    from fedage.client.cohort.table.sites import read_site_tables

    read = read_site_tables(data, campaign, site_column=site_column)
    for line in read.messages:
        console.print(line)
    # Features that are not there, or not everywhere, are found now, not after the engine has started.
    agreed_features(campaign, {name: table.features for name, table in read.sites.items()})
    jobs = []
    for name, table in sorted(read.sites.items()):
        home = work / name
        write_site_table(home, table)
        jobs.append(SimulatedSiteJob(name=name, kind="table", home=home))
    return jobs


def _share(sites: tuple[SimulatedSiteJob, ...], *, console: Console) -> Share:
    """What each site gets of this machine, said in a line. Tables are too small for a GPU to be worth its start."""
    if sites[0].kind == "table":
        console.print(f"{len(sites)} sites, one after another, computing on the CPU")
        return Share()
    # Imported here: it takes seconds.
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    share = share_of(len(sites), cpus=os.cpu_count() or 1, gpus=gpus)
    where = f"{gpus} x {torch.cuda.get_device_name(0)}" if gpus else "the CPU"
    console.print(f"{len(sites)} sites, {share.at_a_time} at a time, computing on {where}; starting the engine")
    return share


def _image_sites(
    data: Path, campaign: Campaign, *, site_column: str | None, work: Path, console: Console
) -> list[SimulatedSiteJob]:
    if data.is_file():
        raise FedAgeError(
            f"{data} is a file, and the campaign file has no [table], so its data are images; give a folder with one "
            "sub-folder a site, or add [table] to say which columns are which"
        )
    if site_column is not None:
        raise FedAgeError("--site-column is for tables, and the campaign file has no [table]; leave it out, or add it")
    folders = sorted(path for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise FedAgeError(f"{data} has no sub-folders; a campaign on images needs one a site")
    names = site_names(folder.name for folder in folders)
    jobs = []
    selections: dict[str, Selection] = {}
    for folder in folders:
        name = names[folder.name]
        if name != folder.name:
            console.print(f"site {folder.name!r} is called {name} in the results")
        home = work / name
        home.mkdir(parents=True)
        outcomes = folder / "outcomes.csv"
        with CohortStore.open(home) as store:
            if is_bids(folder):
                report = index_bids(store, folder)
            else:
                report = index_folder(store, folder, outcomes_csv=outcomes if outcomes.is_file() else None)
            selections[name] = select(store, modalities=(), age_min_years=0.0, age_max_years=OLDEST_YEARS)
        rejected = ", ".join(f"{count} {code}" for code, count in report.rejected.items())
        console.print(f"{name}: {report.patients} patients" + (f"; set aside: {rejected}" if rejected else ""))
        for line in report.messages:
            console.print(f"{name}: outcomes: {line}", markup=False)
        if report.patients == 0:
            console.print(f"{name}: no image of any patient; the site is left out")
            continue
        jobs.append(SimulatedSiteJob(name=name, kind="images", home=home))
    if not jobs:
        raise FedAgeError(f"{data}: no sub-folder has an image that can be used; give folders with DICOM files")
    for line in unit_messages(selections, campaign):
        console.print(line, markup=False)
    return jobs


def _run(job: SimulationJob, *, work: Path, console: Console) -> str:
    """Run the engine in processes of its own and follow its events. Returns how the run ended.

    On a busy machine the engine sometimes does not start in the time it gives itself; it is started once more then.
    """
    job_file, events = work / "job.json", job.folder / "events.jsonl"
    job.write(job_file)
    status = _attempt(job, job_file, events=events, work=work, console=console)
    if _by_itself(job, status) and not any(event["event"] == "site" for event in read_events(events)):
        console.print("the simulation engine did not start; starting it once more")
        _forget(job, events=events)
        status = _attempt(job, job_file, events=events, work=work, console=console)
    recorded = status is not None and (job.folder / "results.json").is_file()
    if recorded and status != "failed":
        return str(status)
    kept = job.folder / "simulation.log"
    shutil.copyfile(work / _LOG, kept)
    if recorded:
        console.print(f"what the engine wrote: {kept}")
        return str(status)
    run = RunFolder(job.folder)
    if not (run.progress.is_file() or (job.folder / "results.json").is_file()):
        raise FedAgeError(f"the simulation ended without a record; see {kept}")
    recover(run, reason=f"the engine of the simulation was killed or ended by itself; see {kept}")
    console.print(f"failed: the engine ended by itself; what it had found until then is in the record (see {kept})")
    return "failed"


def _by_itself(job: SimulationJob, status: str | None) -> bool:
    """Whether the engine ended without anybody wanting it to, and not because the run was over."""
    return status is None or (status == "failed" and job.stopped() == ENGINE_ENDED)


def _forget(job: SimulationJob, *, events: Path) -> None:
    """Remove what a run left whose engine did not start."""
    run = RunFolder(job.folder)
    for file in (events, run.progress, run.path / RESULTS, run.path / REPORT, job.stop_file):
        if file is not None:
            file.unlink(missing_ok=True)


def _attempt(job: SimulationJob, job_file: Path, *, events: Path, work: Path, console: Console) -> str | None:
    # Not in the work folder: Ray's sockets lie there, and a socket's path may have 107 bytes only.
    scratch = Path(tempfile.mkdtemp(prefix="fedage-"))
    engine = ProcessTree(
        [sys.executable, "-m", "fedage.deploy.simulation_main"],
        environment={
            **flower_environment(work / "flower"),
            VARIABLE: str(job_file),
            SCRATCH: str(scratch),
            # Ray starts its workers, here the sites, at nice 15: a busy machine would leave them next to nothing.
            "RAY_worker_niceness": "0",
            "RAY_DEDUP_LOGS": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        },
        log=work / _LOG,
    )
    follower = Follower(events, console=console)
    try:
        while (status := follower.look()) is None and engine.poll() is None:
            time.sleep(_POLL_S)
        return status or follower.look()
    except KeyboardInterrupt:
        with _undisturbed():
            console.print(f"stopping; what was finished stays in {job.folder}")
            job.stop(_STOPPED)
            _wait(lambda: follower.look() is not None or engine.poll() is not None, timeout_s=RECORD_S)
            if (job.folder / "report.html").is_file():
                console.print(f"report of the stopped run: {job.folder / 'report.html'}")
        raise
    finally:
        with _undisturbed():
            engine.stop(grace_s=_STOP_S)
            shutil.rmtree(scratch, ignore_errors=True)


def _wait(over: Callable[[], bool], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not over() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
