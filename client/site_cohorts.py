"""A campaign's patients from a site's own store, within what a data set of its policy offers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from fedage.client.cohort.query import Selection, select
from fedage.client.cohort.samples import SampleCache
from fedage.client.cohort.store import CohortStore
from fedage.client.parts import with_parts
from fedage.client.policy.types import DataSet
from fedage.client.site import SiteCohort
from fedage.common import estimators
from fedage.common.campaign import Campaign
from fedage.common.cohort import Cohort
from fedage.common.estimators.base import Estimator
from fedage.common.protocol import RequestRefused
from fedage.common.statistic import FloatArray


class SiteCohorts:
    """Cohorts from a home's store, of whatever kind the campaign asks."""

    def __init__(self, home: Path) -> None:
        self._images = ImageCohorts(home)

    def read(
        self, campaign: Campaign, *, data_set: DataSet | None = None, patients: Collection[str] | None = None
    ) -> SiteCohort:
        """The campaign's patients; only those with these keyed hashes, if `patients` is given (a frozen cohort).

        Raises
        ------
        RequestRefused
            Rule `no-table` if this site has nothing of the kind; `data-set` if the data set has no such modality.
        """
        return self._images.read(campaign, data_set=data_set, patients=patients)

    def count(self, campaign: Campaign, *, data_set: DataSet | None = None) -> int:
        """How many patients that would be, before any image is looked at. Raises as `read` does."""
        return self._images.count(campaign, data_set=data_set)


class ImageCohorts:
    """Cohorts of images from a home's store: selected, preprocessed, and given their columns."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def read(
        self, campaign: Campaign, *, data_set: DataSet | None = None, patients: Collection[str] | None = None
    ) -> SiteCohort:
        """The campaign's patients and their samples.

        Parameters
        ----------
        campaign
            The approved file.
        data_set
            Filters of the site's own policy; they narrow what the campaign asks and never widen it.
        patients
            Keyed hashes of a frozen cohort: nobody else is in. None means anybody.

        Raises
        ------
        RequestRefused
            Rule `no-table` for a campaign that is not on images; `data-set` if the data set has none of its modalities.
        """
        estimator = self._estimator(campaign)
        with CohortStore.open(self._home) as store:
            selection = _select(store, campaign, estimator, data_set=data_set, patients=patients)
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
            keys=selection.keys,
        )

    def count(self, campaign: Campaign, *, data_set: DataSet | None = None) -> int:
        """How many patients the store has for it; some of their images may turn out not to be usable."""
        estimator = self._estimator(campaign)
        with CohortStore.open(self._home) as store:
            return _select(store, campaign, estimator, data_set=data_set).n

    def _estimator(self, campaign: Campaign) -> Estimator:
        if campaign.estimator is None or campaign.table is not None:
            raise RequestRefused("no-table", "this site has images and the campaign is on tables")
        return estimators.make(campaign.estimator.name, campaign.estimator.options)


def _select(
    store: CohortStore,
    campaign: Campaign,
    estimator: Estimator,
    *,
    data_set: DataSet | None,
    patients: Collection[str] | None = None,
) -> Selection:
    chosen, offered = campaign.cohort, data_set or DataSet()
    return select(
        store,
        modalities=_within(offered, chosen.modality or estimator.modalities),
        age_min_years=max(chosen.age_min_years, offered.age_min_years),
        age_max_years=min(chosen.age_max_years, offered.age_max_years),
        manufacturers=offered.manufacturer,
        patients=patients,
    )


def _within(data_set: DataSet, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The modalities that both mean; an empty tuple is any, so nothing in common has to be refused."""
    if not data_set.modality or not wanted:
        return wanted or data_set.modality
    if common := tuple(one for one in wanted if one in data_set.modality):
        return common
    raise RequestRefused("data-set", "this site's data set has no image of the modalities that the campaign reads")
