"""README and guides say what is there: commands exist and run, files are where they are said to be, examples work."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pandas as pd
import pytest
import typer.main
from lifelines.datasets import load_lung

from fedage.client.site.home import SiteHome, init_site
from fedage.common.campaign_file import parse_campaign
from fedage.deploy.cli import app
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_hospital
from fedage.deploy.machine.processes import free_port
from fedage.server.record.results import read_results
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.client.hospital import CAMPAIGN

ROOT = Path(__file__).parents[1]
GUIDES = {path.stem: path for path in (ROOT / "README.md", *sorted((ROOT / "deploy" / "guides").glob("*.md")))}
ABIDE = ROOT.parent / "shared" / "data" / "abide1" / "abide1-freesurfer.csv"
FEDAGE = typer.main.get_command(app)
PLACES = re.compile(r"(?<![\w/.-])(?:client|server|common|deploy|tests)/[\w./*-]*")
ELSEWHERE = {
    "demo": "tests/deploy/test_demo.py",
    "site split": "tests/client/agent/test_campaign_as_other_user.py",
    "site agent": "tests/client/agent/test_campaign_as_other_user.py",
    "site node": "tests/client/agent/test_campaign_as_other_user.py",
}
"""Commands that need another user or another machine, or are what tests themselves are run by, with who runs them."""
NETWORK = (
    "coordinator init", "coordinator start", "site init", "site index", "site policy show", "site policy check",
    "coordinator admit", "site start", "coordinator sites", "campaign new", "campaign check", "campaign run",
    "site status", "site campaigns", "site approve", "coordinator heads", "site audit verify", "site audit show",
    "site revoke", "site decline", "campaign recover", "coordinator rename", "coordinator remove",
)  # fmt: skip
RESEARCH = ("campaign new", "campaign check", "simulate", "compare")
BENCHES = {"bench_index": "--files 40 --repeats 1", "bench_samples": "--patients 20 --repeats 1",
           "bench_training": "--patients 40 --repeats 1", "bench_simulate": "--runs 1"}  # fmt: skip
"""What makes a benchmark small; one that is not named runs as the guide has it."""


class Command(NamedTuple):
    guide: str
    words: tuple[str, ...]

    @property
    def of_fedage(self) -> tuple[str, ...] | None:
        """The words after `fedage`; None for another command."""
        return self.words[1:] if Path(self.words[0]).name == "fedage" else None

    @property
    def name(self) -> str:
        """Group and command."""
        return " ".join(resolved(self.of_fedage or ())[0])


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[Command]:
    """Each command of the sh blocks once, in order; `a && b` are two."""
    found = {}
    for guide, path in GUIDES.items():
        for block in fences(path.read_text(encoding="utf-8"), "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split(" && "):
                    if words := tuple(shlex.split(part, comments=True)):
                        found.setdefault(words, Command(guide, words))
    return list(found.values())


def resolved(words: tuple[str, ...]) -> tuple[tuple[str, ...], click.Command, tuple[str, ...]]:
    """The names of a command's groups and its own, the command, and what is left of the words."""
    command, names = FEDAGE, []
    while isinstance(command, click.Group) and len(names) < len(words):
        inner = command.commands.get(words[len(names)])
        if inner is None:
            break
        names.append(words[len(names)])
        command = inner
    return tuple(names), command, words[len(names) :]


EVERY = commands()
OF_FEDAGE = [command for command in EVERY if command.of_fedage is not None]


def check(words: tuple[str, ...]) -> None:
    """Parse the words after `fedage` as the command line does.

    Raises
    ------
    click.UsageError
        If there is no such command, argument or option, or one that is needed is not given.
    """
    names, called, rest = resolved(words)
    if isinstance(called, click.Group):
        raise click.UsageError(f"{' '.join(words)}: no command; there are {', '.join(sorted(called.commands))}")
    called.make_context(names[-1], list(rest))


@pytest.mark.parametrize("command", OF_FEDAGE, ids=lambda command: " ".join(command.words)[:90])
def test_a_command_and_its_options_exist(command: Command) -> None:
    check(command.of_fedage or ())


@pytest.mark.parametrize(
    "wrong",
    ["site aprove --home site DIGEST", "site approve --home site", "compare --jason run-1 run-2", "site audit"],
)
def test_a_command_that_does_not_exist_would_be_found(wrong: str) -> None:
    with pytest.raises(click.UsageError):
        check(tuple(shlex.split(wrong)))


def test_every_command_is_run_by_a_test() -> None:
    run = {*NETWORK, *RESEARCH, *ELSEWHERE}
    assert sorted({command.name for command in OF_FEDAGE} - run) == []
    for name, file in ELSEWHERE.items():
        assert f'"{name.split()[-1]}"' in (ROOT / file).read_text(encoding="utf-8"), f"{file} does not run {name}"
    for command in (command for command in EVERY if command.of_fedage is None):
        program, *arguments = command.words
        tests = [word for word in arguments if word.startswith("tests/")]
        assert Path(program).name in ("python", "python3.11", "pip"), command
        assert all((ROOT / file).is_file() for file in tests), command
        assert tests or "pytest" in arguments or "install" in arguments or "venv" in arguments, command


