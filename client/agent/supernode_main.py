"""`flower-supernode`, prompt, and ending when the process that started it does. Run by the supervisor.

Flower's SuperNode sleeps 3 s between looks for work and has no option for it. The one module that sleeps is given a
clock whose `sleep` is capped; `tests/client/agent/test_flower_contract.py` holds that it still is the one. Where Flower
changes, the cap is without effect and nothing else is.
"""

from __future__ import annotations

import os
import time

from flwr.supernode import start_client_internal
from flwr.supernode.cli import flower_supernode

from fedage.common.processes import end_with_parent

POLL_VARIABLE = "FEDAGE_POLL_S"
_REPLY_POLL_S = 0.1
"""How often the SuperNode looks whether the relay has answered: in its own memory, so it costs nothing."""


class PromptClock:
    """The `time` module with a `sleep` that Flower's two waiting loops end sooner.

    Parameters
    ----------
    poll_s
        Longest wait between two looks for work at the SuperLink.
    """

    def __init__(self, *, poll_s: float) -> None:
        self._poll_s = poll_s

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than asked nor than allowed."""
        time.sleep(min(seconds, self._poll_s if seconds >= 1 else _REPLY_POLL_S))


def main() -> None:
    """Run the SuperNode until it is told to stop."""
    end_with_parent()
    vars(start_client_internal)["time"] = PromptClock(poll_s=float(os.environ.get(POLL_VARIABLE, "3")))
    flower_supernode()


if __name__ == "__main__":
    main()
