"""A coordinator and hospitals with small tables as the real commands run them, to kill and to stop. All real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedage.client.cli.index import index_site
from fedage.client.site.home import SiteHome, init_site
from fedage.server.record.results import Results, read_results
from fedage.server.record.run_folder import RunFolder
from fedage.server.superlink.home import CoordinatorHome, init_home
from fedage.server.superlink.superlink import register_node

MARK = "FEDAGE_TEST_MARK"
CAMPAIGN = """
[campaign]
name = "{name}"
purpose = "See what is left when something is killed"
seed = 4
sites = [{sites}]
wait_s = 60
[estimator]
name = "table-mlp"
[estimator.options]
features = ["x*"]
hidden = [4]
[table]
id = "who"
age = "age"
sex = "sex"
[training]
rounds = {rounds}
quorum = {quorum}
round_deadline_s = {deadline_s}
[validation.fractions]
train = 0.5
validation = 0.25
test = 0.25
"""
SUPERLINK, EXECUTOR, SERVERAPP = "superlink_main", "superexec_main", "serverapp_main"
NODE, AGENT = "supernode_main", "client.agent.main"


def until(condition: Callable[[], bool], *, timeout_s: float, what: object = "") -> float:
    """Wait, and return how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, what() if callable(what) else what
        time.sleep(0.05)
    return time.monotonic() - began


def living(mark: str) -> dict[int, str]:
    """Processes that inherited the mark, by id, with their commands."""
    found = {}
    for environ in (entry / "environ" for entry in Path("/proc").glob("[0-9]*")):
        try:
            if int(environ.parent.name) != os.getpid() and f"{MARK}={mark}".encode() in environ.read_bytes():
                command = (environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(environ.parent.name)] = command
        except OSError:
            continue
    return found


@dataclass
class Command:
    """One `fedage` command in a process of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, words: str, *, timeout_s: float = 60.0) -> None:
        until(lambda: words in self.said, timeout_s=timeout_s, what=lambda: f"never said {words!r}:\n{self.said}")

    def end(self, number: int = signal.SIGTERM, *, timeout_s: float = 60.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)


@dataclass
class Network:
    """A coordinator and its hospitals."""

    root: Path
    mark: str
    coordinator: CoordinatorHome
    names: tuple[str, ...]
    running: dict[str, Command] = field(default_factory=dict)
    runs: list[tuple[Command, RunFolder]] = field(default_factory=list)
    port: int = 0
    images: Callable[[Path, int], None] | None = None

    def fedage(self, *words: object, log: str) -> Command:
        file = self.root / f"{log}.log"
        command = [sys.executable, "-m", "fedage.deploy", *(str(word) for word in words)]
        with file.open("ab") as stream:
            environment = {**os.environ, MARK: self.mark, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=environment,
            )
        return Command(process, file)

    def start_coordinator(self, *options: str) -> Command:
        (self.root / "coordinator.log").unlink(missing_ok=True)
        started = self.fedage("coordinator", "start", "--home", self.coordinator.root, *options, log="coordinator")
        self.running["coordinator"] = started
        started.wait_for("listening on")
        return started

    def start_site(self, name: str) -> Command:
        self.running[name] = self.fedage("site", "start", "--home", self.root / name, log=name)
        return self.running[name]

    def make_site(self, name: str, *, seed: int, patients: int = 80) -> None:
        folder = self.root / f"{name}-images" if self.images is not None else None
        if self.images is not None and folder is not None:
            self.images(folder, seed)
        home = hospital_home(
            self.root, name, coordinator=self.coordinator, port=self.port, seed=seed, patients=patients, images=folder
        )
        register_node(self.coordinator, home.node_public_key, name)

    def campaign(self, name: str, *, rounds: int = 30, quorum: int | None = None, deadline_s: float = 60) -> Path:
        sites = ", ".join(f'"{site}"' for site in self.names)
        file = self.root / f"{name}.toml"
        needed = quorum or len(self.names)
        file.write_text(CAMPAIGN.format(name=name, sites=sites, rounds=rounds, quorum=needed, deadline_s=deadline_s))
        return file

    def run(self, campaign: Path, *, out: Path | None = None, name: str = "r") -> tuple[Command, RunFolder]:
        words = ["campaign", "run", campaign, "--home", self.coordinator.root, "--name", name]
        command = self.fedage(*words, *(["--out", out] if out else []), log=f"{campaign.stem}-{name}")
        self.runs.append((command, RunFolder(self.coordinator.run_folder(campaign.stem, name))))
        return self.runs[-1]

    def end_runs(self) -> None:
        """Give up the runs that a failed test left, or they slow the next test's down until that fails too."""
        while self.runs:
            command, run = self.runs.pop()
            if command.process.poll() is None:
                command.end(signal.SIGINT, timeout_s=120)
                until(run.is_recorded, timeout_s=60, what=lambda: self.running["coordinator"].said)

    def pids(self, what: str, *, of: str = "") -> list[int]:
        home = f"{self.root / of}" if of else ""
        return [pid for pid, command in living(self.mark).items() if what in command and home in command]

    def kill(self, what: str, *, of: str = "") -> list[int]:
        found = self.pids(what, of=of)
        assert found, f"no {what} to kill"
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return found

    def whole(self) -> bool:
        """Whether everything that should run runs."""
        per_site = all(len(self.pids(what)) >= len(self.names) for what in (NODE, AGENT))
        return per_site and bool(self.pids(SUPERLINK)) and bool(self.pids(EXECUTOR))


