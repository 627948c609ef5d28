"""Flower's waits, shortened where a hospital would otherwise sleep through a campaign.

Flower has no options for these. Each is a module's clock or the default of an argument, set once in the process that is
ours; `tests/client/agent/test_flower_contract.py` holds that they still are. Where Flower changes, this is without
effect and nothing else is.
"""

from __future__ import annotations

import time
from types import ModuleType

from flwr.supercore import heartbeat
from flwr.supercore.inflatable import inflatable_utils
from flwr.supernode import fleet_http_connection

HEARTBEAT_S = 10
"""The shortest that a SuperLink takes; a node is missed after twice as long."""
_REPLY_POLL_S = 0.05
_BACKOFF_S, _BACKOFF_CAP_S = 0.05, 1.0


class ShortWaitClock:
    """The `time` module with a `sleep` that a waiting loop ends sooner.

    Parameters
    ----------
    poll_s
        Longest wait between two looks at another machine (waits of a second and more). Shorter ones are for this
        process's own memory, where a look costs nothing.
    """

    def __init__(self, *, poll_s: float) -> None:
        self._poll_s = poll_s

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than asked nor than allowed."""
        time.sleep(min(seconds, self._poll_s if seconds >= 1 else _REPLY_POLL_S))


def shorten_sleeps(module: ModuleType, *, poll_s: float) -> None:
    """Give a module that says `time.sleep` a prompt clock."""
    vars(module)["time"] = ShortWaitClock(poll_s=poll_s)


def hasten_heartbeats() -> None:
    """Say more often that this node is alive, so that the coordinator hears soon when it is not.

    A node that was killed cannot connect again before it is missed, which by Flower's default takes a minute, and here
    twenty seconds.
    """
    for module in (heartbeat, fleet_http_connection):
        if "HEARTBEAT_DEFAULT_INTERVAL" in vars(module):
            vars(module)["HEARTBEAT_DEFAULT_INTERVAL"] = HEARTBEAT_S


def shorten_pulls() -> None:
    """Look again soon for a message whose header is there and whose data is still on its way.

    Who looks often meets that moment often, and Flower then waits 1 s, 2 s, 4 s.
    """
    wanted = {"initial_backoff": _BACKOFF_S, "backoff_cap": _BACKOFF_CAP_S, "max_tries_per_object": None}
    for pull in (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree):
        defaults = pull.__kwdefaults__ or {}
        defaults.update({name: value for name, value in wanted.items() if name in defaults})
