"""An estimator as a campaign file configures it, on images or on tables with known features."""

from __future__ import annotations

from collections.abc import Sequence

from fedage.common import estimators
from fedage.common.analyses.base import Analysis
from fedage.common.campaign.types import Campaign
from fedage.common.estimators._table import TableBase
from fedage.common.estimators.base import Estimator


def configured(campaign: Campaign, features: Sequence[str] = ()) -> Estimator | TableBase | None:
    """The campaign's estimator; None for a campaign that only analyses.

    Parameters
    ----------
    campaign
        The file.
    features
        Columns of the sites' tables that an estimator on tables may use.

    Raises
    ------
    FeaturesMissing
        If the file names features that are not among them.
    """
    if campaign.estimator is None:
        return None
    estimator = estimators.make(campaign.estimator.name, campaign.estimator.options)
    if isinstance(estimator, TableBase):
        return estimator.on_table(features)
    return estimator


def preparation(campaign: Campaign, features: Sequence[str]) -> Analysis | None:
    """The analysis that an estimator on tables begins with, of the patients in training; None for any other."""
    estimator = configured(campaign, features)
    if not isinstance(estimator, TableBase):
        return None
    return estimator.preparation(
        minimum_count=campaign.cell_minimum,
        # Else those who are never trained on would count as held out, and hide how few really are.
        healthy_only=campaign.cohort.train_on == "healthy",
        cross_fitted=campaign.validation.folds is not None,
    )
