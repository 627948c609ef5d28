"""Units that seem to differ between sites with images: their ages, follow-up times and other outcomes."""

from __future__ import annotations

from collections.abc import Mapping

from fedage.client.cohort.store.query import Selection
from fedage.client.cohort.table.columns import named_columns
from fedage.client.cohort.table.units import far_medians_in_words, far_years_in_words
from fedage.common.campaign import Campaign
from fedage.common.statistics.statistic import FloatArray


def units_in_words(sites: Mapping[str, Selection], campaign: Campaign) -> list[str]:
    """One line for what seems to be in another unit at some sites, of what the campaign reads; by site what it has."""
    survival = campaign.survival
    in_years = {"age_years": {site: found.age_years for site, found in sites.items()}}
    others: dict[str, dict[str, FloatArray]] = {}
    for name in named_columns(campaign):
        by_site = {site: found.outcomes[name] for site, found in sites.items() if name in found.outcomes}
        if survival and name == survival.time:
            in_years[name] = by_site
        elif by_site and not (survival and name == survival.event):
            others[name] = by_site
    return [*far_medians_in_words(others), *far_years_in_words(in_years)]
