"""The commands of README and guides, run in order; and that what the concepts draw is called."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pandas as pd
import pytest
from lifelines.datasets import load_lung

from fedage.client.cli.campaign_text import campaign_text
from fedage.client.consent.site_cohorts import SiteCohorts
from fedage.client.site.home import SiteHome
from fedage.common.campaign_file import parse_campaign
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_hospital
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.deploy.machine.processes import free_port
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.heads import Heads
from fedage.server.record.results import read_results
from fedage.server.superlink.grid import PollingGrid, StoppableGrid
from fedage.server.superlink.home import CoordinatorHome
from tests.client.hospital import CAMPAIGN, Template
from tests.deploy.simulating import as_csv, simulated
from tests.guides import EVERY, NETWORK, OF_FEDAGE, RESEARCH, ROOT, Command, ways
from tests.machinery import InProcessGrid

# Real tables that the guides name; they are no part of the repository.
SHARED = ROOT.parent / "shared" / "data"
REAL = {
    file.name: file for file in (SHARED / "abide1" / "abide1-freesurfer.csv", SHARED / "thickness" / "fcon1000.csv")
}
BENCHES = {"bench_index": "--files 40 --repeats 1", "bench_samples": "--patients 20 --repeats 1",
           "bench_training": "--patients 40 --repeats 1", "bench_simulate": "--runs 1",
           "bench_secure": "--quick", "bench_memory": "--mb 1 --sites 3"}  # fmt: skip
"""What makes a benchmark small; one that is not named runs as the guide has it."""


OTHER_PROCESSES = {
    "client/agent/service.py", "client/agent/turns.py", "client/cli/main.py", "client/cohort/decoding/decoder_child.py",
    "client/cohort/decoding/stored_values.py", "client/cohort/dicom/dataset.py", "client/node/resident.py",
    "client/node/relay.py", "client/node/wire.py", "server/campaign/app.py", "server/cli/launch.py",
    "server/cli/main.py", "server/superlink/superlink.py",
}  # fmt: skip
"""Files on the drawn ways that run in processes of their own."""


@contextmanager
def started(folder: Path) -> Iterator[Callable[[list[str]], subprocess.Popen[bytes]]]:
    """Starts commands that keep running; ends them, last first."""
    running: list[subprocess.Popen[bytes]] = []

    def start(words: list[str]) -> subprocess.Popen[bytes]:
        with (folder / f"{words[0]}-{words[1]}.log").open("wb") as log:
            running.append(subprocess.Popen(fedage(*words), cwd=folder, stdout=log, stderr=subprocess.STDOUT))
        return running[-1]

    try:
        yield start
    finally:
        for process in reversed(running):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(90)


@contextmanager
def traced(files: set[str]) -> Iterator[None]:
    """Adds the files of the product whose functions are called meanwhile."""

    def called(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    threading.setprofile(called)
    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # as its documentation says


def in_the_repository(files: set[str]) -> set[str]:
    resolved = {Path(file).resolve() for file in files if Path(file).is_file()}
    return {str(file.relative_to(ROOT)) for file in resolved if file.is_relative_to(ROOT)}


@pytest.mark.slow
def test_what_is_drawn_on_a_way_is_called_on_it(template: Template, tmp_path: Path) -> None:
    message, image, campaign, coefficient = (set[str]() for _ in range(4))
    with traced(image):
        # Another scanner than the template's: what is known of a header is not looked at again.
        render_hospital(HOSPITALS[1], out_dir=tmp_path / "data", seed=6, patients=40)
        shutil.copytree(template.folder / "home", tmp_path / "indexed")
        (tmp_path / "indexed" / "cohort.db").unlink(missing_ok=True)
        template.index(tmp_path / "indexed", tmp_path / "data")
        found = SiteCohorts(tmp_path / "indexed").read(parse_campaign(CAMPAIGN))
        _ = found.samples.at(np.arange(2))
    members = [template.copy(tmp_path / name, approved=False) for name in ("a", "b")]
    for name, member in zip("ab", members, strict=True):
        settings = member.home / "site.toml"
        settings.write_text(settings.read_text().replace('"harbour"', f'"{name}"'))
        member.start()
    with traced(campaign):
        file = tmp_path / "campaign.toml"
        file.write_text(CAMPAIGN)
        for member in members:
            member.ask()
            assert list(campaign_text(member.site.rules, member.campaign.digest))
            member.site.rules.approve(load_campaign(file))
    with traced(message):
        grid = InProcessGrid([member.site for member in members])
        place = Place(folder=tmp_path / "run", run="r", environment="deployment", guard=True, sites_there=2)
        stoppable = PollingGrid(StoppableGrid(grid, stop=lambda: False), poll_s=0.01)
        options = {"key": members[0].key, "admitted": grid.names, "heads": Heads(tmp_path / "heads")}
        conduct(stoppable, members[0].campaign, place, **options)
    with traced(coefficient):
        lung = load_lung().assign(subject=range(1, 229), time_years=lambda rows: rows.time / 365.25)
        text = (ROOT / "deploy" / "campaigns" / "lung-survival.toml").read_text()
        simulated(tmp_path / "lung", text, data=as_csv(lung, tmp_path / "lung.csv"), site_column="inst")
    for (_, files), called in zip(ways(), (message, image, campaign | message, coefficient), strict=True):
        assert sorted(set(files) - OTHER_PROCESSES - in_the_repository(called)) == []


def fedage(*words: str) -> list[str]:
    return [sys.executable, "-m", "fedage.deploy", *words]


def run(words: list[str], folder: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def of(*guides: str, name: str) -> list[list[str]]:
    chosen = [command for command in OF_FEDAGE if command.guide in guides and command.name == name]
    # With a bundle they need a run that was exported: tests/deploy/test_bundle_commands.py has one.
    found = [list(command.of_fedage or ()) for command in chosen if "model.fedage" not in command.words]
    assert found, f"no command {name} in {guides}"
    return found


def wait_for(words: str, log: Path, *, timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while words not in (said := log.read_text(encoding="utf-8", errors="replace")):
        assert time.monotonic() < deadline, f"never said {words!r}: {said}"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1200)
def test_the_commands_of_coordinator_and_hospital_take_a_campaign_to_its_record(tmp_path: Path) -> None:
    """Their names and paths are put in place of the guides'; the new campaign is replaced by a small one."""
    port = free_port()
    render_hospital(HOSPITALS[0], out_dir=tmp_path / "data", seed=6, patients=60)
    shutil.copy(tmp_path / "data" / "outcomes.csv", tmp_path / "outcomes.csv")
    small = CAMPAIGN.replace("seed = 5", 'seed = 5\nsites = ["north"]').replace("rounds = 2", "rounds = 1\nquorum = 1")
    digest = parse_campaign(small).digest
    own = {
        "fedage.example.org": "localhost", "fedage.example.org:8443": f"localhost:{port}",
        "/archive/chest": str(tmp_path / "data" / "images"), "DIGEST": digest,
    }  # fmt: skip
    with started(tmp_path) as start:
        for name in NETWORK:
            for words in of("README", "coordinator", "hospital", name=name):
                words = [own.get(word, word) for word in words]
                if name in ("coordinator start", "site start", "campaign run"):
                    campaign_run = start(words)
                    if name == "coordinator start":
                        wait_for("listening on", tmp_path / "coordinator-start.log")
                    elif name == "site start":
                        wait_for("online", tmp_path / "site-start.log")
                    else:
                        wait_for("waiting for north", tmp_path / "campaign-run.log")
                    continue
                said = run(fedage(*words, *(["--port", str(port)] if name == "coordinator init" else [])), tmp_path)
                if name == "coordinator init":
                    home = CoordinatorHome.load(tmp_path / "coordinator")
                    shutil.copy(home.ca_certificate, tmp_path / "ca.crt")
                    shutil.copy(home.signing_public_key, tmp_path / "coordinator.pub")
                elif name == "site init":
                    shutil.copy(SiteHome.load(tmp_path / "site").node_public_key, tmp_path / "north-node.pub")
                elif name == "campaign check":
                    (tmp_path / "campaign.toml").write_text(small)
                elif name == "site approve":
                    assert campaign_run.wait(300) == 0, (tmp_path / "campaign-run.log").read_text()
                    assert read_results(tmp_path / "results" / "results.json").run.status == "finished"
                elif name == "site audit verify":
                    assert "intact" in said


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(3600)
def test_the_commands_of_a_researcher_run(tmp_path: Path) -> None:
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    rng = np.random.default_rng(3)
    age = rng.uniform(40, 80, 240)
    table = pd.DataFrame({"age": age, "hospital": np.repeat(["north", "south", "west"], 80)})
    for number in range(3):
        table[f"region_{number}"] = age / 20 + rng.uniform(-1.7, 1.7, 240)
    table.to_csv(tmp_path / "table.csv", index=False)
    guide = (ROOT / "deploy" / "guides" / "researcher.md").read_text(encoding="utf-8")
    (variants,) = (block for block in re.findall(r"```toml\n(.*?)```", guide, re.DOTALL) if "[strong." in block)
    (tmp_path / "variants.toml").write_text(variants.replace("rounds = 30", "rounds = 2"))
    lung = load_lung().assign(subject=range(1, 229), time_years=lambda rows: rows.time / 365.25)
    lung.to_csv(tmp_path / "lung.csv", index=False)
    absent = {name for name, file in REAL.items() if not file.is_file()}
    for name in REAL.keys() - absent:
        (tmp_path / name).symlink_to(REAL[name])
    for name in RESEARCH:
        for words in of("researcher", name=name):
            if absent.isdisjoint(words):
                run(fedage(*words), tmp_path)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", [c for c in EVERY if "tests/bench/" in " ".join(c.words)], ids=str)
def test_a_benchmark_runs(command: Command) -> None:
    path, program, file, *rest = command.words
    assert (path, program) == ("PYTHONPATH=.", "python")
    if any(word.startswith("VENV_WITH_NVFLARE/") for word in rest):
        pytest.skip("NVFLARE is in an environment of its own, which is not here")
    if Path(file).stem == "bench_rounds_beside":
        pytest.skip("it runs the others")
    run([sys.executable, file, *BENCHES.get(Path(file).stem, "").split(), *rest], ROOT)
