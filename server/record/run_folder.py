"""The folder of one run: who works in it now, whether the coordinator gave the run up, and whether it has its record.

========================= ===================================================================================
`campaign.toml`           the campaign file
`events.jsonl`            what happened, a line each
`given.safetensors`       published weights that the first model begins with, in a campaign that names some
`model*.safetensors`      the model after the last finished round, or one of each fold
`results.json`            the record; there once the run has ended
`report.html`             the record, drawn
`state/progress.json`     the record so far, in the form of `results.json`; gone once that is there
`state/updates/`          the sites' updates of the round under way; gone when the round ends
`state/journal/`          what the sites have answered, so that the run can be resumed; gone when it has finished
`state/run.json`          when the run was submitted, and as which run of Flower's
`state/run.lock`          locked by the process that conducts the run, for as long as it lives; its number is in it
`state/follow.lock`       locked by the command that waits for the run to begin and follows it
`state/given-up.json`     the coordinator gave the run up, and why: it must not begin, and ends if it has begun
========================= ===================================================================================

Locks are the kernel's (`flock`): they are gone the moment a process is, however it ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TextIO

from fedage.common.errors import FedAgeError
from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.bounded import MAX_STATE_BYTES, read_json
from fedage.deploy.machine.given_weights import GIVEN

RESULTS, REPORT, EVENTS, CAMPAIGN = "results.json", "report.html", "events.jsonl", "campaign.toml"
STATE = "state"
_LOCK_S = 0.5

Ended = Literal["failed", "stopped"]


class RunRefused(FedAgeError):
    """A run must not begin: it was given up, has begun before, or nobody waits for it any more."""


@dataclass(frozen=True)
class RunFolder:
    """One run on the coordinator's disk."""

    path: Path

    @property
    def state(self) -> Path:
        """What only this program reads."""
        return self.path / STATE

    @property
    def events(self) -> Path:
        """The run's events."""
        return self.path / EVENTS

    @property
    def progress(self) -> Path:
        """The record so far."""
        return self.state / "progress.json"

    @property
    def given(self) -> Path:
        """Weights that the first model begins with."""
        return self.path / GIVEN

    @property
    def updates(self) -> Path:
        """Where the updates of a round wait for its end."""
        return self.state / "updates"

    @property
    def journal(self) -> Path:
        """The finished steps of the run."""
        return self.state / "journal"

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def campaign(self) -> str:
        """The campaign's name."""
        return self.path.parent.name

    def is_recorded(self) -> bool:
        """Whether the run has its record and its report."""
        return (self.path / RESULTS).is_file() and (self.path / REPORT).is_file()

    def has_begun(self) -> bool:
        """Whether a process has begun to conduct it, now or earlier."""
        try:
            return (self.state / "run.lock").stat().st_size > 0
        except FileNotFoundError:
            return False

    def is_conducted(self) -> bool:
        """Whether a living process conducts it."""
        return _is_locked(self.state / "run.lock")

    def is_followed(self) -> bool:
        """Whether a living command waits for it."""
        return _is_locked(self.state / "follow.lock")

    def given_up(self) -> str:
        """Why the coordinator gave the run up; empty if it has not."""
        reason = self.given_up_as()
        return reason[0] if reason else ""

    def given_up_as(self) -> tuple[str, Ended] | None:
        """Why the coordinator gave the run up, and what its record calls that."""
        try:
            values = read_json(self.state / "given-up.json", most_bytes=MAX_STATE_BYTES)
            return str(values["reason"]), "failed" if values["status"] == "failed" else "stopped"
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return "the coordinator gave the run up", "stopped"

    def give_up(self, reason: str, *, status: Ended = "stopped") -> None:
        """Let the run never begin, and end if it has begun. On disk when this returns; the first reason stays."""
        if not self.given_up():
            _write(self.state / "given-up.json", {"reason": reason, "status": status, "time_utc": _now()})

    def submitted_as(self, flower_run: int | None = None) -> int | None:
        """Flower's number of the run; noted if given."""
        file = self.state / "run.json"
        if flower_run is not None:
            _write(file, {"flower_run": str(flower_run), "submitted_utc": _now()})
            return flower_run
        try:
            return int(read_json(file, most_bytes=MAX_STATE_BYTES)["flower_run"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While this lasts the run may begin. To be held from before it is submitted until its end.

        Raises
        ------
        FedAgeError
            If another command follows the run.
        """
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock(self.state / "follow.lock") as taken:
            if taken is None:
                raise FedAgeError(f"another command follows the run in {self.path}; give another name with --name")
            yield

    @contextlib.contextmanager
    def conducting(self) -> Iterator[None]:
        """Held by the process that conducts the run, from before its first message until its record is written.

        Raises
        ------
        RunRefused
            If the run was given up, has begun before, or the command that submitted it does not wait any more: an
            executor that was away may be handed a run long after everybody has forgotten it.
        """
        if reason := self.given_up():
            raise RunRefused(f"the run {self.name} was given up: {reason}")
        if not self.is_followed():
            raise RunRefused(
                f"nobody waits for the run {self.name} any more; start another one with fedage campaign run"
            )
        if self.has_begun() or self.is_recorded():
            raise RunRefused(f"the run {self.name} has begun before; start another one with fedage campaign run")
        with _lock(self.state / "run.lock") as taken:
            if taken is None:
                raise RunRefused(f"the run {self.name} is conducted by another process")
            taken.write(f"{os.getpid()}\n")
            taken.flush()
            # Given up between the first look and the lock: whoever gives up now sees the lock.
            if reason := self.given_up():
                raise RunRefused(f"the run {self.name} was given up: {reason}")
            self._clear_up()
            yield

    def _clear_up(self) -> None:
        """Remove what a process before this one was writing when it was killed, each time as large as the model."""
        for folder in (self.path, self.journal):
            for file in folder.glob(".*.partial"):
                file.unlink(missing_ok=True)

    def is_resumable(self) -> bool:
        """Whether there is something that a resumed run would go on from."""
        return any(self.journal.glob("*.safetensors"))

    def take_up(self) -> None:
        """Let a run that ended begin once more. To be called by whoever waits for it (`waiting`).

        What it recorded becomes its record so far, so that nothing is lost if it does not begin.

        Raises
        ------
        FedAgeError
            If it goes on, or has nothing to go on from.
        """
        if self.is_conducted():
            raise FedAgeError(f"the run in {self.path} goes on; it can be resumed once it has ended")
        if not self.is_resumable():
            raise FedAgeError(
                f"the run in {self.path} cannot be resumed: nothing of it is kept, as it has finished or ended before "
                "its sites were known; start another one with fedage campaign run"
            )
        if (self.path / RESULTS).is_file():
            (self.path / RESULTS).replace(self.progress)
        (self.path / REPORT).unlink(missing_ok=True)
        (self.state / "given-up.json").unlink(missing_ok=True)
        with (self.state / "run.lock").open("w", encoding="utf-8"):
            pass  # an empty lock is one that no process has held

    @contextlib.contextmanager
    def recording(self) -> Iterator[bool]:
        """Take the place of a process that is gone, to write the record. False if one lives, or another writes it."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock(self.state / "run.lock") as taken:
            yield taken is not None


def run_folders(runs: Path) -> list[RunFolder]:
    """The runs below a coordinator's `runs/`, oldest first; without those of releases that kept no state."""
    folders = [folder.parent for folder in runs.glob(f"*/*/{STATE}") if folder.is_dir()]
    return [RunFolder(path) for path in sorted(folders, key=lambda path: path.stat().st_mtime)]


@contextlib.contextmanager
def _lock(file: Path) -> Iterator[TextIO | None]:
    """A locked file, or None if another process has locked it.

    Not by `filelock`, which knows no shared lock to look with (`_is_locked`), and whose file is not to be written to.
    """
    deadline = time.monotonic() + _LOCK_S
    with file.open("a", encoding="utf-8") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Perhaps only somebody who looks, which takes no time.
                if time.monotonic() >= deadline:
                    yield None
                    return
                time.sleep(0.02)
        yield stream


def _is_locked(file: Path) -> bool:
    if not file.exists():
        return False
    with file.open("r", encoding="utf-8") as stream:
        try:
            # Shared, so that two who look at the same moment do not take each other for the owner.
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _write(file: Path, content: dict[str, str]) -> None:
    """Write a small file as a whole, on disk when this returns."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(file, json.dumps(content).encode(), mode=0o644)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
