"""One message and its answer, in the order that everything depends on.

Read; an audit line; the coordinator's signature; the nonce; policy, approval and frozen cohort (`gate`); the handler,
which releases or withholds; an audit line on disk; the signed head of the log into the reply; the reply stored under
its nonce; only then it leaves. A refusal is an answer like any other. An exception never reaches the server with its
text: it goes on to the agent, which tells its type, and nothing leaves.

A simulated site has no rules: the same path without log, nonces and policy.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from flwr.app import Message

from fedage.client.audit.entries import Direction, Entry, Kind, Outcome, WithheldStep, known_nonce, micro
from fedage.client.consent.accounts.nonces import Replayed, RequestId
from fedage.client.inbox.flower_records import (
    packed_payload,
    read_payload,
    read_request,
    read_stored,
    size_bytes,
    stored_frames,
    stored_payload_digest,
    write_reply,
)
from fedage.client.inbox.gate import Answer, Work, admit
from fedage.client.inbox.site import Site
from fedage.common.errors import Refusal
from fedage.common.protocol.heads import SignedHead
from fedage.common.protocol.messages import Payload, Reply, Request, RequestRefused, pack, packed_digest, verify
from fedage.common.protocol.reply_signature import signed
from fedage.common.version import __version__

logger = logging.getLogger(__name__)

Handler = Callable[[Work], Answer]


def respond(site: Site, message: Message, *, kind: str, handler: Handler) -> Message:
    """Answer a message of the given kind: `ok`, or `refused` with the rule and a sentence."""
    exchange = _Exchange(site, message, kind=kind)
    try:
        return exchange.answer(handler)
    except BaseException:
        exchange.failed()
        raise


class _Exchange:
    """A message on its way in, and what it becomes on its way out."""

    def __init__(self, site: Site, message: Message, *, kind: str) -> None:
        self._site, self._rules, self._message, self._kind = site, site.rules, message, kind
        self._request: Request | None = None
        self._content = ""
        self._verified = False
        self._came_in = False
        self._folded = False
        self._claimed: RequestId | None = None

    def answer(self, handler: Handler) -> Message:
        """The reply. Raises whatever is no refusal."""
        try:
            request, payload = self._read()
            with self._once(request) as again:
                try:
                    work = admit(self._site, request, payload)
                    if again is not None:
                        return self._send_again(again)
                    logger.info("%s, round %d, digest %s", request.kind, request.round, request.digest)
                    answer = handler(work)
                    self._must_still_be_approved(request)
                except Refusal as refusal:
                    return self._refuse(refusal)
                return self._leave(self._reply("ok", answer.info), answer, Outcome.OK)
        except Refusal as refusal:
            return self._refuse(refusal)

    def failed(self) -> None:
        """Note in the audit log that a message was not answered."""
        if self._came_in:
            self._came_in = False
            self._log(Direction.OUT, outcome=Outcome.FAILED)

    def _read(self) -> tuple[Request, Payload]:
        """The request, once it is known to come from the pinned coordinator; either way with its line in the log."""
        refusal: RequestRefused | None = None
        payload: Payload = {}
        try:
            self._request, signature = read_request(self._message)
            packed = packed_payload(self._message)
            if self._site.coordinator_key is not None:
                verify(self._request, packed, signature, key=self._site.coordinator_key)
            self._verified = True
            self._content = hashlib.sha256(self._request.signing_bytes(packed)).hexdigest()
            # Only now, as it is known whose bytes these are, are they read as arrays.
            payload = read_payload(self._message)
            if self._request.kind != self._kind:
                raise RequestRefused(
                    "malformed-request", f"a {self._kind} message carries a request for {self._request.kind[:40]!r}"
                )
        except RequestRefused as refused:
            refusal = refused
        size = size_bytes(self._message)
        self._folded = self._folds(size, in_order=refusal is None)
        self._log(Direction.IN, size=size)
        self._came_in = True
        if refusal is not None or self._request is None:
            raise refusal or RequestRefused("malformed-request", "the message has no request")
        return self._request, payload

    def _folds(self, size: int, *, in_order: bool) -> bool:
        """Whether this is one of so many messages not as the coordinator signed them that they are only counted."""
        if self._rules is None:
            return False
        if in_order:
            self._rules.folding.write_if_due()
            return False
        return self._rules.folding.takes(size)

    @contextmanager
    def _once(self, request: Request) -> Iterator[Iterator[bytes] | None]:
        """Claim the request's nonce. If it was answered before, the stored answer; None if it is to be worked on."""
        if self._rules is None:
            yield None
            return
        identity = RequestId(digest=request.digest, run=request.run, nonce=request.nonce, content=self._content)
        with self._rules.claims.claimed(identity) as answered:
            if answered:
                yield self._rules.nonces.reply(identity)
            else:
                self._claimed = identity
                yield None

    def _must_still_be_approved(self, request: Request) -> None:
        if self._rules is not None and not self._rules.approvals.is_approved(request.digest):
            raise RequestRefused("not-approved", "the approval was revoked during the computation")

    def _reply(self, status: Literal["ok", "refused"], info: Mapping[str, Any]) -> Reply:
        digest = self._request.digest if self._request else ""
        return Reply(site=self._site.name, digest=digest, status=status, info=info, version=__version__)

    def _refuse(self, refusal: Refusal) -> Message:
        if not self._folded:
            logger.warning("refused %s: %s", self._kind, refusal)
        reply = replace(self._reply("refused", {}), rule=refusal.rule, reason=refusal.detail)
        return self._leave(reply, Answer(info={}), Outcome.REFUSED)

    def _leave(self, reply: Reply, answer: Answer, outcome: Outcome) -> Message:
        """Written down, signed, stored: then the reply may leave."""
        packed = pack(answer.payload) if answer.payload else None
        size = sum(map(len, stored_frames(reply, packed)))
        sent = packed_digest(b"" if packed is None else packed.data)
        reply = self._sealed(reply, answer, outcome, size=size, sent=sent)
        if self._rules is not None and self._claimed is not None:
            identity, self._claimed = self._claimed, None
            try:
                self._rules.nonces.keep_reply(identity, stored_frames(reply, packed))
            except Replayed as replayed:
                return self._refuse(replayed)
        return write_reply(reply, packed, to=self._message)

    def _sealed(self, reply: Reply, answer: Answer, outcome: Outcome, *, size: int, sent: str) -> Reply:
        """The reply with the head of the log that tells of it, and the site's signature over everything."""
        if self._rules is None:
            return reply
        payload_sha256 = sent if answer.payload else None
        rule = reply.rule or None
        head = self._log(
            Direction.OUT, outcome=outcome, size=size, rule=rule, answer=answer, payload_sha256=payload_sha256
        )
        if head is not None:
            reply = replace(reply, audit=head.to_json())
        nonce = self._request.nonce if self._request else ""
        return signed(reply, nonce=nonce, payload_sha256=sent, sign=self._rules.audit.sign)

    def _send_again(self, frames: Iterator[bytes]) -> Message:
        """A stored answer, byte for byte, the head of its own time included."""
        stored = list(frames)
        size, payload_sha256 = sum(map(len, stored)), stored_payload_digest(stored)
        self._log(Direction.OUT, outcome=Outcome.AGAIN, size=size, payload_sha256=payload_sha256)
        return read_stored(stored, to=self._message)

    def _log(
        self,
        direction: Direction,
        *,
        outcome: Outcome = Outcome.OK,
        size: int = 0,
        rule: str | None = None,
        answer: Answer | None = None,
        payload_sha256: str | None = None,
    ) -> SignedHead | None:
        """A line in the audit log, on disk; what a message says of itself counts only once it is verified."""
        if self._rules is None:
            return None
        if self._folded:
            return self._rules.audit.signed_head()
        request, facts = self._request, answer or Answer(info={})
        campaign = self._rules.known(request.digest) if request and self._verified else None
        return self._rules.audit.append(
            Entry(
                direction=direction,
                kind=Kind.of(self._kind) if request else Kind.UNREADABLE,
                outcome=outcome,
                who=self._rules.coordinator if self._verified else None,
                campaign=campaign.campaign.name if campaign else None,
                digest=request.digest if request else None,
                nonce=known_nonce(request.nonce) if request else None,
                round=request.round if request else 0,
                fold=request.fold if request else 0,
                size_bytes=size,
                payload_sha256=payload_sha256,
                patients=facts.patients,
                smallest_cell=facts.smallest_cell,
                epsilon_micro=micro(facts.epsilon),
                rule=rule,
                steps=tuple(sorted(facts.steps)),
                withheld=tuple(
                    WithheldStep(step=step, rule=held["rule"]) for step, held in sorted(facts.withheld.items())
                ),
            )
        )
