"""Relays a SuperNode's messages to the site's agent from threads of the SuperNode itself, several at a time.

Flower stores a message in the SuperNode, lets a fresh process fetch it part by part, and stores the reply the same way.
Its loop calls two functions of its module, one that fetches and one that waits for the reply and sends it. `Resident`
stands in front of both: a message goes from the coordinator to the agent, and the reply back, in one thread. While
messages are in work the next are fetched, and what is in work for a run that has ended is withdrawn from the agent.
Nothing of the app package that came with a run is fetched, unpacked or imported: no shipped code runs at this hospital.

`tests/client/agent/test_flower_contract.py` holds what is used of Flower. `executor = "per-message"` in `site.toml` is
the public way back: Flower's own process then hears at its next heartbeat, up to half a minute later, that a message is
not wanted any more.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import RunNotRunningException

from fedage.client.node.concurrent_fetcher import MOST, has_ended
from fedage.client.node.relay import error_reply, relay
from fedage.deploy.machine.parts import pull_parts, push_parts

_FULL_POLL_S = 0.1
_SOON_S, _SOON_SHARE = 0.1, 0.1
"""After a reply the next message often follows: the shortest wait for it, and the share of the time since then."""
_ASK_ABOUT_RUNS_S = 2.0
_NOTHING_NEW = 0

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Task:
    """One message, from its announcement to its reply."""

    run_id: int
    announced: Message
    tree: Any
    pull: Callable[[int, str], bytes]
    confirm: Callable[[int, str], None]
    withdrawn: Future[None] = field(default_factory=Future)
    began: float = field(default_factory=time.monotonic)


class Resident:
    """Stands in front of a SuperNode's fetching and sending.

    Parameters
    ----------
    socket
        The agent's.
    poll_s
        Longest wait between two looks for work that found none. A coordinator that holds a look until there is work
        is asked again at once.
    most
        Messages in work at a time.
    """

    def __init__(self, *, socket: str, poll_s: float, most: int = MOST) -> None:
        self._socket = socket
        self._poll_s = poll_s
        self._most = most
        self._in_work: set[_Task] = set()
        self._announced: list[_Task] = []
        self._asked_about_runs_at = time.monotonic()
        self._worked_at = -math.inf

    def fetch(self, **arguments: Any) -> int:
        """Look for a message if there is room for one; returns always, so that `send` begins with it."""
        in_work = list(self._in_work)
        if in_work:
            self._worked_at = time.monotonic()
            self._withdraw_what_is_not_wanted(in_work, arguments["get_run"])
        if len(in_work) >= self._most:
            time.sleep(min(_FULL_POLL_S, self._poll_s))
            return _NOTHING_NEW
        asked_at = time.monotonic()
        try:
            received = arguments["receive"]()
        except RunNotRunningException:  # it ended meanwhile
            received = None
        if received is not None:
            message, tree = received
            run_id = message.metadata.run_id
            logger.info("run %s: a message of type %s", run_id, message.metadata.message_type)
            task = _Task(run_id, message, tree, arguments["pull_object"], arguments["confirm_message_received"])
            self._announced.append(task)
            return _NOTHING_NEW
        soon_s = max(_SOON_S, _SOON_SHARE * (time.monotonic() - self._worked_at))
        time.sleep(max(0.0, min(soon_s, self._poll_s) - (time.monotonic() - asked_at)))
        return _NOTHING_NEW

    def send(self, **arguments: Any) -> None:
        """Begin with what was announced; each reply is sent by its own thread as soon as it is there."""
        while self._announced:
            task = self._announced.pop()
            self._in_work.add(task)
            words = (task, arguments["send"], arguments["push_object"])
            # A daemon: a relay under way must not keep a SuperNode that ends; the agent sees its stream end.
            threading.Thread(target=self._work, args=words, daemon=True, name="task").start()

    def _work(self, task: _Task, send: Callable[..., Any], push: Callable[[int, str, str, bytes], None]) -> None:
        try:
            message = _fetched(task)
            try:
                reply = relay(message, socket=self._socket, withdrawn=task.withdrawn)
            except Exception as error:  # noqa: BLE001 - the node must live on, and tells the type only
                reply = error_reply(message, type(error).__name__)
            del message
            if task.withdrawn.done():
                logger.warning("a task was withdrawn")
            else:
                _send(reply, task, send, push)
        except RunNotRunningException:  # no `Exception`
            logger.info("run %s is not running any more; a message of it is dropped", task.run_id)
        except Exception as error:  # noqa: BLE001 - as above; the coordinator asks again, or does without
            logger.error("a message failed on its way: %s", type(error).__name__)
        finally:
            self._in_work.discard(task)

    def _withdraw_what_is_not_wanted(self, in_work: list[_Task], get_run: Callable[[int], Any]) -> None:
        if time.monotonic() - self._asked_about_runs_at < _ASK_ABOUT_RUNS_S:
            return
        self._asked_about_runs_at = time.monotonic()
        for run_id in {task.run_id for task in in_work}:
            if has_ended(run_id, get_run):
                logger.info("a run has ended; what was in work for it is stopped")
                for task in in_work:
                    if task.run_id == run_id and not task.withdrawn.done():
                        task.withdrawn.set_result(None)


def install(module: ModuleType, *, socket: str, poll_s: float) -> None:
    """Put `Resident` in front of the two functions of Flower's module.

    Raises
    ------
    AttributeError
        If the module has them no more.
    """
    resident = Resident(socket=socket, poll_s=poll_s)
    for name, stands_in in (("_pull_and_store_message", resident.fetch), ("_push_messages", resident.send)):
        getattr(module, name)
        setattr(module, name, stands_in)


def _fetched(task: _Task) -> Message:
    """The message whole; the coordinator is told that it has arrived."""
    wanted = [part.object_id for part in iterate_object_tree(task.tree)]
    contents = pull_parts(wanted, lambda name: task.pull(task.run_id, name))
    task.confirm(task.run_id, task.announced.metadata.message_id)
    message = inflate_object_from_contents(task.tree.object_id, contents)
    if not isinstance(message, Message):
        raise TypeError("what was announced as a message is none")
    # The number of a message is that of its object, which holds it not.
    message.metadata.__dict__["_message_id"] = task.tree.object_id
    return message


def _send(reply: Message, task: _Task, send: Callable[..., Any], push: Callable[[int, str, str, bytes], None]) -> None:
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        tree, parts = get_object_tree(reply), get_all_nested_objects(reply)
        missing, session = send(reply, tree, time.monotonic() - task.began)
        push_parts(
            ((name, part.deflate()) for name, part in parts.items() if name in missing),
            lambda name, content: push(task.run_id, session, name, content),
        )
