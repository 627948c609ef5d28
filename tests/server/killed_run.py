"""Processes that conduct a campaign over sites in memory and kill themselves at the n-th message of a kind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from flwr.app import Message

from fedage.common.campaign_file import parse_campaign
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.run_folder import RunFolder
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, memory_site
from tests.server.test_conduct import CAMPAIGN


def main() -> None:
    """One process for each `kind-number` given, forked from this one, which has loaded everything."""
    folder = Path(sys.argv[1])
    for name in sys.argv[2:]:
        kind, _, number = name.rpartition("-")
        if (child := os.fork()) == 0:
            try:
                conduct_until(folder / name, kind=kind, number=int(number))
            finally:
                os._exit(1)  # it should have been killed
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, name


def conduct_until(folder: Path, *, kind: str, number: int) -> None:
    seen = 0

    def meddle(message: Message, _node: int) -> Message:
        nonlocal seen
        seen += message.metadata.message_type == kind
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return message

    sites = [memory_site(name, folder / "sites", count=48, seed=seed) for seed, name in enumerate("abc")]
    grid = InProcessGrid(sites, meddle=meddle)
    run = RunFolder(folder / "runs" / "machinery" / "r1")
    place = Place(folder=run.path, run="r1", environment="deployment", guard=True)
    with run.waiting(), run.conducting():
        conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(CAMPAIGN), place, key=None, admitted=grid.names)


if __name__ == "__main__":
    main()
