"""A hospital as its handlers see it: the site's home, its store, its approvals, its sample cache."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from threading import RLock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedage.client.approvals import Approvals
from fedage.client.home import SiteHome
from fedage.client.site import SiteCohort
from fedage.client.site_cohorts import SiteCohorts
from fedage.common.campaign import Campaign

_KEPT_COHORTS = 2


class DeployedSite:
    """One hospital, opened from its home folder. Cohorts stay in memory while a campaign runs."""

    guard = True

    def __init__(self, home: SiteHome) -> None:
        self._home = home
        self._approvals = Approvals(home.root)
        self._cohorts: OrderedDict[str, SiteCohort] = OrderedDict()
        self._reader = SiteCohorts(home.root)
        self._lock = RLock()

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
        return self._home.coordinator_key()

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
        return self._approvals.approved(digest)

    def offer(self, text: str, *, digest: str) -> None:
        """Keep an offered file."""
        self._approvals.offer(text, digest=digest)

    def state_dir(self, digest: str) -> Path:
        """The folder of a campaign's state."""
        folder = self._home.root / "state" / digest
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def cohort(self, campaign: Campaign) -> SiteCohort:
        """The campaign's patients; read once and kept while the campaign runs."""
        with self._lock:
            if campaign.digest not in self._cohorts:
                self._cohorts[campaign.digest] = self._reader.read(campaign)
                while len(self._cohorts) > _KEPT_COHORTS:
                    self._cohorts.popitem(last=False)
            return self._cohorts[campaign.digest]
