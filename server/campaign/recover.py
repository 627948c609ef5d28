"""Writing the record of a run whose process is gone, from what is on disk.

A run saves its record so far at every step (`state/progress.json`). Whoever notices that the process is gone (the
command that follows the run, the coordinator's supervisor, or `fedage campaign recover`) makes the record of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.toml.text import MAX_TOML_BYTES
from fedage.deploy.machine.bounded import read_text_at_most
from fedage.server.record.events import EventLog, read_events
from fedage.server.record.results import Results, ResultsUnreadable, Round, read_results, write_results
from fedage.server.record.run_folder import CAMPAIGN, REPORT, RESULTS, Ended, RunFolder

KILLED = (
    "the process of the run ended without a word: it was killed, the machine ran out of memory, or it was restarted"
)


def recover(
    run: RunFolder,
    *,
    reason: str,
    status: Ended = "failed",
    environment: Literal["deployment", "simulation"] = "deployment",
) -> Results | None:
    """Write the record and the report of a run that nobody conducts, unless they are there.

    Parameters
    ----------
    run
        The run.
    reason
        Why it ended. If the coordinator gave it up, what it said then is the reason instead.
    status
        How it ended.
    environment
        Where it ran, if nothing of it is on disk but its campaign file.

    Returns
    -------
    The record; None if the run goes on, another process writes the record, or the run has one.

    Raises
    ------
    FedAgeError
        If the record cannot be written, or no campaign file is in the folder.
    """
    with run.recording() as ours:
        if not ours or run.is_recorded():
            return None
        reason, status = run.given_up_as() or (reason, status)
        try:
            return _write(run, reason=reason, status=status, environment=environment)
        except OSError as error:
            raise FedAgeError(
                f"the record of the run in {run.path} cannot be written ({error.strerror or type(error).__name__}); "
                f"make room or give this user the folder, then write it with fedage campaign recover --run {run.path}"
            ) from None


def recover_all(runs: Iterable[RunFolder], *, reason: str, tell: Callable[[str], None]) -> list[RunFolder]:
    """Write the record of every run of these that has begun or was given up and that nobody conducts.

    A run that has not begun and that a command waits for is left alone. What cannot be written is told, and the others
    are written.
    """
    written = []
    for run in runs:
        if run.is_recorded() or run.is_conducted() or (not run.has_begun() and run.is_followed()):
            continue
        if not run.has_begun():
            run.give_up("it had not begun when the command that submitted it ended")
        try:
            results = recover(run, reason=reason)
        except FedAgeError as error:
            tell(str(error))
            continue
        if results is not None:
            written.append(run)
            rounds = f"; {len(results.rounds)} rounds are in it" if results.rounds else ""
            tell(
                f"campaign {run.campaign}, run {run.name}: {results.run.reason}. Its record was written from what was "
                f"on disk{rounds}: {run.path / REPORT}"
                + (
                    f"; to go on with it: fedage campaign resume {run.campaign}/{run.name}"
                    if run.is_resumable()
                    else ""
                )
            )
    return written


def recover_one(folder: Path) -> Path:
    """Write the record of the run in a folder, a simulation's too, and return its report.

    Raises
    ------
    FedAgeError
        If the run goes on, or its record cannot be written.
    """
    run = RunFolder(folder.absolute())
    if run.is_recorded():
        return run.path / REPORT
    if not (run.path / CAMPAIGN).is_file():
        raise FedAgeError(f"{folder} is not the folder of a run: it has no {CAMPAIGN}")
    if run.is_conducted() or recover(run, reason=KILLED) is None:
        raise FedAgeError(f"the run in {folder} goes on; its record is written when it ends")
    return run.path / REPORT


def _write(run: RunFolder, *, reason: str, status: Ended, environment: Literal["deployment", "simulation"]) -> Results:
    # Imported here: drawing the report takes a moment, and most looks find nothing to write.
    from fedage.server.report import render_report

    results = _with_later_rounds(_so_far(run, environment=environment), read_events(run.events))
    if not (run.path / RESULTS).is_file():
        ended = results.run.model_copy(update={"status": status, "reason": reason, "finished_utc": _last_sign(run)})
        results = results.model_copy(update={"run": ended})
    events = EventLog(run.events)
    try:
        if not any(event["event"] == "finished" for event in read_events(run.events)):
            events.emit("finished", status=results.run.status, reason=results.run.reason)
    finally:
        events.close()
    (run.path / REPORT).write_text(render_report(results, events=read_events(run.events)), encoding="utf-8")
    write_results(run.path / RESULTS, results)
    run.progress.unlink(missing_ok=True)
    shutil.rmtree(run.updates, ignore_errors=True)  # single sites' updates, of a round that never ended
    return results


def _so_far(run: RunFolder, *, environment: Literal["deployment", "simulation"]) -> Results:
    """The record so far; of a run of which nothing but its campaign file is there, an empty one."""
    if (run.path / RESULTS).is_file():  # written, and the process died while it drew the report
        return read_results(run.path / RESULTS)
    if run.progress.is_file():
        try:
            return read_results(run.progress)
        except ResultsUnreadable:
            pass  # cut off by a disk error; the campaign file still says what was wanted
    from fedage.server.campaign.conduct import nothing_yet
    from fedage.server.campaign.run_so_far import Place

    file = run.path / CAMPAIGN
    try:
        text = read_text_at_most(file, most_bytes=MAX_TOML_BYTES)
    except FileNotFoundError:
        raise FedAgeError(f"{file} is missing, so no record can be written; give the folder of a run") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise FedAgeError(
            f"{file} cannot be read ({reason}), so no record can be written; put the run's back"
        ) from None
    campaign = parse_campaign(text)
    guard = environment == "deployment" or campaign.simulation.guard
    return nothing_yet(campaign, Place(folder=run.path, run=run.name, environment=environment, guard=guard))


def _with_later_rounds(results: Results, events: Iterable[Mapping[str, Any]]) -> Results:
    """The record with the rounds that ended after it was last saved: a busy machine saves less often."""
    recorded = {(done.fold, done.number) for done in results.rounds}
    later = []
    for event in events:
        if event["event"] == "round":
            fold = event["fold"] + 1 if event["folds"] > 1 else None
            if (fold, event["number"]) not in recorded:
                later.append(
                    Round(
                        number=event["number"],
                        fold=fold,
                        seconds=event["seconds"],
                        train_loss=event["train_loss"],
                        sites=tuple(event["sites"]),
                    )
                )
    return results.model_copy(update={"rounds": (*results.rounds, *later)}) if later else results


def _last_sign(run: RunFolder) -> str:
    """When the run was last seen alive, as its last event says; now if it has none."""
    events = [event for event in read_events(run.events) if event["event"] != "finished"]
    return str(events[-1]["time"]) if events else datetime.now(UTC).isoformat(timespec="seconds")
