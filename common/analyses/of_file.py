"""What several analyses read of a campaign file: its gap, its Cox models, and the columns that other models sum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.columns import TwoGroups, within_bounds
from fedage.common.campaign.types import Campaign, CoxModel, Survival
from fedage.common.statistics.cohort import Cohort

BoolArray = NDArray[np.bool_]

COX = "cox:"
"""A Cox model's step is this prefix and its name in the file."""
BINARY = ("healthy", "is_male")
"""Strata columns whose values are known beforehand, as an unstratified model needs them."""

NO_TABLES = "needs times at which tables may leave a site; set survival.table_times_years"


def why_not(survival: Survival, model: CoxModel) -> str:
    """Why the file does not allow to compute a Cox model, with the mend; empty if it does."""
    if model.by_site:
        return ""
    if not survival.table_times_years:
        return NO_TABLES
    unknown = [column for column in survival.strata if column not in BINARY]
    if unknown:
        return (
            f"an unstratified model cannot know the levels of strata {', '.join(unknown)} "
            f"(it knows those of {', '.join(BINARY)}); set by_site = true or drop the strata"
        )
    return ""


def computed(survival: Survival) -> list[CoxModel]:
    """The models that the file allows to compute."""
    return [model for model in survival.models if not why_not(survival, model)]


def beside(campaign: Campaign, earlier: list[CoxModel]) -> tuple[str | TwoGroups, ...]:
    """The columns whose products, or sums by whose values, leave for the other models and comparisons of the file.

    Covariates of earlier models only: of two columns that nearly repeat each other the later one is left out. What
    tells groups and strata cannot be left out, so it counts as earlier.
    """
    columns: list[str | TwoGroups] = [column for model in earlier for column in model.covariates]
    if campaign.survival is not None:
        columns += campaign.survival.strata
    if (groups := campaign.groups) is not None:
        columns.append(TwoGroups(groups.column, groups.equals, groups.reference))
    return tuple(dict.fromkeys(columns))


def levels_of(survival: Survival) -> tuple[tuple[float, ...], ...]:
    """The values of each strata column of an unstratified model."""
    return tuple((0.0, 1.0) for _ in survival.strata)


def curves_by(campaign: Campaign) -> str | None:
    """The column that makes the groups of the Kaplan-Meier curves; None for a campaign with neither one nor a gap."""
    survival, gap = campaign.survival, gap_of(campaign)
    if survival is None:
        return None
    has_gap = campaign.estimator is not None or any(gap in model.covariates for model in survival.models)
    return survival.curves_by or (gap if has_gap else None)


def gap_of(campaign: Campaign) -> str:
    """The column of gaps on the scale that the file chooses."""
    return "gap_years" if campaign.bias.scale == "de-lange" else "cole_gap_years"


def tells_raw_gap(campaign: Campaign) -> bool:
    """Whether the sites' tables hold predicted ages, so that gaps come from them and not from a column of gaps."""
    return campaign.estimator is None and bool(campaign.table and campaign.table.predicted)


def compared_gap(campaign: Campaign) -> str:
    """The column of gaps that groups are compared by."""
    return "raw_gap_years" if tells_raw_gap(campaign) else gap_of(campaign)


def has_predictions(campaign: Campaign) -> bool:
    """Whether there are predicted ages: of the campaign's model, or in the sites' tables."""
    return campaign.estimator is not None or bool(campaign.table and campaign.table.predicted)


def followed_with(cohort: Cohort, campaign: Campaign, columns: tuple[str, ...]) -> BoolArray:
    """Which test patients (n,) are followed and complete in those of the columns that the cohort has.

    The others are those of predictions, which everybody gets, or missing for everybody.
    """
    present = tuple(name for name in columns if name in cohort.columns)
    complete: BoolArray = (cohort["is_test"] == 1) & within_bounds(cohort, present) & _followed(cohort, campaign)
    return complete


def _followed(cohort: Cohort, campaign: Campaign) -> BoolArray:
    """Who (n,) has a follow-up of 0 or more, and is known to have had an event or none."""
    if campaign.survival is None:
        return np.ones(cohort.n, dtype=np.bool_)
    columns = [name for name in (campaign.survival.time, campaign.survival.event) if name in cohort.columns]
    times = cohort.columns.get(campaign.survival.time, np.zeros(cohort.n))
    return within_bounds(cohort, tuple(columns)) & ~(times < 0)
