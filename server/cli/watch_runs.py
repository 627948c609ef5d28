"""The runs of a coordinator while it is up: one whose process is gone is ended, and gets its record."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from fedage.common.errors import FedAgeError
from fedage.deploy.machine.processes import ProcessTree
from fedage.server.campaign.recover import KILLED, recover_all
from fedage.server.record.run_folder import RunFolder, run_folders
from fedage.server.superlink.home import CoordinatorHome
from fedage.server.superlink.superlink import stop_run

_LOOK_S = 2.0
_FOLLOWER_S = 10.0
"""The command that follows a run writes its record; after so long it was not there, or is stuck."""
_SUBMITTING_S = 3.0
"""A run that is being submitted has a folder a moment before it is followed."""
_RETRY_S = 60.0
_LET_GO_S = 15.0
"""Processes of an earlier start that was killed end by themselves within seconds."""


class WatchRuns:
    """Looks for runs whose process is gone.

    Parameters
    ----------
    home
        The coordinator.
    tell
        Told in a sentence of each record that was written.
    """

    def __init__(self, home: CoordinatorHome, *, tell: Callable[[str], None]) -> None:
        self._home = home
        self._tell = tell
        self._looked = 0.0
        self._gone: dict[RunFolder, float] = {}
        self._resumed: dict[RunFolder, ProcessTree] = {}

    def left_behind(self, *, resume: bool = False) -> None:
        """Write the records of runs that an earlier start of this coordinator left behind, or go on with them.

        A run that was stopped, or has its record, is not gone on with: somebody has seen its end.
        """
        deadline = time.monotonic() + _LET_GO_S
        while any(run.is_conducted() for run in run_folders(self._home.runs)) and time.monotonic() < deadline:
            time.sleep(0.2)
        for run in run_folders(self._home.runs) if resume else []:
            if run.is_resumable() and not (run.is_recorded() or run.is_conducted() or run.given_up()):
                self._resume(run)
        left = [run for run in run_folders(self._home.runs) if run not in self._resumed]
        recover_all(left, reason="the coordinator went down while the run went on", tell=self._tell)

    def look(self) -> None:
        """Every few seconds, see whether the process of a run is gone and nobody has written its record."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        self._resumed = {run: command for run, command in self._resumed.items() if command.poll() is None}
        gone = {run for run in run_folders(self._home.runs) if self._is_gone(run) and run not in self._resumed}
        self._gone = {run: self._gone.get(run, now) for run in gone}
        due = [
            run
            for run, since in self._gone.items()
            if now >= since + (_FOLLOWER_S if run.is_followed() else _SUBMITTING_S)
        ]
        if not due:
            return
        for run in recover_all(due, reason=KILLED, tell=self._tell):
            self._end_in_superlink(run)
        # What could not be written (a full disk) is told again after a while, not every other second.
        self._gone |= dict.fromkeys(due, now + _RETRY_S)

    def at_the_end(self) -> None:
        """The executor is gone, and with it the processes of all runs: those that were cut off get their record."""
        for command in self._resumed.values():
            command.stop()
        recover_all(
            run_folders(self._home.runs), reason="the coordinator was stopped while the run went on", tell=self._tell
        )

    def _resume(self, run: RunFolder) -> None:
        """Go on with a run as the command does, which follows it into a log."""
        name = f"{run.campaign}/{run.name}"
        words = ["campaign", "resume", "--home", str(self._home.root), "--with-parent", name]
        log = self._home.logs / f"resume-{run.campaign}-{run.name}.log"
        command = [sys.executable, "-m", "fedage.deploy", *words]
        self._resumed[run] = ProcessTree(command, environment=os.environ, log=log)
        self._tell(f"going on with the run {name}, which the coordinator's end had cut off: {log}")

    @staticmethod
    def _is_gone(run: RunFolder) -> bool:
        if run.is_recorded() or run.is_conducted():
            return False
        return run.has_begun() or not run.is_followed()

    def _end_in_superlink(self, run: RunFolder) -> None:
        if (number := run.submitted_as()) is not None:
            try:
                stop_run(self._home, number)
            except FedAgeError as error:
                self._tell(f"the run {run.name} could not be ended in the SuperLink ({error})")
