"""How a handler learns that nobody waits for its answer any more: it calls `stop_if_cancelled()` once a batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Cancelled(Exception):
    """The answer is not wanted any more: the relay is gone, the message was cancelled, or its time is over."""


class Cancellation:
    """One message's reason to stop.

    Parameters
    ----------
    lifetime_s
        Seconds from now after which the answer is worthless. Counted from arrival, so that clocks of two machines need
        not agree.
    """

    def __init__(self, *, lifetime_s: float = float("inf")) -> None:
        self._event = threading.Event()
        self._deadline = time.monotonic() + lifetime_s
        self._reason = "TimeOver"

    def cancel(self, reason: str = "Cancelled") -> None:
        """Ask the handler to stop; the first reason given stays."""
        if not self._event.is_set():
            self._reason = reason
            self._event.set()

    @property
    def reason(self) -> str:
        """Why: `Cancelled`, `Superseded`, or `TimeOver`."""
        return self._reason

    @property
    def left_s(self) -> float:
        """Seconds until the answer is worthless."""
        return max(0.0, self._deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the handler should stop."""
        return self._event.is_set() or time.monotonic() > self._deadline


_current: ContextVar[Cancellation | None] = ContextVar("fedage_cancellation", default=None)


@contextmanager
def cancellable(cancellation: Cancellation) -> Iterator[None]:
    """Make `should_stop` speak of this message in the current thread."""
    token = _current.set(cancellation)
    try:
        yield
    finally:
        _current.reset(token)


def should_stop() -> bool:
    """Whether the message being handled is cancelled; False outside an agent."""
    current = _current.get()
    return current is not None and current.cancelled


def left_s() -> float:
    """Seconds that somebody waits for the message being handled; 0 outside an agent."""
    current = _current.get()
    return 0.0 if current is None else current.left_s


def wait_for(has: Callable[[], bool], *, look_s: float = 0.05) -> None:
    """Wait until `has()`, for instance until a lock was taken, or raise `Cancelled` if nobody waits for it any more."""
    while not has():
        stop_if_cancelled()
        time.sleep(look_s)


def stop_if_cancelled() -> None:
    """Raise `Cancelled` if the message being handled is cancelled."""
    if should_stop():
        raise Cancelled
