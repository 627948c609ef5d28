"""A process of the coordinator that is started again when it ends by itself, after a pause that grows."""

from __future__ import annotations

import time
from collections.abc import Callable

from fedage.deploy.machine.processes import ProcessTree

_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STEADY_S = 60.0


class Restarted:
    """One process with what is needed to start it again.

    Parameters
    ----------
    name
        What a person calls it.
    launch
        Starts it.
    tell
        Told in a sentence when it ended, and why, and when it is started again.
    """

    def __init__(self, name: str, launch: Callable[[], ProcessTree], *, tell: Callable[[str], None]) -> None:
        self.name = name
        self.family: ProcessTree | None = None
        self.restarts = 0
        self._launch = launch
        self._tell = tell
        self._failures = 0
        self._started = self._not_before = 0.0

    def start(self) -> ProcessTree:
        """Start it now."""
        self._started = time.monotonic()
        self.family = self._launch()
        return self.family

    def ensure(self) -> bool:
        """Start it again if it has ended and its pause is over. Whether it was started just now."""
        if self.family is not None and self.family.poll() is not None:
            self._bury(self.family)
        if self.family is None and time.monotonic() >= self._not_before:
            self.restarts += 1
            self.start()
            return True
        return False

    def stop(self, *, grace_s: float = 10.0) -> None:
        """End it and all it started."""
        if self.family is not None:
            self.family.stop(grace_s=grace_s)
            self.family = None

    def _bury(self, family: ProcessTree) -> None:
        status = family.poll()
        family.stop()
        self.family = None
        steady = time.monotonic() - self._started > _STEADY_S
        self._failures = 1 if steady else self._failures + 1
        pause_s = _PAUSES_S[min(self._failures, len(_PAUSES_S)) - 1]
        self._not_before = time.monotonic() + pause_s
        how = f"was ended by signal {-status}" if status is not None and status < 0 else f"ended with status {status}"
        said = f"; the end of {family.log}:\n{family.tail()}" if self._failures > 1 else f"; see {family.log}"
        self._tell(f"the {self.name} {how} and is started again in {pause_s:g} s{said}")
