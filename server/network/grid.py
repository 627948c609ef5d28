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
from typing import Protocol

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
    ErrorCode.MESSAGE_UNAVAILABLE: "the message was not delivered in time",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "the answer came too late",
    ErrorCode.NODE_UNAVAILABLE: "went offline",
    ErrorCode.MOD_FAILED_PRECONDITION: "the app could not begin",
    ErrorCode.INVALID_FAB: "the app was refused",
    ErrorCode.CLIENT_APP_CRASHED: "the app crashed",
}
_BACKOFF_S, _BACKOFF_CAP_S = 0.05, 1.0


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


class PromptGrid:
    """Exchanges over a Grid.

    Parameters
    ----------
    grid
        Flower's Grid, or anything with the same four methods.
    poll_s
        Shortest time between two looks for replies. While a reply takes long the looks become rarer, up to once a
        second, and never cost more than a twentieth of the time already waited.
    """

    def __init__(self, grid: AnyGrid, *, poll_s: float = 0.15) -> None:
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
        stop: Callable[[], bool] | None = None,
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
        stop
            Asked at every look; True ends the exchange at once, e.g. when a quorum is enough.

        Returns
        -------
        A reply or a failure for every node written to.
        """
        waiting: dict[str, int] = {}
        results: dict[int, Message | Failure] = {}

        def settle(node: int, result: Message | Failure) -> None:
            results[node] = result
            if on_reply is not None:
                on_reply(node, result)

        outgoing = list(messages)
        nodes = [message.metadata.dst_node_id for message in outgoing]
        if len(set(nodes)) != len(nodes):
            raise ValueError("an exchange has at most one message a node")
        for message in outgoing:
            message.metadata.ttl = deadline_s
        began = time.monotonic()
        sent = list(self._grid.push_messages(outgoing)) if outgoing else []
        del outgoing
        # A message that could not be pushed has no id; if the whole lot was too large, there is no list either.
        for node, message_id in zip(nodes, sent or [""] * len(nodes), strict=True):
            if message_id:
                waiting[message_id] = node
            else:
                settle(node, Failure(UNANSWERED, "the SuperLink did not take the message"))
        # The SuperLink itself answers for a node whose time is over; the grace is for that answer.
        ends = began + deadline_s + min(_GRACE_S, deadline_s)
        reason = ""
        while waiting:
            with _quick_pulls(until=ends):
                arrived = list(self._grid.pull_messages(list(waiting)))
            for node, reply in _sorted_out(arrived, waiting):
                settle(node, reply)
            reason = _reason_to_end(ends=ends, deadline_s=deadline_s, stop=stop)
            if not waiting or reason:
                break
            time.sleep(self._pause_s(began=began, ends=ends))
        for node in waiting.values():
            settle(node, Failure(UNANSWERED, reason))
        return results

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
            yield node, Failure(reply.error.code, _in_words(reply.error.code, reply.error.reason or ""))
        else:
            yield node, reply


def _in_words(code: int, reason: str) -> str:
    """A site's reason is one type's name; Flower's engine puts the class, the text and a traceback there."""
    if code in _OF_FLOWER:
        return _OF_FLOWER[code]
    if _TYPE.fullmatch(reason):
        return reason
    found = _CLASS.match(reason)
    return found[1] if found else "failed and did not say why"


def _reason_to_end(*, ends: float, deadline_s: float, stop: Callable[[], bool] | None) -> str:
    if stop is not None and stop():
        return "the exchange was stopped"
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
