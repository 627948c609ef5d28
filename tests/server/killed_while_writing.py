"""A campaign over sites in memory, whose process is killed from outside while it writes its journal, and goes on."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

from fedage.common.campaign_file import parse_campaign
from tests.server.test_conduct_folds import NETWORK
from tests.server.test_quorum import PARTS
from tests.server.test_resume import Coordinator
from tests.watched_folder import WatchedFolder

JOURNAL = {
    "the model being written": r"\.\d{6}\.model\.[0-9a-f]+\.partial",
    "the model there, its step not": r"\d{6}\.model",
    "the step being written": r"\.\d{6}\.safetensors\.[0-9a-f]+\.partial",
}
"""What is made or moved into a run's journal as a round ends; steps also as an exchange does."""
ROUNDS = 8
TEXT = (NETWORK + PARTS).replace("rounds = 2", f"rounds = {ROUNDS}").replace("deadline_s = 1", "deadline_s = 600")
"""The model has 5.8 MB, so that a disk takes a moment for it."""
TEXT = TEXT.replace("[estimator.options]", "[estimator.options]\nhidden = [1200, 1200]")


def main() -> None:
    """Conduct the run in one folder, killing it once for each moment given; what was met, a line each."""
    folder, moments = Path(sys.argv[1]), [list(JOURNAL)[int(number)] for number in sys.argv[2]]
    made = Coordinator(folder, text=TEXT)
    made.run.journal.mkdir(mode=0o700, parents=True)
    for what in moments:
        told = WatchedFolder(made.run.journal)
        child = started(folder)
        met = 0
        while met < 2:  # what was cut off last time goes well, and the next round's is met
            met += sum(re.fullmatch(JOURNAL[what], name) is not None for name in told.names(timeout_s=120))
            assert os.waitpid(child, os.WNOHANG) == (0, 0), what
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, what
        told.close()
        left = sorted(re.sub(r"[0-9a-f]{8}\.partial", "partial", f.name) for f in made.run.journal.glob("*.partial"))
        print(f"{what}: killed, {', '.join(left) or 'nothing'} left half written", flush=True)
    assert os.waitstatus_to_exitcode(os.waitpid(started(folder), 0)[1]) == 0


def started(folder: Path) -> int:
    """A process that conducts the run to its end, forked from this one, which has loaded everything."""
    if (child := os.fork()) == 0:
        done = False
        try:
            made = Coordinator(folder, text=TEXT)
            for site in made.sites:  # which approved it before they were killed with the process
                site.offer(TEXT, digest=parse_campaign(TEXT).digest)
            done = made.conduct()
        finally:
            os._exit(0 if done else 1)
    return child


if __name__ == "__main__":
    main()
