"""A Grid that a run can be stopped through: where no signal reaches the ServerApp, its next call to the Grid does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message, RecordDict

from fedage.server.superlink.grid import AnyGrid


class Stopped(KeyboardInterrupt):
    """A run was told to stop; the message says by whom and why."""


class StoppableGrid:
    """Another Grid, until it is told to stop.

    Flower runs a simulation's ServerApp in a thread, and Python hands signals to the main thread only. A run looks for
    nodes and replies at least once a second, so this is soon enough.

    Parameters
    ----------
    grid
        The Grid that does the work.
    stop
        Asked before every call. Once it says True each call raises `KeyboardInterrupt`, as Ctrl-C would; once it says
        why in words, `Stopped` with these.
    """

    def __init__(self, grid: AnyGrid, *, stop: Callable[[], bool | str]) -> None:
        self._grid = grid
        self._stop = stop

    def _go_on(self) -> AnyGrid:
        if told := self._stop():
            raise Stopped(told) if isinstance(told, str) else KeyboardInterrupt
        return self._grid

    def get_node_ids(self) -> Iterable[int]:
        """Ids of the nodes online."""
        return self._go_on().get_node_ids()

    def get_nodes(self) -> Iterable[Any]:
        """What the other Grid tells of the nodes online; nothing if it tells nothing."""
        nodes = getattr(self._go_on(), "get_nodes", None)
        return nodes() if nodes is not None else ()

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message of this run."""
        return self._go_on().create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send, and return an id a message, in order."""
        return self._go_on().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies there are to these messages."""
        return self._go_on().pull_messages(message_ids)
