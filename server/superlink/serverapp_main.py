"""`flwr-serverapp` that ends with the executor that started it, whatever it waits for. Run by `superexec_main`.

While the SuperLink does not answer, Flower waits up to 20 s between two tries, one thread after the other, and raises
its signal in a thread where it interrupts none of these waits. Here the signal is the process's, which interrupts them.
"""

from __future__ import annotations

import sys

from flwr.superlink.cli import flwr_serverapp

from fedage.deploy.machine.processes import end_with_parent


def main() -> None:
    """Conduct one run."""
    end_with_parent()
    sys.argv[0] = "flwr-serverapp"
    flwr_serverapp()


if __name__ == "__main__":
    main()
