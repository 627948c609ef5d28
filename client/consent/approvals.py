"""Which campaign files this site has approved, which were offered, which it said no to: plain files to be read.

`approved/<digest>.toml`, `offered/<digest>.toml` and `declined/<digest>.toml` in the site's home hold the files byte
for byte, so `sha256sum` proves which text was approved. Nothing is kept in memory: what a folder says now counts.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.toml.text import MAX_TOML_BYTES
from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.bounded import FileTooLarge, read_at_most, read_text_at_most

logger = logging.getLogger(__name__)

MAX_OFFERS = 100

State = Literal["approved", "declined", "offered"]
_STATES: tuple[State, ...] = ("approved", "declined", "offered")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ApprovalError(FedAgeError):
    """An approval that cannot be given or taken back; the message names what and the mend."""


class CampaignsUsedUp(ApprovalError):
    """As many campaign files were approved as the policy allows. `.rule` and `.detail` may be sent."""

    rule = "campaigns"
    detail = "as many campaign files were approved as this site's policy allows"


@dataclass(frozen=True)
class Approvals:
    """The approvals of one site's home."""

    home: Path

    def offer(self, text: str, *, digest: str) -> None:
        """Keep an offered file; too large a file or too many offers are dropped, never fatal."""
        folder, data = self._folder("offered"), text.encode()
        if self._path("offered", digest).is_file():
            return
        if len(data) > MAX_TOML_BYTES or len(list(folder.glob("*.toml"))) >= MAX_OFFERS:
            logger.warning("an offered campaign was not kept: too large, or %d offers wait already", MAX_OFFERS)
            return
        self._write("offered", digest, data)

    def approve(self, text: str) -> Campaign:
        """Approve a campaign file's text. Raises `CampaignErrors` for a file with mistakes."""
        campaign = parse_campaign(text)
        self._write("approved", campaign.digest, text.encode())
        self._path("declined", campaign.digest).unlink(missing_ok=True)
        return campaign

    def decline(self, digest: str) -> None:
        """Say no to an offered campaign; it stays readable.

        Raises
        ------
        ApprovalError
            If that digest is not offered, or approved.
        """
        self.must_be_offered(digest)
        self._write("declined", digest, self.text(digest, among=("offered",)).encode())

    def revoke(self, digest: str) -> None:
        """Take an approval back; the next message of that campaign is refused.

        Raises
        ------
        ApprovalError
            If that digest is not approved.
        """
        self.must_be_approved(digest)
        self._write("declined", digest, self.text(digest, among=("approved",)).encode())
        self._path("approved", digest).unlink()

    def must_be_offered(self, digest: str) -> None:
        """Raise `ApprovalError` unless the digest is offered and not approved."""
        if self.is_approved(digest):
            raise ApprovalError(
                f"the campaign with digest {digest} is approved; take that back with fedage site revoke"
            )
        if not self._path("offered", digest).is_file():
            raise ApprovalError(f"no offered campaign has the digest {digest}; see fedage site campaigns")

    def must_be_approved(self, digest: str) -> None:
        """Raise `ApprovalError` unless the digest is approved."""
        if not self.is_approved(digest):
            raise ApprovalError(f"no approved campaign has the digest {digest}; see fedage site campaigns")

    def find(self, digest_start: str, *, among: tuple[State, ...] = _STATES) -> str:
        """The whole digest of the one campaign known here whose digest begins so.

        Raises
        ------
        ApprovalError
            If none or several do.
        """
        digests = {path.stem for state in among for path in self._folder(state).glob("*.toml")}
        digests = {digest for digest in digests if digest.startswith(digest_start)}
        if not re.fullmatch("[0-9a-f]+", digest_start):
            raise ApprovalError(
                f"{digest_start!r} is neither a file that is there nor the beginning of a digest, which has the digits "
                "0 to 9 and a to f; see fedage site campaigns"
            )
        if not digests:
            raise ApprovalError(
                f"no {' or '.join(among)} campaign has a digest that begins with {digest_start!r}; see fedage site "
                "campaigns"
            )
        if len(digests) > 1:
            raise ApprovalError(
                f"{len(digests)} {' or '.join(among)} campaigns have a digest that begins with {digest_start!r}; "
                "give more of it, or the file itself (see fedage site campaigns)"
            )
        return digests.pop()

    def is_approved(self, digest: str) -> bool:
        """Whether exactly this digest is approved now."""
        return self._whole("approved", digest) is not None

    def is_declined(self, digest: str) -> bool:
        """Whether an administrator said no to it, or took the approval back."""
        return self._path("declined", digest).is_file()

    def approved(self, digest: str) -> Campaign | None:
        """The approved campaign of exactly this digest, re-read and re-hashed; None if there is none."""
        return self.campaign(digest) if self.is_approved(digest) else None

    def campaign(self, digest: str) -> Campaign | None:
        """The campaign of exactly this digest, approved or not; None if it is not known here.

        Raises
        ------
        CampaignErrors
            If the file has mistakes.
        """
        for state in _STATES:
            data = self._whole(state, digest)
            if data is not None:
                return _parsed(data.decode())
        return None

    def listed(self) -> list[tuple[str, State]]:
        """Digests known here with the state of each, sorted."""
        states: dict[str, State] = {}
        for state in reversed(_STATES):
            states |= {path.stem: state for path in self._folder(state).glob("*.toml")}
        return sorted(states.items())

    def text(self, digest: str, *, among: tuple[State, ...] = _STATES) -> str:
        """The text of a known digest.

        Raises
        ------
        ApprovalError
            If it is in none of these states, or its file is larger than a campaign may be.
        """
        for state in among:
            path = self._path(state, digest)
            if path.is_file():
                try:
                    return read_text_at_most(path, most_bytes=MAX_TOML_BYTES)
                except FileTooLarge as error:
                    raise ApprovalError(f"{path} has {error.strerror}: it is no campaign; remove it") from None
        raise ApprovalError(f"no campaign with digest {digest} is known here")

    def _whole(self, state: State, digest: str) -> bytes | None:
        """The file of this digest, read and hashed anew; None if it is not there or another text."""
        try:
            data = read_at_most(self._path(state, digest), most_bytes=MAX_TOML_BYTES)
        except (FileNotFoundError, FileTooLarge):
            return None
        return data if hashlib.sha256(data).hexdigest() == digest else None

    def _write(self, state: State, digest: str, data: bytes) -> None:
        """On disk at once: a reader sees no file or the whole one."""
        path = self._path(state, digest)
        self._folder(state)
        write_atomically(path, data)

    def _path(self, state: State, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ApprovalError("a campaign's digest has 64 hexadecimal digits in lower case")
        return self.home / state / f"{digest}.toml"

    def _folder(self, state: State) -> Path:
        folder = self.home / state
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


@lru_cache(maxsize=16)
def _parsed(text: str) -> Campaign:
    """A text is parsed once; whether it is approved is asked every time."""
    return parse_campaign(text)
