"""Which campaign files this site has approved, and which were offered: plain files an administrator can read.

`approved/<digest>.toml` and `offered/<digest>.toml` in the site's home hold the files byte for byte, so `sha256sum`
proves which text was approved.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from fedage.common.campaign import Campaign, parse_campaign
from fedage.common.errors import FedAgeError

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 256 * 1024
MAX_OFFERS = 100


class ApprovalError(FedAgeError):
    """An approval that cannot be given or taken back; the message names what and the mend."""


@dataclass(frozen=True)
class Approvals:
    """The approvals of one site's home."""

    home: Path

    def offer(self, text: str, *, digest: str) -> None:
        """Keep an offered file; too large a file or too many offers are dropped, never fatal."""
        folder = self._folder("offered")
        data = text.encode()
        if len(data) > MAX_FILE_BYTES or len(list(folder.glob("*.toml"))) >= MAX_OFFERS:
            logger.warning("an offered campaign was not kept: too large, or %d offers wait already", MAX_OFFERS)
            return
        (folder / f"{digest}.toml").write_bytes(data)

    def approve(self, text: str) -> Campaign:
        """Approve a campaign file's text. Raises `CampaignErrors` for a file with mistakes."""
        campaign = parse_campaign(text)
        (self._folder("approved") / f"{campaign.digest}.toml").write_bytes(text.encode())
        return campaign

    def revoke(self, digest: str) -> None:
        """Take an approval back; the next message of that campaign is refused.

        Raises
        ------
        ApprovalError
            If that digest is not approved.
        """
        path = self._folder("approved") / f"{digest}.toml"
        if not path.is_file():
            raise ApprovalError(f"no approved campaign has the digest {digest}; see fedage site campaigns")
        path.unlink()

    def offered_text(self, digest_start: str) -> str:
        """The offered file whose digest begins so.

        Raises
        ------
        ApprovalError
            If none or several do.
        """
        found = [path for path in self._folder("offered").glob("*.toml") if path.stem.startswith(digest_start)]
        if len(found) != 1:
            raise ApprovalError(
                f"{len(found)} offered campaigns have a digest that begins with {digest_start!r}; "
                "give more of it, or the file itself (see fedage site campaigns)"
            )
        return found[0].read_bytes().decode()

    def approved(self, digest: str) -> Campaign | None:
        """The approved campaign of exactly this digest, re-read and re-hashed; None if there is none."""
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            return None
        path = self._folder("approved") / f"{digest}.toml"
        if not path.is_file():
            return None
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            return None
        return parse_campaign(data.decode())

    def listed(self) -> list[tuple[str, bool]]:
        """Digests known here with whether each is approved, sorted."""
        approved = {path.stem for path in self._folder("approved").glob("*.toml")}
        offered = {path.stem for path in self._folder("offered").glob("*.toml")}
        return [(digest, digest in approved) for digest in sorted(approved | offered)]

    def text(self, digest: str) -> str:
        """The text of a known digest, approved or offered."""
        for folder in ("approved", "offered"):
            path = self._folder(folder) / f"{digest}.toml"
            if path.is_file():
                return path.read_bytes().decode()
        raise ApprovalError(f"no campaign with digest {digest} is known here")

    def _folder(self, name: str) -> Path:
        folder = self.home / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
