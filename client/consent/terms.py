"""On what terms a hospital answers: the approved campaign, the data set, the frozen cohort, the budget."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.consent.policy import Allowed, DataSet
from fedage.client.consent.snapshots import Snapshot
from fedage.common.campaign import Campaign
from fedage.common.privacy.accountant import Budget

UNBOUNDED_EPSILON = sys.float_info.max
"""A data set without a budget: what is spent on it is kept all the same, and nothing is refused."""
DELTA_WITHOUT_BUDGET = 1e-5


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what terms a message is answered.

    Parameters
    ----------
    campaign
        The approved file, its minimum count raised to the site's.
    allowed
        What the policy says: whose patients, and the minimum count.
    site_cohort
        The frozen cohort.
    """

    campaign: Campaign
    allowed: Allowed
    site_cohort: SiteCohort


@dataclass(frozen=True, kw_only=True)
class Approved:
    """An approval that was given.

    Parameters
    ----------
    snapshot
        The frozen cohort.
    cohort_of
        Digest of an earlier campaign whose cohort was taken again, because today's differs from it by too few patients.
    """

    campaign: Campaign
    allowed: Allowed
    snapshot: Snapshot
    cohort_of: str | None = None


def with_disclosure(campaign: Campaign, allowed: Allowed) -> Campaign:
    """The campaign as a deployed site computes it: as strict as the site's policy, and never without a guard."""
    stricter = {
        "minimum_count": allowed.minimum_count,
        "largest_share": allowed.largest_share,
        "patients_per_column": allowed.patients_per_column,
    }
    privacy = campaign.privacy.model_copy(update=stricter)
    simulation = campaign.simulation.model_copy(update={"guard": True})
    return campaign.model_copy(update={"privacy": privacy, "simulation": simulation})


def budget_of(data_set: DataSet) -> Budget:
    """What a data set may spend."""
    if data_set.epsilon is None or data_set.delta is None:
        return Budget(epsilon=UNBOUNDED_EPSILON, delta=DELTA_WITHOUT_BUDGET)
    return Budget(epsilon=data_set.epsilon, delta=data_set.delta)
