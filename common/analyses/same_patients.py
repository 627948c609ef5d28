"""Over whom the analyses of a campaign sum, and the few by whom two of them differ.

Attack: two analyses of one file need different columns. If one patient lacks a covariate, the sums of ages over both
differ by that patient's age, and their numbers of patients by one. Rule: two sets of patients whose sums leave are
equal, or differ by at least the minimum count; the few who make a smaller difference are in no sum. Residual risk:
three sets and more, added and subtracted; patients left out as the campaign's own model predicts nothing plausible.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.registry import of_campaign
from fedage.common.campaign.types import Campaign
from fedage.common.statistics.cohort import Cohort

BoolArray = NDArray[np.bool_]


def sets_summed(campaign: Campaign, cohort: Cohort) -> list[BoolArray]:
    """Whom (n,) the analyses of the reported part sum over, as far as that is known before anything is predicted.

    Columns that the cohort does not have are those of predictions, which everybody gets, or missing for everybody.

    Parameters
    ----------
    cohort
        With `is_test` and `healthy`.
    """
    return [mask for each in of_campaign(campaign) for mask in each.sets(campaign, cohort)]


def few_apart(sets: Sequence[BoolArray], *, minimum: int) -> BoolArray:
    """Who (n,) has to be in no sum, so that two sets are equal or differ by at least `minimum` patients.

    A set of fewer patients is withheld anyway. Leaving patients out makes sets smaller and their differences too, so
    this goes on until nothing changes.
    """
    aside = np.zeros(sets[0].size, dtype=np.bool_)
    while True:
        left = [kept for one in sets if np.count_nonzero(kept := one & ~aside) >= minimum]
        for one, other in combinations(left, 2):
            apart = one ^ other
            if 0 < np.count_nonzero(apart) < minimum:
                aside |= apart
                break
        else:
            return aside
