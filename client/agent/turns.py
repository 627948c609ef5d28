"""Who works when: what computes on the GPU one after another, questions beside it, and nothing for nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from flwr.app import Message

from fedage.client.site.cancel import Cancellation, Cancelled
from fedage.common.protocol.messages import EVALUATE, REQUEST, TRAIN

_LOOK_S = 0.2


@dataclass
class Work:
    """A message that is being handled, or waits for its turn."""

    message_id: str
    kind: str
    subject: tuple[str, ...]
    cancellation: Cancellation
    waits: bool = True
    since: float = field(default_factory=time.monotonic)

    @property
    def computes(self) -> bool:
        """Whether it needs the GPU for itself: training and prediction do, questions do not."""
        return self.kind.partition(".")[0] in (TRAIN, EVALUATE)


class Turns:
    """Gives every message its turn."""

    def __init__(self) -> None:
        self._computing = threading.Lock()
        self._guard = threading.Lock()
        self._works: list[Work] = []

    @contextmanager
    def turn(self, message: Message, cancellation: Cancellation) -> Iterator[None]:
        """Wait for this message's turn and keep it.

        A coordinator asks a run for one computation at a time: a later one means that the earlier one's answer is not
        waited for any more, so that is cancelled. Which run it is says the message itself, before anybody has verified
        it: a relay that lies can end a computation so. It can anyway, by hanging up; it gets no answer by it.

        Raises
        ------
        Cancelled
            If the message is cancelled while it waits.
        """
        metadata = message.metadata
        work = Work(metadata.message_id, metadata.message_type, _subject(message), cancellation)
        with self._guard:
            if work.computes:
                for earlier in self._works:
                    if earlier.computes and earlier.subject == work.subject:
                        earlier.cancellation.cancel("Superseded")
            self._works.append(work)
        try:
            if not work.computes:
                work.waits = False
                yield
                return
            while not self._computing.acquire(timeout=_LOOK_S):
                if cancellation.cancelled:
                    raise Cancelled
            try:
                if cancellation.cancelled:
                    raise Cancelled
                work.waits, work.since = False, time.monotonic()
                yield
            finally:
                self._computing.release()
        finally:
            with self._guard:
                self._works = [other for other in self._works if other is not work]

    def cancel(self, message_id: str) -> bool:
        """Ask whoever handles this message to stop; whether there was anybody. A message may have come twice."""
        works = [work for work in self.works() if work.message_id == message_id]
        for work in works:
            work.cancellation.cancel()
        return bool(works)

    def cancel_all(self) -> None:
        """Ask every handler to stop."""
        for work in self.works():
            work.cancellation.cancel()

    def works(self) -> list[Work]:
        """What is handled and what waits, oldest first."""
        with self._guard:
            return list(self._works)

    def idle(self, *, timeout_s: float) -> bool:
        """Wait until nothing is handled; False if something still is after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.works():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True


def _subject(message: Message) -> tuple[str, ...]:
    """What a message belongs to: campaign and its run by name, which a resumed campaign keeps, or Flower's run."""
    if message.has_content():
        head = message.content.config_records.get(REQUEST)
        digest, run = (head.get("digest"), head.get("run")) if head is not None else (None, None)
        if isinstance(digest, str) and isinstance(run, str):
            return digest, run
    return ("flower", str(message.metadata.run_id))
