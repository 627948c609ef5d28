"""The runs of a coordinator: all of them, and the one that is meant by whoever wants to go on with one."""

from __future__ import annotations

from pathlib import Path

from fedage.common.errors import FedAgeError
from fedage.server.record.events import read_events
from fedage.server.record.results import ResultsUnreadable, read_results
from fedage.server.record.run_folder import RESULTS, RunFolder, run_folders


def listed(runs: Path) -> list[str]:
    """Every run in a line, oldest first: how it ended or how far it is, and whether it can be resumed."""
    return [f"{run.campaign}/{run.name}: {_told(run)}" for run in run_folders(runs)]


def _told(run: RunFolder) -> str:
    rounds = [event for event in read_events(run.events) if event["event"] == "round"]
    far = f", {len(rounds)} {'round' if len(rounds) == 1 else 'rounds'}" if rounds else ""
    if run.is_conducted():
        return f"goes on{far}"
    if not (run.path / RESULTS).is_file():
        return f"has no record yet{far}; fedage campaign recover writes it"
    try:
        ended = read_results(run.path / RESULTS).run
    except ResultsUnreadable as error:
        return f"its record cannot be read: {error}"
    why = f": {ended.reason}" if ended.reason else ""
    again = "; can be resumed" if run.is_resumable() else ""
    return f"{ended.status}{far}{why}{again}"


def unfinished_run(runs: Path, name: str | None) -> RunFolder:
    """The run called `CAMPAIGN/RUN`, or the last one that ended and did not finish.

    Parameters
    ----------
    runs
        The coordinator's `runs/`.

    Raises
    ------
    FedAgeError
        If there is none, with those that there are.
    """
    resumable = [run for run in run_folders(runs) if run.is_resumable()]
    known = ", ".join(f"{run.campaign}/{run.name}" for run in resumable) or "none"
    if name is None:
        ended = [run for run in resumable if not run.is_conducted()]
        if not ended:
            raise FedAgeError(f"no run below {runs} has ended without finishing; runs that go on: {known}")
        return ended[-1]
    campaign, slash, run = name.partition("/")
    if not slash or not run or "/" in run or {campaign, run} & {"", ".", ".."}:
        raise FedAgeError(f"{name!r} names no run; give CAMPAIGN/RUN, one of these: {known}")
    folder = RunFolder(runs / campaign / run)
    if not folder.state.is_dir():
        raise FedAgeError(f"there is no run {name} below {runs}; those that can be resumed: {known}")
    return folder
