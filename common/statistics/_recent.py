"""Answers that were computed a moment ago: an analysis in steps asks the same of the same patients at each step."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Recent(Generic[Answer]):
    """The last answers by the content they follow from, safe to use from several threads.

    Parameters
    ----------
    most
        How many are kept.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, content: bytes, compute: Callable[[], Answer]) -> Answer:
        """The answer to this content, computed if it is not known."""
        with self._lock:
            if content in self._kept:
                self._kept.move_to_end(content)
                return self._kept[content]
        answer = compute()
        with self._lock:
            self._kept[content] = answer
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return answer
