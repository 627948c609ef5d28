"""Requests that are being answered now: a copy of one waits for nothing and is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fedage.client.nonces import Claim, Nonces, Replayed, RequestId
from fedage.common.protocol import RequestRefused


class Claims:
    """The requests of one process that are being answered, beside the account of all that were."""

    def __init__(self, nonces: Nonces) -> None:
        self._nonces, self._lock = nonces, threading.Lock()
        self._answering: set[str] = set()

    @contextmanager
    def claimed(self, request: RequestId) -> Iterator[bool]:
        """Remember a verified request and hold it against a second copy of itself while it is answered.

        Yields whether it was answered before, and the stored answer is to be sent once more.

        Raises
        ------
        RequestRefused
            Rule `replay`.
        """
        with self._lock:
            if request.key in self._answering:
                raise RequestRefused("replay", "this message is being answered already")
            self._answering.add(request.key)
        try:
            try:
                claim = self._nonces.claim(request)
            except Replayed as replayed:
                raise RequestRefused(replayed.rule, replayed.detail) from None
            if claim is Claim.REPLAYED:
                raise RequestRefused("replay", "this site has had this message before; send it again with a new nonce")
            yield claim is Claim.AGAIN
        finally:
            with self._lock:
                self._answering.discard(request.key)
