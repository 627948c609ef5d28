"""A hospital as its handlers see it: the site's home, its store, its approvals, its sample cache."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from threading import RLock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedage.client.approvals import Approvals
from fedage.client.cohort.query import select
from fedage.client.cohort.samples import SampleCache
from fedage.client.cohort.store import CohortStore
from fedage.client.home import SiteHome
from fedage.client.parts import with_parts
from fedage.client.site import SiteCohort
from fedage.common import estimators
from fedage.common.campaign import Campaign
from fedage.common.cohort import Cohort
from fedage.common.protocol import RequestRefused
from fedage.common.statistic import FloatArray

_KEPT_COHORTS = 2


class DeployedSite:
    """One hospital, opened from its home folder. Cohorts stay in memory while a campaign runs."""

    guard = True

    def __init__(self, home: SiteHome) -> None:
        self._home = home
        self._approvals = Approvals(home.root)
        self._cohorts: OrderedDict[str, SiteCohort] = OrderedDict()
        self._images = ImageCohorts(home.root)
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
                self._cohorts[campaign.digest] = self._images.read(campaign)
                while len(self._cohorts) > _KEPT_COHORTS:
                    self._cohorts.popitem(last=False)
            return self._cohorts[campaign.digest]


class ImageCohorts:
    """Cohorts of images from a home's store: selected, preprocessed, and given their columns."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def read(self, campaign: Campaign) -> SiteCohort:
        """The campaign's patients and their samples.

        Raises
        ------
        RequestRefused
            Rule `no-table` for a campaign that is not on images.
        """
        if campaign.estimator is None or campaign.table is not None:
            raise RequestRefused("no-table", "this site has images and the campaign is on tables")
        estimator = estimators.make(campaign.estimator.name, campaign.estimator.options)
        chosen = campaign.cohort
        with CohortStore.open(self._home) as store:
            selection = select(
                store,
                modalities=chosen.modality or estimator.modalities,
                age_min_years=chosen.age_min_years,
                age_max_years=chosen.age_max_years,
            )
            rejected_files = store.rejected_by_reason()
            samples = SampleCache(self._home / "cache", root=store.root).build(selection, estimator)
        selection = samples.selection
        columns: dict[str, FloatArray] = {
            **selection.outcomes,
            "age_years": selection.age_years,
            "is_male": selection.is_male,
        }
        return SiteCohort(
            cohort=with_parts(Cohort(columns), selection.unit, campaign),
            samples=samples.array,
            excluded=selection.excluded,
            rejected_files=rejected_files,
            rejected_samples=samples.rejected,
            snapshot=selection.snapshot,
        )
