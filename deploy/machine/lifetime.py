"""Living until told to stop: by a signal, or by the death of the process that started this one."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def hang_up() -> tuple[signal.Signals, ...]:
    """SIGHUP, unless this process was started to outlive its terminal (`nohup`)."""
    return () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)


@contextmanager
def until_told_to_stop(*, with_parent: bool = False) -> Iterator[threading.Event]:
    """An event that SIGINT, SIGTERM or SIGHUP sets; SIGHUP not under `nohup`.

    Parameters
    ----------
    with_parent
        Also stop when standard input closes. A supervisor that holds the other end of that pipe thereby takes this
        process along however it dies, kill -9 included.
    """
    stop = threading.Event()

    def tell(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM, *hang_up())}

    def watch() -> None:
        while sys.stdin.buffer.read(4096):
            pass
        stop.set()

    if with_parent:
        threading.Thread(target=watch, daemon=True, name="parent-watch").start()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
