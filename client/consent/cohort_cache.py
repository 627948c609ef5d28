"""Cohorts that stay in memory while their campaigns run."""

from __future__ import annotations

import threading
from collections import OrderedDict

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.consent.frozen_values import frozen_of
from fedage.client.consent.policy import DataSet
from fedage.client.consent.site_cohorts import SiteCohorts
from fedage.client.consent.snapshots import Snapshot
from fedage.client.site.cancel import wait_for
from fedage.common.campaign import Campaign

_KEPT_COHORTS = 2
_Key = tuple[str, str, str, int]


class CohortCache:
    """Cohorts in memory while their campaigns run; one at a time is read, and each only once."""

    def __init__(self, reader: SiteCohorts) -> None:
        self._reader = reader
        self._kept: OrderedDict[_Key, SiteCohort] = OrderedDict()
        self._lock, self._reading = threading.Lock(), threading.Lock()

    def read(self, campaign: Campaign, data_set: DataSet, *, frozen: Snapshot | None = None) -> SiteCohort:
        """The campaign's patients within a data set; of a frozen cohort nobody else's.

        Without `frozen` the store is read as it is now.

        Raises
        ------
        SnapshotChanged
            If the store no longer has the frozen patients, or has other values of them.
        Cancelled
            If the message that it is read for is cancelled.
        """
        if frozen is None:
            return self._reader.read(campaign, data_set=data_set)
        # The minimum count decides who is set aside, so a policy that changes while a campaign runs asks for another.
        minimum = campaign.cell_minimum
        key = (campaign.digest, data_set.model_dump_json(), frozen.sha256 + frozen.values_sha256, minimum)
        if (site_cohort := self._known(key)) is not None:
            return site_cohort
        wait_for(lambda: self._reading.acquire(blocking=False))
        try:
            if (site_cohort := self._known(key)) is not None:
                return site_cohort
            site_cohort = self._reader.read(campaign, data_set=data_set)
            if set(site_cohort.keys) != set(frozen.patients):
                site_cohort = self._reader.read(campaign, data_set=data_set, patients=frozenset(frozen.patients))
            frozen.require(frozen_of(site_cohort, campaign))
            with self._lock:
                self._kept[key] = site_cohort
                while len(self._kept) > _KEPT_COHORTS:
                    self._kept.popitem(last=False)
        finally:
            self._reading.release()
        return site_cohort

    def _known(self, key: _Key) -> SiteCohort | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)
