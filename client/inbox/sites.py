"""Which site this process is: the agent's own home, or a site that a simulation has put in place."""

from __future__ import annotations

import threading
from pathlib import Path

from flwr.app import Context

from fedage.client.inbox.site import Site
from fedage.deploy.machine.simulation import SimulationJob, current_job

_sites: dict[str, Site] = {}
_lock = threading.Lock()


def put_site(name: str, site: Site) -> None:
    """Put a site in place under a name that a node configuration may give as `site`."""
    with _lock:
        _sites[name] = site


def close_sites() -> None:
    """Close the files of every site that is open, as an agent that stops does. Raises `StoreUnavailable`."""
    with _lock:
        for site in _sites.values():
            if site.rules is not None:
                site.rules.close()
        _sites.clear()


def site_for(context: Context) -> Site:
    """The site of this context; a home is opened once and stays warm.

    Raises
    ------
    RuntimeError
        If the context names no site.
    """
    home, name = context.node_config.get("site-home"), context.node_config.get("site")
    with _lock:
        if isinstance(home, str):
            if home not in _sites:
                from fedage.client.inbox.deployed import (
                    DeployedSite,  # the store and its database: only where there is one
                )

                _sites[home] = DeployedSite.load(Path(home))
            return _sites[home]
        if isinstance(name, str) and name in _sites:
            return _sites[name]
        if (job := current_job()) is not None:
            return _simulated(job, context)
    raise RuntimeError("the node configuration names no site; the agent sets site-home, a simulation puts sites")


def _simulated(job: SimulationJob, context: Context) -> Site:
    """The site of a virtual node, kept warm in this process while the run goes on."""
    from fedage.client.inbox.simulated import simulated_site

    partition = int(context.node_config["partition-id"])
    key = f"{job.folder}#{partition}"
    if key not in _sites:
        _sites[key] = simulated_site(partition, job)
    return _sites[key]
