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

from fedage.common.analyses._columns import MAX_GAP_YEARS, within_bounds
from fedage.common.analyses._of_file import compared_gap
from fedage.common.analyses.group_difference import reported
from fedage.common.analyses.plan import definitions, registered
from fedage.common.analyses.table_grid import TABLE_GRID, TableGrid
from fedage.common.campaign.types import Campaign, Groups
from fedage.common.cohort import Cohort

BoolArray = NDArray[np.bool_]


def sets_summed(campaign: Campaign, cohort: Cohort) -> list[BoolArray]:
    """Whom (n,) the analyses of the reported part sum over, as far as that is known before anything is predicted.

    Columns that the cohort does not have are those of predictions, which everybody gets, or missing for everybody.

    Parameters
    ----------
    cohort
        With `is_test` and `healthy`.
    """
    part = np.asarray(cohort["is_test"] == 1)
    sets = [part]
    if campaign.estimator is not None or campaign.cohort.train_on == "healthy":
        sets.append(part & (cohort["healthy"] == 1))
    if "predicted_years" in cohort.columns:
        gap = np.abs(cohort["predicted_years"] - cohort["age_years"])
        sets.append(part & within_bounds(cohort, ("age_years", "predicted_years")) & (gap <= MAX_GAP_YEARS))
    for columns in _columns_of_survival(campaign):
        present = tuple(name for name in columns if name in cohort.columns)
        sets.append(part & within_bounds(cohort, present) & _followed(cohort, campaign))
    if campaign.groups is not None and campaign.groups.column in cohort.columns:
        sets += _groups(cohort, campaign.groups, gap=compared_gap(campaign), minimum=campaign.cell_minimum)
    return [*sets, *(mask for each in definitions(campaign) for mask in each.sets(campaign, cohort))]


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


def _columns_of_survival(campaign: Campaign) -> list[tuple[str, ...]]:
    survival = campaign.survival
    if survival is None:
        return []
    needed = [(*model.covariates, *survival.strata) for model in survival.models if model.by_site]
    grid = registered(campaign).get(TABLE_GRID)
    if isinstance(grid, TableGrid):
        needed.append(grid.needed)
    if campaign.planted:
        needed.append((campaign.planted.true_gap, "age_years"))
    return needed


def _followed(cohort: Cohort, campaign: Campaign) -> BoolArray:
    """Who (n,) has a follow-up of 0 or more, and is known to have had an event or none."""
    if campaign.survival is None:
        return np.ones(cohort.n, dtype=np.bool_)
    columns = [name for name in (campaign.survival.time, campaign.survival.event) if name in cohort.columns]
    times = cohort.columns.get(campaign.survival.time, np.zeros(cohort.n))
    return within_bounds(cohort, tuple(columns)) & ~(times < 0)


def _groups(cohort: Cohort, groups: Groups, *, gap: str, minimum: int) -> list[BoolArray]:
    """The patients compared, and each group of them; nobody where one group is too small to be compared."""
    present = tuple(name for name in (gap, *groups.covariates) if name in cohort.columns)
    compared = reported(cohort) & within_bounds(cohort, present)
    each = [compared & (cohort[groups.column] == value) for value in (groups.equals, groups.reference)]
    return [each[0] | each[1], *each] if min(map(np.count_nonzero, each)) >= minimum else []
