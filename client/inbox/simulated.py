"""A virtual hospital of a simulation: cohorts, guard and handlers as in deployment, without keys and network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from fedage.client.cohort.keys import read_or_create
from fedage.client.cohort.selection.table_cohorts import table_cohort
from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.cohort.table.site_table import read_site_table
from fedage.client.consent.site_cohorts import ImageCohorts
from fedage.client.inbox.site import Site
from fedage.client.site.durable import only_while_running
from fedage.common.campaign import Campaign
from fedage.common.protocol.messages import derived_seed
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.deploy.machine.simulation import SimulatedSiteJob, SimulationJob

PRIVACY_KEY = "privacy.key"
PATIENTS_DIGEST = "patients.sha256"
_PARTS = ("age_years", "healthy", "fold", "is_train", "is_validation", "is_test")


class SimulatedSite:
    """One site of a simulated run; the campaign of the run is the one it approves."""

    coordinator_key = None
    rules = None

    def __init__(self, job: SimulationJob, site: SimulatedSiteJob) -> None:
        self._campaign = load_campaign(job.campaign).at(site.name)
        self._site = site
        self.name = site.name
        self.threads = job.threads
        self.device = job.share.device
        self.guard = self._campaign.simulation.guard
        self._images = ImageCohorts(site.home) if site.kind == "images" else None
        self._cohort: SiteCohort | None = None

    def approved(self, digest: str) -> Campaign | None:
        """The run's campaign, if that is the one asked for."""
        return self._campaign if digest == self._campaign.digest else None

    def offer(self, text: str, *, digest: str) -> None:
        """Nothing to keep: there is no administrator to read it."""

    def training_seed(self, campaign: Campaign, *parts: str | int) -> int:
        """As the campaign's seed says, so that a simulation can be repeated."""
        return derived_seed("train", campaign.campaign.seed, self.name, *parts)

    def privacy_secret(self) -> bytes:
        """Drawn for each simulation and kept while it runs.

        Not as the campaign's seed says: whoever reads a published file could subtract the noise of a published model.
        """
        return read_or_create(self._site.home / PRIVACY_KEY, given=None, may_create=True)

    def state_dir(self, digest: str) -> Path:
        """The folder of a campaign's state."""
        folder = self._site.home / "state" / digest
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def cohort(self, campaign: Campaign) -> SiteCohort:
        """The campaign's patients."""
        if self._cohort is None:
            if self._images is not None:
                self._cohort = self._images.read(campaign)
            else:
                self._cohort = table_cohort(read_site_table(self._site.home), campaign)
            (self._site.home / PATIENTS_DIGEST).write_text(patients_digest(self._cohort), encoding="utf-8")
        return self._cohort


def patients_digest(of: SiteCohort) -> str:
    """SHA-256 over the patients and the parts that each is in: equal for runs that are judged on the same ones.

    A deployed site tells no such digest: it would tell whether two campaigns are of the same patients.
    """
    digest = hashlib.sha256("\n".join(of.keys).encode())
    for name in _PARTS:
        if name in of.cohort.columns:
            digest.update(name.encode() + np.ascontiguousarray(of.cohort[name], dtype=np.float64).tobytes())
    return digest.hexdigest()


def simulated_site(partition: int, job: SimulationJob) -> Site:
    """The site of a virtual node, in a process that has no other sites.

    Raises
    ------
    IndexError
        If the simulation has more nodes than sites.
    """
    only_while_running()
    return SimulatedSite(job, job.sites[partition])
