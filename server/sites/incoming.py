"""What comes back from the sites: refusals, answers that cannot be used, heads, signatures, and what is left."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from fedage.common.errors import FedAgeError
from fedage.common.protocol.heads import SignedHead, key_from_hex
from fedage.common.protocol.messages import DESCRIBE, Packed, Reply, packed_digest
from fedage.common.protocol.reply_signature import is_signed_by
from fedage.server.record.heads import HeadRefused, Heads
from fedage.server.sites.attendance import NOT_YET, Attendance
from fedage.server.sites.flower_records import read_arrays
from fedage.server.sites.site_info import SiteInfo, SiteInfoMalformed


class CampaignFailed(Exception):
    """A campaign cannot go on; the message says why and is written to the results."""


@dataclass(frozen=True)
class Answer:
    """One site's answer: what it says and the arrays it sends."""

    site: str
    info: SiteInfo
    payload: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """Checks the replies of one run.

    Parameters
    ----------
    digest
        The campaign's.
    attendance
        Where it is recorded what cannot be used, and why.
    heads
        Keeps the sites' audit keys and the heads of their logs; None in simulation only, where nothing is signed.
    """

    digest: str
    attendance: Attendance
    heads: Heads | None
    last_heads: dict[str, SignedHead] = field(default_factory=dict)
    """By site, the last head in this run that held."""

    def heads_known(self, sites: Collection[str]) -> dict[str, int]:
        """The greatest line known of each site's audit log; ask before a request is sent.

        Raises
        ------
        CampaignFailed
            As `accept` does.
        """
        if self.heads is None:
            return {}
        with _keeping():
            return {site: self.heads.known(site) for site in sites}

    def accept(
        self,
        reply: Reply,
        packed: Packed,
        *,
        step: str,
        round_number: int = 0,
        nonce: str,
        after: int,
    ) -> Answer | None:
        """The answer, unless it is a refusal or cannot be used; then it is recorded why.

        Parameters
        ----------
        packed
            The answer's packed payload; its arrays are read once the site's signature over these bytes holds.
        nonce
            The request's.
        after
            The greatest line known of the site's audit log when the request was sent.

        Raises
        ------
        CampaignFailed
            If heads cannot be kept here: nobody could hold a site's audit log against them later.
        """
        site = reply.site
        if reply.status == "refused":
            self._refused(reply, packed, step=step, round_number=round_number, nonce=nonce, after=after)
            return None
        if reply.digest != self.digest:
            self._set_aside(site, step, "answered for another campaign", round_number=round_number)
            return None
        try:
            info, odd = SiteInfo.of(reply.info)
        except SiteInfoMalformed as error:
            self._set_aside(site, step, f"a malformed answer was set aside: {error}", round_number=round_number)
            return None
        try:
            if self.heads is not None:
                self._check(self.heads, reply, packed, info=info, step=step, nonce=nonce, after=after)
        except HeadRefused as refused:
            self._set_aside(site, step, str(refused), round_number=round_number)
            return None
        try:
            payload = read_arrays(packed)
        except ValueError as error:
            self._set_aside(site, step, f"malformed reply: {error}", round_number=round_number)
            return None
        if odd:
            trouble = f"told something malformed of {', '.join(odd)}; left out"
            self.attendance.note(site, step, trouble, round_number=round_number)
        return Answer(site=site, info=info, payload=payload)

    def _check(
        self,
        heads: Heads,
        reply: Reply,
        packed: Packed,
        *,
        info: SiteInfo,
        step: str,
        nonce: str,
        after: int,
    ) -> None:
        """Raise `HeadRefused` unless key, head and signature hold."""
        sent = packed_digest(packed)
        with _keeping():
            if step == DESCRIBE:
                if info.audit_key is not None and heads.key(reply.site) is None:
                    # Before a key is pinned for good, it must at least have signed the answer that tells it.
                    _must_be_signed(key_from_hex(info.audit_key), reply, nonce=nonce, payload_sha256=sent)
                heads.pin(reply.site, info.audit_key)
            self._keep(reply, after=after)
            _must_be_signed(heads.key(reply.site), reply, nonce=nonce, payload_sha256=sent)

    def _refused(
        self,
        reply: Reply,
        packed: Packed,
        *,
        step: str,
        round_number: int,
        nonce: str,
        after: int,
    ) -> None:
        """Record a refusal, as the site's own only if it signed it; before its key is known, whoever says so."""
        site, reason, rule = reply.site, reply.reason, reply.rule
        with _keeping():
            key = self.heads.key(site) if self.heads is not None else None
            if key is not None:
                try:
                    sent = packed_digest(packed)
                    # A site that could not read the request, for instance of another version, does not know its nonce.
                    by_site = is_signed_by(key, reply, nonce="", payload_sha256=sent)
                    if not by_site:
                        _must_be_signed(key, reply, nonce=nonce, payload_sha256=sent)
                except HeadRefused as refused:
                    reason, rule = f"{refused}; it says {rule}: {reason}", ""
                try:
                    if reply.head is not None:
                        self._keep(reply, after=after)
                except HeadRefused as refused:
                    self.attendance.note(site, step, str(refused), round_number=round_number)
        self._set_aside(site, step, reason, round_number=round_number, rule=rule)

    def _keep(self, reply: Reply, *, after: int) -> None:
        if self.heads is not None:
            self.last_heads[reply.site] = self.heads.keep(reply.site, reply.head, after=after)

    def _set_aside(self, site: str, step: str, reason: str, *, round_number: int, rule: str = "") -> None:
        """Record an answer that does not count; one to the offer leaves its site out, unless it may yet approve."""
        if step == DESCRIBE and rule == NOT_YET:
            self.attendance.undecided[site] = reason
        elif step == DESCRIBE:
            self.attendance.leave_out(site, reason, rule=rule)
        else:
            self.attendance.note(site, step, reason, round_number=round_number, rule=rule)


def _must_be_signed(key: Ed25519PublicKey | None, reply: Reply, *, nonce: str, payload_sha256: str) -> None:
    """Raise `HeadRefused` (rule `reply-signature`) unless the site signed this answer, to this request."""
    if key is not None and is_signed_by(key, reply, nonce=nonce, payload_sha256=payload_sha256):
        return
    what = "is not what the site signed for this request" if reply.signature else "came without the site's signature"
    raise HeadRefused(
        "reply-signature",
        f"the answer {what}; something between the site's agent and here alters its answers, or the two sides have "
        "different FedAge releases",
    )


@contextmanager
def _keeping() -> Iterator[None]:
    try:
        yield
    except FedAgeError as error:
        raise CampaignFailed(str(error)) from None
