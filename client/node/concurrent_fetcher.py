"""A SuperNode whose messages Flower's own processes answer, several at a time, and which learns when a run has ended.

Flower's SuperNode fetches a message, waits for its reply, and only then fetches the next: an analysis would wait for a
training of hours, and a run stopped meanwhile would be trained for to the end. Its loop calls two functions of its
module, one that fetches and one that waits and sends. `ConcurrentFetcher` stands in front of both: it fetches while
replies are outstanding, sends what is ready, and ends the tasks of runs that have ended.

`tests/client/agent/test_flower_contract.py` holds what is used of Flower. Where Flower changes, `install` refuses.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from flwr.common.constant import Status, SubStatus
from flwr.supercore.run import RunNotRunningException

MOST = 4
"""Messages in work at a time."""
_BUSY_POLL_S = 0.1
_SOON_S, _SOON_SHARE = 0.1, 0.1
"""After a reply the next message often follows: the shortest wait for it, and the share of the time since then."""
_ASK_ABOUT_RUNS_S = 2.0
_UNFINISHED = (Status.PENDING, Status.STARTING, Status.RUNNING)
_NOTHING_NEW = 0

logger = logging.getLogger(__name__)


class ConcurrentFetcher:
    """Stands in front of a SuperNode's fetching and sending.

    Parameters
    ----------
    fetch, send
        Flower's `_pull_and_store_message` and `_push_messages`.
    most
        Messages in work at a time.
    poll_s
        Seconds between two looks for work that found none, also while there is work: the coordinator answers each.
    """

    def __init__(
        self,
        *,
        fetch: Callable[..., int | None],
        send: Callable[..., None],
        most: int = MOST,
        poll_s: float,
    ) -> None:
        self._fetch = fetch
        self._send = send
        self._most = most
        self._poll_s = poll_s
        self._asked_at = 0.0
        self._nothing_at = -poll_s
        self._worked_at = -math.inf

    def fetch(self, **arguments: Any) -> int:
        """Fetch a message if there is room for one; returns always, so that what is ready is sent."""
        state = arguments["state"]
        in_work = state.get_tasks(statuses=_UNFINISHED)
        may_look = not in_work or time.monotonic() - self._nothing_at >= self._poll_s
        if may_look and len(in_work) < self._most:
            run_id = self._fetch(**arguments)
            if run_id is not None:
                return run_id
            self._nothing_at = time.monotonic()
        if in_work:
            self._end_what_is_not_wanted(state, in_work, arguments["get_run"])
            self._worked_at = time.monotonic()
            time.sleep(min(_BUSY_POLL_S, self._poll_s))
        else:
            soon_s = max(_SOON_S, _SOON_SHARE * (time.monotonic() - self._worked_at))
            time.sleep(min(soon_s, self._poll_s))
        return _NOTHING_NEW

    def send(self, **arguments: Any) -> None:
        """Send the replies that are ready, and wait for none."""
        state = arguments.pop("state")
        ready = state.get_messages_legacy(is_reply=True)
        if ready:
            self._send(state=_Ready(state, ready), **arguments)

    def _end_what_is_not_wanted(self, state: Any, in_work: Any, get_run: Callable[[int], Any]) -> None:
        if time.monotonic() - self._asked_at < _ASK_ABOUT_RUNS_S:
            return
        self._asked_at = time.monotonic()
        for run_id in {task.run_id for task in in_work}:
            if not has_ended(run_id, get_run):
                continue
            logger.info("a run has ended; what was in work for it is stopped")
            for task in in_work:
                if task.run_id == run_id:
                    # Its executor's next heartbeat is refused, and it withdraws the message from the agent.
                    state.finish_task(task.task_id, sub_status=SubStatus.STOPPED, details="the run has ended")


def install(module: ModuleType, *, poll_s: float) -> None:
    """Put `ConcurrentFetcher` in front of the two functions of Flower's module.

    Raises
    ------
    AttributeError
        If the module has them no more.
    """
    both = ConcurrentFetcher(fetch=module._pull_and_store_message, send=module._push_messages, poll_s=poll_s)
    vars(module).update(_pull_and_store_message=both.fetch, _push_messages=both.send)


def has_ended(run_id: int, get_run: Callable[[int], Any]) -> bool:
    """Whether the coordinator says that a run has ended."""
    try:
        return bool(get_run(run_id).status.status == Status.FINISHED)
    except RunNotRunningException:  # no `Exception`: it would take the SuperNode along
        return True
    except Exception as error:  # noqa: BLE001 - not knowing is no reason to stop, nor to fall
        logger.warning("cannot ask how a run is doing: %s", type(error).__name__)
        return False


class _Ready:
    """A node's state whose waiting replies were taken already."""

    def __init__(self, state: Any, ready: Any) -> None:
        self._state = state
        self._ready = ready

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def get_messages_legacy(self, **_filters: Any) -> Any:
        """The replies that were taken."""
        return self._ready
