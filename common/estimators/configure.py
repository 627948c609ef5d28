"""An estimator as a campaign file configures it, on images or on tables with known features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fedage.common import estimators
from fedage.common.analyses.agreement import agreed, rule_of
from fedage.common.analyses.base import Analysis
from fedage.common.campaign.types import Campaign
from fedage.common.continuity import StepLimits
from fedage.common.errors import FedAgeError
from fedage.common.estimators._table import TableBase
from fedage.common.estimators.base import Estimator
from fedage.common.protocol import derived_seed


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


def initial_seed(campaign: Campaign, *, fold: int) -> int:
    """The seed of a fold's first model."""
    return derived_seed("initial-weights", campaign.campaign.seed, fold)


def step_limits(campaign: Campaign) -> StepLimits | None:
    """How far the campaign's model may move; None where nothing is trained in rounds.

    Never more than the estimator states, whatever the file and the number of its rounds.
    """
    training = campaign.training
    if training is None or campaign.estimator is None:
        return None
    estimator = estimators.estimator_class(campaign.estimator.name)
    step, path = estimator.max_step_norm, estimator.max_path_norm
    if training.max_step_norm is not None:
        step = min(step, training.max_step_norm)
    asked = math.sqrt(training.rounds) * step if training.max_path_norm is None else training.max_path_norm
    return StepLimits(step_norm=step, path_norm=min(path, asked))


class FeaturesDiffer(FedAgeError):
    """The campaign's features are not the same columns at all sites."""


def agreed_features(campaign: Campaign, columns: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Numeric columns of a table that give every site's features: what else some site's table holds does not matter.

    Parameters
    ----------
    campaign
        The file.
    columns
        By site, the numeric columns of its table.

    Raises
    ------
    FeaturesMissing, FeaturesDiffer
        If the file names features that a site does not have, or its patterns find others at one site than at another.
    """
    chosen: dict[str, frozenset[str]] = {}
    for site, there in sorted(columns.items()):
        try:
            estimator = configured(campaign, there)
        except FedAgeError as error:
            raise type(error)(f"site {site}: {error}") from None
        if isinstance(estimator, TableBase):
            chosen[site] = frozenset(estimator.features)
    if not chosen:
        return ()
    everywhere = frozenset.intersection(*chosen.values())
    for site, features in chosen.items():
        if extra := sorted(features - everywhere):
            without = next(other for other, found in chosen.items() if extra[0] not in found)
            more = f" and {len(extra) - 5} more" if len(extra) > 5 else ""
            raise FeaturesDiffer(
                f"estimator.options.features finds columns at {site} that are no numeric column at {without}: "
                f"{', '.join(extra[:5])}{more}; name the features, exclude these, or give all tables the same columns"
            )
    return tuple(sorted(columns[min(chosen)]))


def preparation(campaign: Campaign, features: Sequence[str]) -> Analysis | None:
    """The analysis that an estimator on tables begins with, of the patients in training; None for any other."""
    estimator = configured(campaign, features)
    if not isinstance(estimator, TableBase):
        return None
    analysis = estimator.preparation(
        minimum_count=campaign.cell_minimum,
        # Else those who are never trained on would count as held out, and hide how few really are.
        healthy_only=campaign.cohort.train_on == "healthy",
        cross_fitted=campaign.validation.folds is not None,
        influence=rule_of(campaign),
    )
    return agreed(analysis, campaign)
