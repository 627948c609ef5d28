"""Detects ages, follow-up times and outcomes whose unit seems to differ between sites with images."""

from __future__ import annotations

from collections.abc import Mapping

from fedage.client.cohort.store.query import Selection
from fedage.client.cohort.table.columns import named_columns
from fedage.client.cohort.table.units import distant_median_messages, distant_year_messages
from fedage.common.campaign import Campaign
from fedage.common.statistics.statistic import FloatArray


def unit_messages(sites: Mapping[str, Selection], campaign: Campaign) -> list[str]:
    """One message for each column that the campaign reads and whose unit seems to differ between sites."""
    survival = campaign.survival
    in_years = {"age_years": {site: selection.age_years for site, selection in sites.items()}}
    other_columns: dict[str, dict[str, FloatArray]] = {}
    for name in named_columns(campaign):
        by_site = {site: selection.outcomes[name] for site, selection in sites.items() if name in selection.outcomes}
        if survival and name == survival.time:
            in_years[name] = by_site
        elif by_site and not (survival and name == survival.event):
            other_columns[name] = by_site
    return [*distant_median_messages(other_columns), *distant_year_messages(in_years)]
