"""`flwr-serverapp` that ends with the executor that started it, whatever it waits for. Run by `superexec_main`.

While the SuperLink does not answer, Flower waits up to 20 s between two tries, one thread after the other, and raises
its signal in a thread where it interrupts none of these waits. Here the signal is the process's, which interrupts them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from flwr.supercore.interceptors.http import runtime_token
from flwr.superlink.cli import flwr_serverapp
from flwr.superlink.grid import http_grid

from fedage.deploy.machine.parts import may_be_held, pull_parts, push_parts
from fedage.deploy.machine.processes import end_with_parent

_HELD_S = 0.5
"""So long a look for replies is held; between two looks a round's deadline or quorum may be reached."""


def move_parts_together() -> None:
    """Let Flower's Grid send and fetch the parts of a message in few requests, and wait for replies at the SuperLink.

    `tests/server/superlink/test_parts.py` holds what is used of Flower.
    """

    def pull(object_ids: list[str], pull_object_fn: Callable[[str], bytes]) -> dict[str, bytes]:
        return pull_parts(object_ids, pull_object_fn)

    def push(
        objects: dict[str, Any], push_object_fn: Callable[[str, bytes], None], *, object_ids_to_push: set[str]
    ) -> None:
        push_parts(
            ((name, part.deflate()) for name, part in objects.items() if name in object_ids_to_push), push_object_fn
        )

    for name, stands_in in (("pull_objects", pull), ("push_objects", push)):
        getattr(http_grid, name)
        setattr(http_grid, name, stands_in)
    may_be_held(runtime_token, seconds=_HELD_S)


def main() -> None:
    """Conduct one run."""
    end_with_parent()
    move_parts_together()
    sys.argv[0] = "flwr-serverapp"
    flwr_serverapp()


if __name__ == "__main__":
    main()
