"""A Grid that is prompt: replies are handed on as they arrive, and every message ends by its deadline.

Flower's own `send_and_receive` sleeps 3 s between looks and gives everything back at once. Its `push_messages` and
`pull_messages` are public, so this needs no more than they.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable import inflatable_utils

UNANSWERED = 0
"""Code of a failure that no one reported: the deadline passed, the exchange was stopped, or nothing could be sent."""

_LOOK_SHARE = 0.05
_LOOK_MAX_S = 1.0
_GRACE_S = 5.0
_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}")
_CLASS = re.compile(r"<class '(?:\w+\.)*([A-Za-z_]\w{0,79})(?:\([\w.]*\))?'>")
_OF_FLOWER = {
    # What Flower says of a message whose time is over, fetched by its node or not.
    ErrorCode.MESSAGE_UNAVAILABLE: "did not answer before the deadline",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "the answer came after the deadline",
    ErrorCode.NODE_UNAVAILABLE: "went offline",
    ErrorCode.MOD_FAILED_PRECONDITION: "the app could not begin",
    ErrorCode.INVALID_FAB: "the app was refused",
    ErrorCode.CLIENT_APP_CRASHED: "the app crashed",
}
_BACKOFF_S, _BACKOFF_CAP_S = 0.05, 1.0
_LOST = frozenset({"AgentUnavailable", "the app crashed"})
_SENT_AT_MOST = 3
"""A message that kills its agent each time is not sent for ever."""
_BACK_WITHIN_S = 90.0
"""A node that was killed may connect again some twenty seconds later; a machine that restarts takes longer."""
_RESTART_S = 1.0
_NODES_EVERY_S = 2.0


@dataclass(frozen=True)
class Failure:
    """A node that did not answer.

    Parameters
    ----------
    code
        Flower's error code, or `UNANSWERED`.
    reason
        Why, in our words; of an exception its type's name and never its text, which a site or an engine may have
        filled with whatever it had in hand.
    """

    code: int
    reason: str


class AnyGrid(Protocol):
    """What this needs of a Grid: Flower's own, or one in this process."""

    def get_node_ids(self) -> Iterable[int]:
        """Ids of the nodes online."""

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message of this run."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send, and return an id a message, in order."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies there are to these messages; each is given out once."""


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
        if reason := self._stop():
            raise Stopped(reason) if isinstance(reason, str) else KeyboardInterrupt
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


@dataclass(frozen=True)
class Again:
    """How a node is asked again that was lost: its agent, its relay or the node itself was killed, and started again.

    Parameters
    ----------
    message
        The message of a node once more, with the same content: a site that has answered it gives the stored answer.
    tell
        Told which node was lost and why, each time.
    """

    message: Callable[[int], Message]
    tell: Callable[[int, Failure], None]


@dataclass
class _Lost:
    failure: Failure
    until: float
    not_before: float


class _UnderWay:
    """The messages of one exchange: what is waited for, which nodes were lost, and what has come back."""

    def __init__(
        self,
        grid: AnyGrid,
        *,
        deadline_s: float,
        on_reply: Callable[[int, Message | Failure], None] | None,
        keep: bool,
        again: Again | None,
    ) -> None:
        self.waiting: dict[str, int] = {}
        self.lost: dict[int, _Lost] = {}
        self.results: dict[int, Message | Failure] = {}
        self.began = self._looked = time.monotonic()
        # The SuperLink itself answers for a node whose time is over; the grace is for that answer.
        self.ends = self.began + deadline_s + min(_GRACE_S, deadline_s)
        self._grid, self._on_reply, self._keep, self._again = grid, on_reply, keep, again
        self._deadline, self._deadline_s = self.began + deadline_s, deadline_s
        self._sent: dict[int, int] = {}
        self._activated: dict[int, str] = {}

    def send(self, messages: list[Message]) -> None:
        """Send messages, with what is left of the time as their time to live."""
        nodes = [message.metadata.dst_node_id for message in messages]
        left_s = self._deadline - time.monotonic() if self._sent else self._deadline_s
        for message in messages:
            message.metadata.ttl = max(left_s, 0.1)
        if self._again is not None:
            self._activated.update({node: when for node, when in _activations(self._grid).items() if node in nodes})
        sent = list(self._grid.push_messages(messages)) if messages else []
        # A message that could not be pushed has no id; if the whole lot was too large, there is no list either.
        for node, message_id in zip(nodes, sent or [""] * len(nodes), strict=True):
            self._sent[node] = self._sent.get(node, 0) + 1
            if message_id:
                self.waiting[message_id] = node
            else:
                self._settle(node, Failure(UNANSWERED, "the SuperLink did not take the message"))

    def take(self, node: int, reply: Message | Failure) -> None:
        """A reply or a failure of a node; one of a node that may be back soon is kept back until then."""
        now = time.monotonic()
        more = self._sent.get(node, 0) < _SENT_AT_MOST and now < self._deadline
        if self._again is not None and more and isinstance(reply, Failure) and is_lost(reply):
            until = min(self._deadline, now + _BACK_WITHIN_S)
            self.lost[node] = _Lost(reply, until, not_before=now + _RESTART_S)
            self._again.tell(node, reply)
            return
        self._settle(node, reply)

    def look_after_nodes(self) -> None:
        """Every other second: ask nodes again that are back, and find those that were started again in between."""
        now = time.monotonic()
        if self._again is None or now - self._looked < _NODES_EVERY_S or not (self.waiting or self.lost):
            return
        self._looked = now
        activated = _activations(self._grid)
        online = set(activated) or set(self._grid.get_node_ids())
        for message_id, node in list(self.waiting.items()):
            if activated.get(node, self._activated.get(node)) != self._activated.get(node):
                # Started again since it was written to: what it had fetched died with it, and nobody will say so.
                del self.waiting[message_id]
                self.take(node, Failure(ErrorCode.NODE_UNAVAILABLE, "was started again"))
        for node, lost in list(self.lost.items()):
            if now >= lost.until:
                self._settle(node, lost.failure)
            elif node in online and now >= lost.not_before:
                del self.lost[node]
                self.send([self._again.message(node)])

    def end(self, reason: str) -> None:
        """Settle what is left."""
        for node, lost in list(self.lost.items()):
            self._settle(node, lost.failure)
        for node in self.waiting.values():
            self._settle(node, Failure(UNANSWERED, reason))

    def _settle(self, node: int, result: Message | Failure) -> None:
        self.lost.pop(node, None)
        if self._keep:
            self.results[node] = result
        if self._on_reply is not None:
            self._on_reply(node, result)


def is_lost(failure: Failure) -> bool:
    """Whether it may come back: a process of the site is gone; its supervisor starts it again."""
    return failure.code == ErrorCode.NODE_UNAVAILABLE or failure.reason in _LOST


def _activations(grid: AnyGrid) -> dict[int, str]:
    """When each node online was started last, as Flower tells it; empty for a Grid that does not tell."""
    nodes = getattr(grid, "get_nodes", None)
    return {node.node_id: node.last_activated_at for node in nodes()} if nodes is not None else {}


class PollingGrid:
    """Exchanges over a Grid.

    Parameters
    ----------
    grid
        Flower's Grid, or anything with the same four methods.
    poll_s
        Shortest time between two looks for replies. While a reply takes long the looks become rarer, up to once a
        second, and never cost more than a twentieth of the time already waited.
    """

    def __init__(self, grid: AnyGrid, *, poll_s: float = 0.1) -> None:
        self._grid = grid
        self._poll_s = poll_s

    def get_node_ids(self) -> list[int]:
        """Ids of the nodes online, in order."""
        return sorted(self._grid.get_node_ids())

    def exchange(
        self,
        messages: Iterable[Message],
        *,
        deadline_s: float,
        on_reply: Callable[[int, Message | Failure], None] | None = None,
        keep: bool = True,
        stop: Callable[[], bool] | None = None,
        again: Again | None = None,
    ) -> dict[int, Message | Failure]:
        """Send one message to each of some nodes and collect what comes back.

        Parameters
        ----------
        messages
            At most one a node. The same content for several nodes travels to the SuperLink once.
        deadline_s
            Time for a message and its reply. It is also put on the messages as their time to live, so that a node
            does not begin, or answer, when nobody waits any more.
        on_reply
            Told of each reply or failure as it arrives.
        keep
            Whether replies are given back at the end as well. Replies with large arrays are better taken one by one.
        stop
            Asked at every look; True ends the exchange at once, e.g. when a quorum is enough.
        again
            How to ask a node again that was lost on the way and is back within the deadline; None: it is not asked.

        Returns
        -------
        A reply or a failure for every node written to; nothing if they are not kept.
        """
        outgoing = list(messages)
        nodes = [message.metadata.dst_node_id for message in outgoing]
        if len(set(nodes)) != len(nodes):
            raise ValueError("an exchange has at most one message a node")
        under_way = _UnderWay(self._grid, deadline_s=deadline_s, on_reply=on_reply, keep=keep, again=again)
        under_way.send(outgoing)
        del outgoing
        reason = ""
        while under_way.waiting or under_way.lost:
            looked = time.monotonic()
            arrived = self._look(under_way)
            under_way.look_after_nodes()
            reason = _reason_to_end(ends=under_way.ends, deadline_s=deadline_s, stop=stop)
            if reason or not (under_way.waiting or under_way.lost):
                break
            # A look that the SuperLink held until there was something, or nothing for a while, was a pause itself.
            pause_s = 0.0 if arrived else self._pause_s(began=under_way.began, ends=under_way.ends)
            time.sleep(max(0.0, pause_s - (time.monotonic() - looked)))
        under_way.end(reason)
        return under_way.results

    def _look(self, under_way: _UnderWay) -> bool:
        """Take what has arrived; whether anything has. Nothing of it is held here when this returns."""
        if not under_way.waiting:
            return False
        with _quick_pulls(until=under_way.ends):
            arrived = list(self._grid.pull_messages(list(under_way.waiting)))
        for node, reply in _sorted_out(arrived, under_way.waiting):
            under_way.take(node, reply)
        return bool(arrived)

    def _pause_s(self, *, began: float, ends: float) -> float:
        now = time.monotonic()
        rarer = min((now - began) * _LOOK_SHARE, _LOOK_MAX_S)
        return max(0.0, min(max(self._poll_s, rarer), ends - now))


def _sorted_out(replies: Iterable[Message], waiting: dict[str, int]) -> Iterator[tuple[int, Message | Failure]]:
    """Replies by node; those that nobody waits for are dropped, the others are taken out of `waiting`."""
    for reply in replies:
        node = waiting.pop(reply.metadata.reply_to_message_id, None)
        if node is None:
            continue
        if reply.has_error():
            yield node, Failure(reply.error.code, _failure_text(reply.error.code, reply.error.reason or ""))
        else:
            yield node, reply


def _failure_text(code: int, reason: str) -> str:
    """A site's reason is one type's name; Flower's engine puts the class, the text and a traceback there."""
    if code in _OF_FLOWER:
        return _OF_FLOWER[code]
    if _TYPE.fullmatch(reason):
        return reason
    class_name = _CLASS.match(reason)
    return class_name[1] if class_name else "failed and did not say why"


def _reason_to_end(*, ends: float, deadline_s: float, stop: Callable[[], bool] | None) -> str:
    if stop is not None and stop():
        return "no answer when enough others had given theirs"
    return f"no answer within {deadline_s:g} s" if time.monotonic() >= ends else ""


@contextmanager
def _quick_pulls(*, until: float) -> Iterator[None]:
    """Look again soon for a reply whose header is there and whose data is still on its way, and give up in time.

    A frequent poll meets that moment often. Flower then waits 1 s, later 10 s, with the other nodes' replies behind it,
    and for hours if the sender has died. These are defaults of arguments, set here for one pull; where they are not so
    any more, this does nothing.
    """
    defaults = inflatable_utils.pull_objects.__kwdefaults__ or {}
    wanted = {
        "initial_backoff": _BACKOFF_S,
        "backoff_cap": _BACKOFF_CAP_S,
        "max_tries_per_object": None,
        "max_time": max(_BACKOFF_CAP_S, until - time.monotonic()),
    }
    before = {name: defaults[name] for name in wanted if name in defaults}
    defaults.update({name: wanted[name] for name in before})
    try:
        yield
    finally:
        defaults.update(before)
