"""A virtual hospital of a simulation: cohorts, guard and handlers as in deployment, without keys and network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedage.client.parts import with_parts
from fedage.client.site import Site, SiteCohort
from fedage.client.site_cohorts import ImageCohorts
from fedage.client.table_store import read_site_table, samples_of
from fedage.common.campaign import Campaign, load_campaign
from fedage.common.cohort import Cohort
from fedage.common.simulation import SimulatedSiteJob, SimulationJob


class SimulatedSite:
    """One site of a simulated run; the campaign of the run is the one it approves."""

    coordinator_key = None
    rules = None

    def __init__(self, job: SimulationJob, site: SimulatedSiteJob) -> None:
        self._campaign = load_campaign(job.campaign)
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

    def state_dir(self, digest: str) -> Path:
        """The folder of a campaign's state."""
        folder = self._site.home / "state" / digest
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def cohort(self, campaign: Campaign) -> SiteCohort:
        """The campaign's patients."""
        if self._cohort is None:
            self._cohort = self._images.read(campaign) if self._images is not None else self._read_table(campaign)
        return self._cohort

    def _read_table(self, campaign: Campaign) -> SiteCohort:
        table = read_site_table(self._site.home)
        cohort = with_parts(Cohort(table.columns), table.unit, campaign)
        chosen = campaign.cohort
        age = cohort.columns.get("age_years")
        excluded: dict[str, int] = {}
        if age is not None:
            # A patient without an age is not outside: where age matters, reading has set them aside.
            outside = (age < chosen.age_min_years) | (age > chosen.age_max_years)
            excluded["age-outside-cohort"] = int(np.count_nonzero(outside))
            cohort = cohort.where(~outside)
        return SiteCohort(
            cohort=cohort,
            samples=samples_of(cohort, campaign, table.features),
            excluded={reason: count for reason, count in excluded.items() if count},
            rejected_files=table.rejected,
            features=table.features,
            snapshot=table.snapshot,
        )


def simulated_site(partition: int, job: SimulationJob) -> Site:
    """The site of a virtual node.

    Raises
    ------
    IndexError
        If the simulation has more nodes than sites.
    """
    return SimulatedSite(job, job.sites[partition])
