"""Which columns of a campaign nearly repeat those by which sums left before: what an administrator reads beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.cohort.table.columns import model_columns
from fedage.client.consent.accounts.released_columns import ReleasedColumns
from fedage.common.analyses.base import LeftOutByFile
from fedage.common.analyses.columns_read import ReadsColumns, with_rows
from fedage.common.analyses.plan import registered
from fedage.common.campaign import Campaign
from fedage.common.estimators.configure import exact_analyses
from fedage.common.statistics.cohort import MissingColumn, UnusableColumn
from fedage.common.statistics.statistic import FloatArray


def account_of(folder: Path, campaign: Campaign, *, keys: tuple[str, ...]) -> ReleasedColumns:
    """The account of released columns as a campaign asks it of patients with these keyed hashes."""
    return ReleasedColumns(
        folder,
        patients=keys,
        campaign=campaign.digest,
        of_the_model=model_columns(campaign),
        minimum_count=campaign.cell_minimum,
    )


def similar_columns(folder: Path, campaign: Campaign, site_cohort: SiteCohort) -> Mapping[str, tuple[str, str]]:
    """Columns of a campaign of which sums would be withheld, each with the earlier one's name and campaign's digest.

    Raises
    ------
    Withheld
        Rule `store-unavailable` if the account cannot be read.
    """
    return account_of(folder, campaign, keys=site_cohort.keys).near_earlier(_columns(campaign, site_cohort))


def _columns(campaign: Campaign, site_cohort: SiteCohort) -> dict[str, FloatArray]:
    """The columns (n,) by which the campaign's analyses make sums, as far as they are there before it runs."""
    exact, cohort = exact_analyses(campaign, site_cohort.features), with_rows(site_cohort.cohort)
    columns: dict[str, FloatArray] = {}
    for analysis in (*registered(campaign).values(), *exact.values()):
        if not isinstance(analysis, ReadsColumns):
            continue
        try:
            read = analysis.columns_read(cohort, {})
        except (MissingColumn, UnusableColumn, LeftOutByFile):
            continue  # of the model's own columns, which are not compared; the others are said when they are asked for
        for name in (*read.needed, *read.judged):
            if name in read.made or name in cohort.columns:
                columns.setdefault(name, np.asarray(read.made.get(name, cohort.columns.get(name))))
    return columns
