"""A hospital as its handlers see it: the site's home, with the rules that stand in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedage.client.audit.log import utc_now
from fedage.client.cohort.keys import Keys, read_or_create
from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.consent.rules import SiteRules
from fedage.client.site.durable import LOCK_WAIT_S
from fedage.client.site.home import SiteHome
from fedage.common.campaign import Campaign
from fedage.common.protocol.heads import fingerprint


class DeployedSite:
    """One hospital, opened from its home folder. Safe to use from several threads.

    Parameters
    ----------
    home
        The folder.
    now, lock_wait_s
        See `SiteRules`.

    Raises
    ------
    StoreUnavailable
        If one of the site's files cannot be used, the audit log first of all.
    """

    guard = True

    def __init__(
        self, home: SiteHome, *, now: Callable[[], datetime] = utc_now, lock_wait_s: float = LOCK_WAIT_S
    ) -> None:
        self._home = home
        self._key = home.coordinator_key()
        self._rules = SiteRules(
            home.root, coordinator=fingerprint(self._key), site=home.config.name, now=now, lock_wait_s=lock_wait_s
        )

    @classmethod
    def load(cls, path: str | Path) -> DeployedSite:
        """Open the site whose home is at `path`."""
        return cls(SiteHome.load(Path(path)))

    @property
    def name(self) -> str:
        """The site's name."""
        return self._home.config.name

    @property
    def coordinator_key(self) -> Ed25519PublicKey | None:
        """The coordinator this site has pinned."""
        return self._key

    @property
    def rules(self) -> SiteRules:
        """Policy, approvals, ledger and audit log."""
        return self._rules

    @property
    def threads(self) -> int:
        """CPU threads for training."""
        return self._home.config.threads or os.cpu_count() or 1

    @property
    def device(self) -> str:
        """Device for training."""
        return self._home.config.device

    def approved(self, digest: str) -> Campaign | None:
        """The campaign if this site has approved exactly this file."""
        return self._rules.known(digest) if self._rules.approvals.is_approved(digest) else None

    def offer(self, text: str, *, digest: str) -> None:
        """Keep an offered file."""
        self._rules.approvals.offer(text, digest=digest)

    def training_seed(self, campaign: Campaign, *parts: str | int) -> int:
        """By the site's own key.

        Attack: a coordinator who knows which patients share a batch, or what noise was added to whom, has linear
        equations for what each of them contributed. Rule: nothing that training draws follows from what it knows.
        """
        return self._keys().seed("training", " ".join(map(str, (campaign.digest, *parts))))

    def privacy_secret(self) -> bytes:
        """By the site's own key."""
        return self._keys().secret("privacy")

    def _keys(self) -> Keys:
        return Keys(read_or_create(self._home.store_key, given=None, may_create=False))

    def state_dir(self, digest: str) -> Path:
        """The folder of a campaign's state."""
        return self._home.state_dir(digest)

    def cohort(self, campaign: Campaign) -> SiteCohort:
        """The patients frozen when the campaign was approved."""
        return self._rules.cohort(campaign)
