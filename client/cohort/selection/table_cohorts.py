"""From a site's table to a campaign's patients: the same code for a simulated site and for a deployed one."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from fedage.client.cohort.selection.parts import with_parts
from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.cohort.table.site_table import SiteTable, samples_of
from fedage.common.campaign import Campaign
from fedage.common.statistics.cohort import Cohort

AGES_YEARS = (0.0, 130.0)
"""Bounds that leave nobody out."""


def table_cohort(
    table: SiteTable,
    campaign: Campaign,
    *,
    offered_ages_years: tuple[float, float] = AGES_YEARS,
    patients: Collection[str] | None = None,
) -> SiteCohort:
    """The patients of a table within the campaign's ages.

    Parameters
    ----------
    table, campaign
        The table as the campaign asks for it.
    offered_ages_years
        Youngest and oldest age that the site's policy offers; where it says so, nobody without an age is in.
    patients
        Keyed hashes of a frozen cohort: nobody else is in. None means anybody.

    Raises
    ------
    FedAgeError
        If the campaign names features that the table does not have.
    """
    cohort, is_included, excluded = Cohort(table.columns), np.ones(table.split_uniform.size, dtype=bool), {}
    if patients is not None:
        is_included &= np.fromiter((key in patients for key in table.keys), dtype=bool, count=len(table.keys))
    age = cohort.columns.get("age_years", np.full(cohort.n, np.nan))
    youngest = max(campaign.cohort.age_min_years, offered_ages_years[0])
    oldest = min(campaign.cohort.age_max_years, offered_ages_years[1])
    # A patient without an age is not outside: where the campaign needs ages, reading has set them aside.
    outside = is_included & ((age < youngest) | (age > oldest))
    excluded["age-outside-cohort"] = int(np.count_nonzero(outside))
    is_included &= ~outside
    if offered_ages_years != AGES_YEARS:
        excluded["no-age"] = int(np.count_nonzero(is_included & np.isnan(age)))
        is_included &= np.isfinite(age)
    cohort = with_parts(cohort.where(is_included), table.split_uniform[is_included], campaign)
    return SiteCohort(
        cohort=cohort,
        samples=samples_of(cohort, campaign, table.features),
        excluded={reason: count for reason, count in excluded.items() if count},
        rejected_files=table.rejected,
        features=table.features,
        snapshot=table.snapshot,
        keys=tuple(key for key, included in zip(table.keys, is_included, strict=False) if included),
    )