def rounds_done(run: RunFolder) -> int:
    text = run.events.read_text(encoding="utf-8") if run.events.is_file() else ""
    return text.count('"event": "round"')


def record(run: RunFolder) -> Results:
    return read_results(run.path / "results.json")


def hospital_home(
    root: Path,
    name: str,
    *,
    coordinator: CoordinatorHome,
    seed: int,
    port: int = 8443,
    patients: int = 80,
    images: Path | None = None,
) -> SiteHome:
    """A hospital's home with a table of three features, indexed; it approves by itself, else its policy is the default.

    With `images`, a folder of pictures with their `outcomes.csv`, it has those instead.

    The features' spread is even: of a dozen patients with normal ones, one often has more than half of a product, and
    the influence rule withholds the sum. The key that deals patients into folds follows from the seed.
    """
    key = root / f"{name}.key"
    key.write_text(f"{seed:064x}\n")
    rng = np.random.default_rng(seed)
    age = rng.uniform(30, 80, patients)
    x = age[:, None] / 20 + rng.uniform(-1.7, 1.7, (patients, 3))
    rows = [
        f"{name}-{row},{age[row]:.2f},{'MF'[row % 2]},{x[row, 0]:.3f},{x[row, 1]:.3f},{x[row, 2]:.3f}"
        for row in range(patients)
    ]
    table = root / f"{name}.csv"
    table.write_text("\n".join(["who,age,sex,x1,x2,x3", *rows]) + "\n")
    home = init_site(
        root / name,
        name=name,
        coordinator=f"localhost:{port}",
        ca_certificate=coordinator.ca_certificate,
        coordinator_public_key=coordinator.signing_public_key,
        store_key_file=key,
        threads=1,
        device="cpu",
        data=images,
        outcomes=images / "outcomes.csv" if images is not None else None,
    )
    settings = (home.root / "site.toml").read_text()
    settings = settings.replace("poll_s = 1.0", "poll_s = 0.3")
    if images is None:
        settings += f'[table]\npath = "{table}"\nid = "who"\nage = "age"\nsex = "sex"\n'
    (home.root / "site.toml").write_text(settings)
    (home.root / "policy.toml").write_text('[approval]\nmode = "automatic"\nbundles = "automatic"\n')
    index_site(home.root)
    return home


@contextmanager
def network(
    root: Path,
    *,
    names: tuple[str, ...] = ("north", "south"),
    patients: Mapping[str, int] | None = None,
    seed: int = 0,
    images: Callable[[Path, int], None] | None = None,
) -> Iterator[Network]:
    """All of it, running; at the end nothing of it is left. `patients` by hospital, 80 where it does not say.

    `images` writes a hospital's pictures into a folder, given its number; tables otherwise.
    """
    from fedage.deploy.machine.processes import free_port

    port = free_port()
    made = Network(root, uuid.uuid4().hex, init_home(root / "coordinator", hosts=("localhost",), port=port), names)
    made.port, made.images = port, images
    try:
        made.start_coordinator()
        for number, name in enumerate(names, start=seed):
            made.make_site(name, seed=number, patients=(patients or {}).get(name, 80))
            made.start_site(name)
        for name in names:
            made.running[name].wait_for("online", timeout_s=90)
        yield made
    finally:
        for command in [*made.running.values(), *(command for command, _ in made.runs)]:
            if command.process.poll() is None:
                command.process.terminate()
        for command in [*made.running.values(), *(command for command, _ in made.runs)]:
            command.process.wait(60)
    until(lambda: not living(made.mark), timeout_s=30, what=lambda: living(made.mark))
