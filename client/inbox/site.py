"""What the handlers know of the site they run at, deployed or simulated."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.consent.rules import SiteRules
from fedage.common.campaign import Campaign


class Site(Protocol):
    """A site as its handlers see it."""

    @property
    def name(self) -> str:
        """The site's name in results."""

    @property
    def coordinator_key(self) -> Ed25519PublicKey | None:
        """The pinned coordinator; None in simulation only."""

    @property
    def rules(self) -> SiteRules | None:
        """Policy, approvals, ledger and audit log of a deployed site; None in simulation only."""

    @property
    def guard(self) -> bool:
        """Whether small cells are withheld; False only in a simulation that says so."""

    @property
    def threads(self) -> int:
        """CPU threads a training may use."""

    @property
    def device(self) -> str:
        """`auto`, `cpu` or `cuda`."""

    def approved(self, digest: str) -> Campaign | None:
        """The approved campaign with this digest, or None."""

    def offer(self, text: str, *, digest: str) -> None:
        """Keep an offered file for the administrator to read."""

    def cohort(self, campaign: Campaign) -> SiteCohort:
        """The campaign's patients, with samples ready."""

    def training_seed(self, campaign: Campaign, *parts: str | int) -> int:
        """A seed of what training at this site draws; at a deployed site no coordinator can know it."""

    def privacy_secret(self) -> bytes:
        """32 bytes that noise and sampling with privacy for each patient follow from; the site's alone."""

    def state_dir(self, digest: str) -> Path:
        """Where the site keeps what belongs to a campaign (predictions); created on demand."""
