"""`fedage campaign run`: submit a campaign to the SuperLink and follow its events to the end."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from rich.console import Console

from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.deploy.machine.given_weights import keep_given
from fedage.deploy.machine.lifetime import hang_up
from fedage.server.campaign.bundles import put_bundle
from fedage.server.campaign.recover import KILLED, recover
from fedage.server.cli.follow import Follower
from fedage.server.cli.privacy_plan import privacy_plan
from fedage.server.cli.status import run_named, state_of, wait_for_round
from fedage.server.cli.summary import print_summary
from fedage.server.record.events import RESUMED, EventLog
from fedage.server.record.results import read_results
from fedage.server.record.run_folder import CAMPAIGN, RESULTS, RunFolder
from fedage.server.superlink.control import must_run
from fedage.server.superlink.home import CoordinatorHome
from fedage.server.superlink.superlink import run_status, stop_run, submit

RECORD = ("campaign.toml", "events.jsonl", "model.safetensors", "results.json", "report.html")
_MODELS_OF_FOLDS = "model-fold-*.safetensors"
_BEGIN_S = 120.0
"""A run that has not begun by then is given up: its executor is gone, or its process cannot start."""
_ASK_EVERY_S = 5.0
"""While a run has not begun the SuperLink is asked this often how it is."""
_SEEN_DEAD_S = 2.0
"""A process that is gone may have left its last event a moment ago."""
_STOP_S = 60.0
"""Time for a run that was told to stop to write its record itself."""


def launch(
    home: CoordinatorHome,
    campaign: Campaign,
    *,
    run: str | None,
    out: Path | None,
    bundle: Path | None = None,
    weights: Path | None = None,
) -> str:
    """Submit, follow, and copy the record to `out`. Returns the status: finished, stopped or failed.

    However the run ends, its record is written before it is copied: by the run itself, or from what is on disk if its
    process is gone. Ctrl-C, SIGTERM and SIGHUP give the run up, durably: it is never begun afterwards.

    Raises
    ------
    FedAgeError
        If there is a run of this name, the SuperLink is not running, the record cannot be written, or `weights` are
        not those that the campaign begins with.
    """
    keep_given(campaign, weights)
    # What sites say is shown as it is, never read as markup.
    console = Console(highlight=False, soft_wrap=True, markup=False)
    run = run or datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    place = RunFolder(home.run_folder(campaign.campaign.name, run))
    if place.path.exists():
        raise FedAgeError(f"{place.path} exists: a run named {run!r} was recorded there; give another name with --name")
    console.print(f"campaign {campaign.campaign.name}, digest {campaign.digest}")
    if campaign.privacy.mode == "client":
        console.print("\n".join(privacy_plan(campaign)))
    put_bundle(campaign, bundle, folder=place.path)
    return _followed(home, campaign, place, out=out, console=console, resumed=False, weights=weights)


def resume(home: CoordinatorHome, place: RunFolder, *, out: Path | None) -> str:
    """Go on with a run that ended before it had finished, as `launch` does otherwise.

    Raises
    ------
    FedAgeError
        If the run goes on or has nothing to go on from, the SuperLink is not running, or the record cannot be written.
    """
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if not (place.path / CAMPAIGN).is_file():
        raise FedAgeError(f"{place.path} is not the folder of a run: it has no {CAMPAIGN}")
    if place.is_conducted() or place.is_followed():
        called = f"{place.campaign}/{place.name}"
        raise FedAgeError(f"the run {called} goes on; see how: fedage campaign watch --home {home.root} {called}")
    campaign = load_campaign(place.path / CAMPAIGN)
    must_run(home)
    console.print(f"campaign {campaign.campaign.name}, run {place.name}, digest {campaign.digest}")
    return _followed(home, campaign, place, out=out, console=console, resumed=True)


def stop(home: CoordinatorHome, name: str | None, *, after_round: bool) -> str:
    """Stop the run called `CAMPAIGN/RUN`, or the one that goes on, and wait for its record; what was done, in words.

    Raises
    ------
    FedAgeError
        If there is no such run, it does not go on, or the SuperLink is not running.
    """
    console = Console(highlight=False, soft_wrap=True, markup=False)
    place = run_named(home.runs, name)
    called = f"{place.campaign}/{place.name}"
    if not place.is_conducted():
        raise FedAgeError(f"the run {called} does not go on: {state_of(place).status}")
    must_run(home)
    if after_round:
        wait_for_round(place, tell=console.print)
    place.give_up("stopped at the coordinator by fedage campaign stop")
    console.print("stopping; the record is written first")
    status = _stopped(home, place, Follower(place.events, console=console, resumed=True))
    again = f"; to go on with it: fedage campaign resume --home {home.root} {called}" if place.is_resumable() else ""
    return f"{called}: {status}{again}"


def _followed(
    home: CoordinatorHome,
    campaign: Campaign,
    place: RunFolder,
    *,
    out: Path | None,
    console: Console,
    resumed: bool,
    weights: Path | None = None,
) -> str:
    try:
        with _interruptible(), place.waiting():
            if not resumed:
                keep_given(campaign, weights, folder=place.path)
            status = _conducted(home, campaign, place, console=console, resumed=resumed)
    except OSError as error:
        raise FedAgeError(
            f"{place.path} cannot be written ({error.strerror or type(error).__name__}), so the run is followed no "
            f"longer; make room or give this user the folder, then fedage campaign recover --home {home.root}"
        ) from None
    if out is not None:
        _copy(place.path, out)
    results = place.path / RESULTS
    if results.is_file():
        print_summary(read_results(results), console=console)
        console.print(f"report: {(out or place.path) / 'report.html'}")
    if status != "finished" and place.is_resumable():
        console.print(f"to go on with it: fedage campaign resume --home {home.root} {place.campaign}/{place.name}")
    return status


def _conducted(home: CoordinatorHome, campaign: Campaign, place: RunFolder, *, console: Console, resumed: bool) -> str:
    """Submit and follow a run to its record, whatever ends it."""
    if resumed:
        place.take_up()
        events = EventLog(place.events)
        events.emit(RESUMED)
        events.close()
    else:
        (place.path / CAMPAIGN).write_text(campaign.text, encoding="utf-8")
    follower = Follower(place.events, console=console, resumed=resumed)
    try:
        follower.say("submitting the run to the SuperLink")
        place.submitted_as(submit(home, campaign_text=campaign.text, run_name=place.name))
        status = _follow(home, place, follower)
    except KeyboardInterrupt:
        place.give_up("stopped at the coordinator by the person who ran it")
        console.print("stopping; the record is written first (once more Ctrl-C: do not wait for it)")
        status = _stopped(home, place, follower)
    except FedAgeError:
        if resumed:
            recover(place, reason="it could not be resumed")
        elif place.submitted_as() is None:
            shutil.rmtree(place.path)  # nothing was submitted, so there is no run
        raise
    return status


def _follow(home: CoordinatorHome, place: RunFolder, follower: Follower) -> str:
    """Print events as they come. A run that does not begin is given up, one whose process is gone gets its record."""
    submitted = asked = time.monotonic()
    gone_since: float | None = None
    follower.say("waiting for the run to begin")
    while (status := follower.look()) is None:
        now = time.monotonic()
        if not place.has_begun():
            if now - asked > _ASK_EVERY_S:
                asked = now
                outcome = _told(home, place)
                if outcome.startswith("finished") and not place.has_begun():
                    return _not_begun(home, place, follower, why=f"it ended before it began ({outcome})")
            if now - submitted > _BEGIN_S:
                return _not_begun(home, place, follower, why=f"it did not begin within {_BEGIN_S:g} s")
        elif place.is_conducted():
            gone_since = None
        elif gone_since is None:
            gone_since = now
        elif now - gone_since > _SEEN_DEAD_S:
            return _recovered(home, place, follower, reason=KILLED)
        time.sleep(0.2)
    _wait_for_record(place)
    return status


def _not_begun(home: CoordinatorHome, place: RunFolder, follower: Follower, *, why: str) -> str:
    reason = f"{why}; see {home.logs / 'superexec.log'} and {home.logs / 'superlink.log'}"
    place.give_up(reason, status="failed")
    return _recovered(home, place, follower, reason=reason)


def _recovered(home: CoordinatorHome, place: RunFolder, follower: Follower, *, reason: str) -> str:
    """Write the record of a run that nobody conducts any more, and end it in the SuperLink."""
    recover(place, reason=reason)
    _stop_in_superlink(home, place, follower)
    return _told_end(place, follower)


def _stopped(home: CoordinatorHome, place: RunFolder, follower: Follower) -> str:
    """Wait for a run that was given up to write its record; write it if it cannot."""
    deadline = time.monotonic() + _STOP_S
    while place.is_conducted() and follower.look() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    _wait_for_record(place)
    _stop_in_superlink(home, place, follower)
    recover(place, reason="stopped at the coordinator", status="stopped")
    return _told_end(place, follower)


def _told_end(place: RunFolder, follower: Follower) -> str:
    """What the record says of the end, printed if it was not."""
    status = follower.look()
    if status is None and (place.path / RESULTS).is_file():
        return str(read_results(place.path / RESULTS).run.status)
    return status or "failed"


def _wait_for_record(place: RunFolder) -> None:
    """The last event is there a moment before the process lets the folder go."""
    deadline = time.monotonic() + _STOP_S
    while place.is_conducted() and not place.is_recorded() and time.monotonic() < deadline:
        time.sleep(0.1)


def _stop_in_superlink(home: CoordinatorHome, place: RunFolder, follower: Follower) -> None:
    """End the run in the SuperLink, so that the sites stop computing. It never begins again without that, too."""
    number = place.submitted_as()
    if number is None:
        return
    try:
        stop_run(home, number)
    except FedAgeError as error:
        follower.say(f"the run could not be ended in the SuperLink; it will not be taken up again ({error})")


def _told(home: CoordinatorHome, place: RunFolder) -> str:
    """How the run is, as the SuperLink says; empty if it does not answer now."""
    number = place.submitted_as()
    try:
        return run_status(home, number) if number is not None else ""
    except FedAgeError:
        return ""


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP (a closed terminal) end the run as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, *hang_up()) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _copy(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for file in [*(folder / name for name in RECORD), *sorted(folder.glob(_MODELS_OF_FOLDS))]:
        if file.is_file():
            shutil.copyfile(file, out / file.name)
