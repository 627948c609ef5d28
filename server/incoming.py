"""What comes back from the sites: refusals, answers that cannot be used, heads of audit logs, and what is left."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from fedage.common.errors import FedAgeError
from fedage.common.heads import SignedHead
from fedage.common.protocol import DESCRIBE, Reply
from fedage.server.attendance import NOT_YET, Attendance
from fedage.server.heads import HeadRefused, Heads
from fedage.server.told import Told, ToldMalformed


class CampaignFailed(Exception):
    """A campaign cannot go on; the message says why and is written to the results."""


@dataclass(frozen=True)
class Answer:
    """One site's answer: what it says and the arrays it sends."""

    site: str
    info: Told
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
        Keeps the heads of the sites' audit logs; None in simulation only.
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
        self, reply: Reply, payload: Mapping[str, NDArray[Any]], *, step: str, round_number: int = 0, after: int
    ) -> Answer | None:
        """The answer, unless it is a refusal or cannot be used; then it is recorded why.

        Parameters
        ----------
        after
            The greatest line known of the site's audit log when the request was sent.

        Raises
        ------
        CampaignFailed
            If heads cannot be kept here: nobody could hold a site's audit log against them later.
        """
        site = reply.site
        if reply.status == "refused":
            self._keep_head_of_refusal(reply, step=step, round_number=round_number, after=after)
            self._set_aside(site, step, reply.reason, round_number=round_number, rule=reply.rule)
            return None
        if reply.digest != self.digest:
            self._set_aside(site, step, "answered for another campaign", round_number=round_number)
            return None
        try:
            info, odd = Told.of(reply.info)
        except ToldMalformed as error:
            self._set_aside(site, step, f"a malformed answer was set aside: {error}", round_number=round_number)
            return None
        try:
            if self.heads is not None:
                with _keeping():
                    if step == DESCRIBE:
                        self.heads.pin(site, info.audit_key)
                    self._keep(reply, after=after)
        except HeadRefused as refused:
            self._set_aside(site, step, str(refused), round_number=round_number)
            return None
        if odd:
            told = f"told something malformed of {', '.join(odd)}; left out"
            self.attendance.note(site, step, told, round_number=round_number)
        return Answer(site=site, info=info, payload=payload)

    def _keep_head_of_refusal(self, reply: Reply, *, step: str, round_number: int, after: int) -> None:
        """A refusal counts without a head too: a site whose log is out of order has none."""
        if self.heads is None or reply.head is None:
            return
        with _keeping():
            if self.heads.key(reply.site) is None:
                return
            try:
                self._keep(reply, after=after)
            except HeadRefused as refused:
                self.attendance.note(reply.site, step, str(refused), round_number=round_number)

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


@contextmanager
def _keeping() -> Iterator[None]:
    try:
        yield
    except FedAgeError as error:
        raise CampaignFailed(str(error)) from None
