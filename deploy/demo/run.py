"""The demo's script: what a coordinator and three hospitals would type, typed for them.

Every step is a real `fedage` command in a process of its own. Long-lived ones stop when this process dies, however it
dies, because they watch the pipe it holds.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from fedage.common.errors import FedAgeError
from fedage.deploy.demo.kinds import DemoKind, demo_of
from fedage.deploy.machine.out_folder import require_empty
from fedage.deploy.machine.processes import PARENT

_STOP_S = 20.0


@dataclass(frozen=True)
class Folders:
    """Where the demo keeps what belongs to whom."""

    root: Path

    @property
    def coordinator(self) -> Path:
        """The coordinator's home."""
        return self.root / "coordinator"

    @property
    def images(self) -> Path:
        """The hospitals' images and outcomes, a folder each."""
        return self.root / "hospitals"

    def site(self, name: str) -> Path:
        """A site's home."""
        return self.root / "sites" / name

    @property
    def logs(self) -> Path:
        """Output of the long-lived commands."""
        return self.root / "logs"


def run_demo(*, out: Path | None, quick: bool, seed: int, estimator: str = "chest-ca") -> int:
    """Run the demo and return an exit status.

    Raises
    ------
    FedAgeError
        If `out` is not empty, a command fails, or there is no demo of this estimator.
    """
    kind = demo_of(estimator)
    folders = Folders(_output_folder(out))
    console = Console(highlight=False, soft_wrap=True)
    began = time.monotonic()
    console.print(
        f"[bold]FedAge demo[/bold] in {folders.root}: {len(kind.sites)} hospitals with phantoms, rendered "
        f"{kind.shown} of nobody"
    )
    with _interruptible(), ExitStack() as running:
        names = kind.sites
        with console.status("rendering phantoms"):
            planted = kind.render(folders.images, seed, quick)
        campaign = folders.root / "demo-campaign.toml"
        campaign.write_text(kind.campaign_file(planted, sites=names, seed=seed, quick=quick), encoding="utf-8")
        _say(console, began, f"{sum(1 for _ in _images(folders.images))} image files rendered")
        with console.status("starting the coordinator"):
            _fedage("coordinator", "init", "--home", folders.coordinator, "--host", "localhost")
            address = running.enter_context(_coordinator(folders))
        _say(console, began, f"coordinator listening on {address}, TLS and node authentication on")
        with console.status("the hospitals index their images and approve the campaign"), ThreadPoolExecutor(2) as pool:
            list(
                pool.map(
                    lambda name: _prepare_site(
                        folders, name, kind=kind, address=address, seed=seed, campaign=campaign, quick=quick
                    ),
                    names,
                )
            )
        for name in names:
            running.enter_context(_site(folders, name))
        _say(console, began, f"{', '.join(names)}: indexed, campaign approved, agents and nodes starting")
        command: list[str | Path] = [
            "campaign",
            "run",
            campaign,
            "--home",
            folders.coordinator,
            "--out",
            folders.root,
            "--name",
            "demo",
        ]
        status = _foreground(*command)
        for name in names:
            # Each hospital's own log, held against the heads that the coordinator was sent.
            heads = folders.coordinator / "heads" / f"{name}.jsonl"
            kept = ("--head", heads) if heads.is_file() else ()
            _say(console, began, f"{name}: {_fedage('site', 'audit', 'verify', '--home', folders.site(name), *kept)}")
        _say(console, began, "done" if status == 0 else "the campaign did not finish")
    return status


def _output_folder(out: Path | None) -> Path:
    if out is not None:
        require_empty(out)
        folder = out
    else:
        tries = (Path("fedage-demo" if number == 1 else f"fedage-demo-{number}") for number in range(1, 1000))
        folder = next(path for path in tries if not path.exists())
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _images(folder: Path) -> Iterator[Path]:
    """Files of images below a folder."""
    return (path for path in folder.rglob("*") if path.name.endswith((".dcm", ".nii", ".nii.gz")))


def _prepare_site(
    folders: Folders, name: str, *, kind: DemoKind, address: str, seed: int, campaign: Path, quick: bool
) -> None:
    home, images = folders.site(name), folders.images / name
    # A real hospital's key comes from its own randomness; the demo's comes from the seed so that the split, and with
    # it every number, is the same each time.
    key = folders.root / "sites" / f"{name}.key"
    key.parent.mkdir(parents=True, exist_ok=True)
    key.touch(mode=0o600)
    key.write_text(hashlib.sha256(f"phantom store key {seed} {name}".encode()).hexdigest() + "\n")
    certificates = folders.coordinator
    _fedage(
        *("site", "init", "--home", home, "--name", name, "--coordinator", address),
        *("--ca", certificates / "ca.crt", "--coordinator-key", certificates / "coordinator.pub"),
        *("--data", images / "images", "--outcomes", images / "outcomes.csv"),
        *("--store-key", key, "--threads", "1"),
    )
    key.unlink()
    if name not in kind.with_default_policy:
        # The few phantoms of a demo need a smaller minimum than a hospital's policy has.
        policy = home / "policy.toml"
        ours = f"minimum_count = {kind.minimum_count(quick)}"
        policy.write_text(policy.read_text(encoding="utf-8").replace("minimum_count = 10", ours), encoding="utf-8")
    _fedage("coordinator", "admit", "--home", folders.coordinator, name, home / "node.pub")
    _fedage("site", "index", "--home", home)
    _fedage("site", "approve", "--home", home, campaign)


@contextmanager
def _coordinator(folders: Folders) -> Iterator[str]:
    with _background(folders, "coordinator", "coordinator", "start", "--home", folders.coordinator, "--port", "0") as (
        process,
        log,
    ):
        yield _wait_for(process, log, "listening on ", timeout_s=60.0)


@contextmanager
def _site(folders: Folders, name: str) -> Iterator[None]:
    with _background(folders, name, "site", "start", "--home", folders.site(name)):
        yield


@contextmanager
def _background(folders: Folders, title: str, *arguments: str | Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A long-lived command in a session of its own; on the way out it and all its children are gone."""
    folders.logs.mkdir(exist_ok=True)
    log = folders.logs / f"{title}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*_command(arguments), "--with-parent"],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process, log
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], log: Path, phrase: str, *, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(phrase):
                return line.removeprefix(phrase).strip()
        time.sleep(0.1)
    last = log.read_text(errors="replace").strip().rpartition("\n")[2]
    raise FedAgeError(f"the coordinator did not come up: {last or 'it said nothing'} (see {log})")


def _command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-m", "fedage.deploy", *(str(argument) for argument in arguments)]


def _fedage(*arguments: str | Path) -> str:
    """Run a command to its end; what it said."""
    done = subprocess.run(
        _command(arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        words = " ".join(str(argument) for argument in arguments[:2])
        raise FedAgeError(f"fedage {words} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def _foreground(*arguments: str | Path) -> int:
    """A command that shares this terminal; an interruption is passed on and waited for."""
    process = subprocess.Popen(
        [*_command(arguments), "--with-parent"],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, PARENT: str(os.getpid())},
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        raise
    finally:
        try:
            process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGHUP unwind like Ctrl-C, so that everything started is stopped."""

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(console: Console, began: float, text: str) -> None:
    console.print(f"[dim]{time.monotonic() - began:5.0f} s[/dim]  {text}")
