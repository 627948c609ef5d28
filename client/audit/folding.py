"""Messages that anybody can send: written down one by one as long as they are few, counted beyond that.

What is not signed by the pinned coordinator costs the sender nothing. If each left its two lines, whoever holds the
relay could fill the disk and bury the log. So in a minute a few have lines of their own; the others are refused all the
same, and one line says how many they were. A crash forgets the count of its last minute, nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fedage.client.audit.entries import Direction, Entry, Kind, Outcome

WINDOW_S = 60.0
MOST_LINES = 20
"""Messages with lines of their own within a window."""
FOLDED = "folded"
"""The rule in the line that stands for many."""


class Folding:
    """Counts what is not verified.

    Parameters
    ----------
    append
        Writes an entry to the audit log.
    clock
        Seconds that never go back.
    """

    def __init__(self, append: Callable[[Entry], object], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._append = append
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._messages = 0
        self._bytes = 0

    def takes(self, size_bytes: int) -> bool:
        """Count a message that is not verified; whether it gets no lines of its own.

        Raises
        ------
        AuditUnavailable
            If the line about an earlier window cannot be written.
        """
        with self._lock:
            self._end_window(self._clock())
            self._messages += 1
            if self._messages <= MOST_LINES:
                return False
            self._bytes += size_bytes
            return True

    def write_if_due(self) -> None:
        """Write the line about a window that is over. Raises `AuditUnavailable` if that fails."""
        with self._lock:
            self._end_window(self._clock())

    def write(self) -> None:
        """Write the line about the window until now. Raises `AuditUnavailable` if that fails."""
        with self._lock:
            self._end_window(self._since + WINDOW_S)

    def _end_window(self, now: float) -> None:
        if now < self._since + WINDOW_S:
            return
        folded = self._messages - MOST_LINES
        if folded > 0:
            self._append(
                Entry(
                    direction=Direction.IN,
                    kind=Kind.UNREADABLE,
                    outcome=Outcome.REFUSED,
                    rule=FOLDED,
                    folded=folded,
                    size_bytes=self._bytes,
                )
            )
        self._since, self._messages, self._bytes = now, 0, 0
