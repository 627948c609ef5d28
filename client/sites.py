"""Which site this process is: the agent's own home, or a partition of a simulation."""

from __future__ import annotations

import threading

from flwr.app import Context

from fedage.client.deployed import DeployedSite
from fedage.client.site import Site

_sites: dict[str, Site] = {}
_lock = threading.Lock()


def site_for(context: Context) -> Site:
    """The site of this context; a home is opened once and stays warm.

    Raises
    ------
    RuntimeError
        If the context names no site.
    """
    home = context.node_config.get("site-home")
    if not isinstance(home, str):
        raise RuntimeError("no site-home in the node configuration; the agent sets it")
    with _lock:
        if home not in _sites:
            _sites[home] = DeployedSite.load(home)
        return _sites[home]
