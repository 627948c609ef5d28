"""Requests that are being answered now: a copy of one waits for that, and then gets the stored answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fedage.client.consent.accounts.nonces import Claim, Nonces, Replayed, RequestId
from fedage.client.site.cancel import wait_for
from fedage.common.protocol.messages import RequestRefused


class Claims:
    """The requests of one process that are being answered, beside the account of all that were."""

    def __init__(self, nonces: Nonces) -> None:
        self._nonces, self._lock = nonces, threading.Lock()
        self._answering: set[str] = set()

    @contextmanager
    def claimed(self, request: RequestId) -> Iterator[bool]:
        """Remember a verified request and hold back a second copy of itself while it is answered.

        A coordinator whose connection to this site was slow for a while sends a message again. To refuse that would
        cost the campaign a site that is at work.

        Yields whether it was answered before, and the stored answer is to be sent once more.

        Raises
        ------
        RequestRefused
            Rule `replay`.
        Cancelled
            If nobody waits for this copy any more.
        """
        wait_for(lambda: self._taken(request.key))
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

    def _taken(self, key: str) -> bool:
        """Take a request's place unless somebody has it."""
        with self._lock:
            if key in self._answering:
                return False
            self._answering.add(key)
            return True