@pytest.mark.parametrize("guide", GUIDES)
def test_commands_named_in_a_sentence_exist(guide: str) -> None:
    text = re.sub(r"^```.*?^```", "", GUIDES[guide].read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for quoted in re.findall(r"`fedage ([^`…]+)(?:…)?`", text):
        words = tuple(quoted.split())
        names, called, rest = resolved(words)
        options = {option for parameter in called.params for option in parameter.opts}
        assert names, f"{guide}: fedage {quoted}"
        assert {word for word in rest if word.startswith("-")} <= options, f"{guide}: fedage {quoted}"
        assert not isinstance(called, click.Group) or not rest, f"{guide}: fedage {quoted}"


@pytest.mark.parametrize("guide", GUIDES)
def test_what_a_guide_names_is_there(guide: str) -> None:
    text = GUIDES[guide].read_text(encoding="utf-8")
    named = {place.rstrip(".") for place in PLACES.findall(text)}
    assert sorted(place for place in named if not any(ROOT.glob(place.rstrip("/")))) == []
    links = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert [target for target in links if not (GUIDES[guide].parent / target).is_file()] == []


def test_the_readme_is_a_page_and_leads_to_every_guide() -> None:
    text = GUIDES["README"].read_text(encoding="utf-8")
    assert 600 <= len(text.split()) <= 700
    assert set(re.findall(r"\(deploy/guides/([\w-]+)\.md\)", text)) == set(GUIDES) - {"README"}


def test_ways_through_the_files_are_counted_right() -> None:
    ways = re.findall(r"^```\n(\d+) files\n(.*?)^```", GUIDES["concepts"].read_text(), re.MULTILINE | re.DOTALL)
    assert len(ways) == 4
    for said, way in ways:
        files = re.findall(r"^  (\S+\.py) +\S", way, re.MULTILINE)
        assert len(files) == len(set(files)) == int(said)
        assert [file for file in files if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("part", ["client", "server", "common"])
def test_the_rooms_are_drawn_as_the_contracts_have_them(part: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == [f"fedage.{part}"]]
    drawn = re.search(rf"^{part}/  (.*(?:\n +→.*)*)", GUIDES["concepts"].read_text(), re.MULTILINE)
    assert drawn is not None
    rooms = [{room.strip() for room in layer.split(",")} for layer in drawn[1].split("→")]
    assert rooms == [{room.strip() for room in layer.split("|")} for layer in layers]


def test_the_settings_of_a_site_are_read(tmp_path: Path) -> None:
    coordinator = init_home(tmp_path / "coordinator", hosts=("localhost",))
    home = init_site(
        tmp_path / "site",
        name="north",
        coordinator="localhost:9",
        ca_certificate=coordinator.ca_certificate,
        coordinator_public_key=coordinator.signing_public_key,
    ).root
    (text,) = fences(GUIDES["hospital"].read_text(), "toml")
    (home / "site.toml").write_text(f"{(home / 'site.toml').read_text()}\n{text}")
    settings = SiteHome.load(home).config
    assert settings.table is not None
    assert (settings.table.missing, settings.table.leave_out) == ((-9999,), ("*_qc",))
    assert settings.outcome_columns is not None
    assert set(settings.outcome_columns.columns) == {"time_years", "event", "healthy"}


@pytest.mark.processes
def test_the_example_in_python_runs_and_imports_nothing_else(tmp_path: Path) -> None:
    (code,) = fences(GUIDES["researcher"].read_text(), "python")
    assert set(re.findall(r"fedage[.\w]*", "\n".join(re.findall(r"^(?:import|from) .*", code, re.MULTILINE)))) == {
        "fedage"
    }
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "campaign.seed = -1" in said[1]
    assert "finished [('north', 100), ('south', 100), ('west', 100)]" in said
    error = re.search(r"^mean absolute error (.*) years$", done.stdout, re.MULTILINE)
    gap = re.search(r"^gap_years: coefficient (.*), standard error (.*)$", done.stdout, re.MULTILINE)
    assert error is not None
    assert 2 < float(error[1]) < 4  # the true gap has an even spread of ±6 years: its mean absolute value is 3
    assert gap is not None
    assert float(gap[1]) == pytest.approx(0.1, abs=3 * float(gap[2]))  # the hazard that the example plants


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


def fedage(*words: str) -> list[str]:
    return [sys.executable, "-m", "fedage.deploy", *words]


def run(words: list[str], folder: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def of(*guides: str, name: str) -> list[list[str]]:
    found = [list(command.of_fedage or ()) for command in OF_FEDAGE if command.guide in guides and command.name == name]
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
    lung = load_lung().assign(subject=range(1, 229), time_years=lambda rows: rows.time / 365.25)
    lung.to_csv(tmp_path / "lung.csv", index=False)
    if ABIDE.is_file():
        (tmp_path / ABIDE.name).symlink_to(ABIDE)
    for name in RESEARCH:
        for words in of("researcher", name=name):
            if ABIDE.name not in words or ABIDE.is_file():
                run(fedage(*words), tmp_path)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", [c for c in EVERY if "tests/bench/" in " ".join(c.words)], ids=str)
def test_a_benchmark_runs(command: Command) -> None:
    program, file, *rest = command.words
    assert program == "python"
    run([sys.executable, file, *BENCHES.get(Path(file).stem, "").split(), *rest], ROOT)
