"""The model a run begins with, which both sides work out: from the approved file's seed, or from sums over all sites.

An estimator on tables starts from the solution of its preparation. A site is sent the sums over all sites and solves
them itself, so that no model is answered that is not the solution of sums that patients can have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.agreement import Agreed
from fedage.common.analyses.base import Done, IterateRefused
from fedage.common.analyses.table_preparation import TablePreparation
from fedage.common.analyses.table_total import NoSumOfPatients, check_total
from fedage.common.campaign.types import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators._table import TableBase
from fedage.common.estimators.base import Trainable
from fedage.common.estimators.configure import configured, initial_seed, preparation
from fedage.common.influence import InfluenceRefused
from fedage.common.networks.arrays import outline, state_to_arrays
from fedage.common.networks.roles import ArrayRoles, roles_of
from fedage.common.protocol import PreparedSums

Arrays = Mapping[str, NDArray[Any]]

TOLERANCE = 1e-5
"""How far two computations of the same first model may lie apart: initialisers and solvers differ in the last bits
between processors. Absolute up to 1, relative above; standardisation in standard deviations."""
_FLOAT32_STEPS = 4 * float(np.finfo(np.float32).eps)


class NoFirstModel(FedAgeError):
    """The campaign's first model cannot be worked out; the message says why and holds no value of a patient."""


def first_model(
    campaign: Campaign, features: Sequence[str], *, fold: int, sums: PreparedSums | None
) -> dict[str, NDArray[Any]]:
    """The first model of a fold.

    Parameters
    ----------
    campaign
        The approved file.
    features
        Numeric columns of the site's table.
    fold
        From 0; 0 without folds.
    sums
        For an estimator on tables, the sums over all sites.

    Raises
    ------
    NoFirstModel
        If sums are missing, or are none that patients can have, or give no model.
    """
    estimator, seed = configured(campaign, features), initial_seed(campaign, fold=fold)
    if not isinstance(estimator, TableBase):
        if not isinstance(estimator, Trainable):
            raise NoFirstModel("the campaign file has no estimator")
        return dict(state_to_arrays(estimator.build(seed=seed)))
    if sums is None:
        raise NoFirstModel("a model of a table comes with the sums that it was made of, and this one came without")
    analysis = preparation(campaign, features)
    if analysis is None:
        raise NoFirstModel("this estimator has no preparation whose sums could be checked")
    try:
        analysis.check(sums.iterate)
        summed = analysis.after(sums.iterate) if isinstance(analysis, Agreed) else analysis
        if not isinstance(summed, TablePreparation):
            raise NoFirstModel("this estimator has no preparation whose sums could be checked")
        total = check_total(
            analysis.layout(sums.iterate),
            sums.total,
            features=len(summed.columns),
            products=summed.products,
            scale=summed.scale,
        )
        outcome = analysis.combine(total, sums.iterate)
    except (IterateRefused, InfluenceRefused, NoSumOfPatients, KeyError, np.linalg.LinAlgError) as refusal:
        raise NoFirstModel(f"the sums that came with the model are refused: {refusal}") from None
    if not isinstance(outcome, Done):
        raise NoFirstModel("the sums that came with the model give none")
    return dict(estimator.weights_from(outcome.result, seed=seed))


def roles(campaign: Campaign, features: Sequence[str]) -> ArrayRoles | None:
    """What each array of the campaign's model is; None for a model that is not trained in rounds."""
    estimator = configured(campaign, features)
    return roles_of(outline(lambda: estimator.build(seed=0))) if isinstance(estimator, Trainable) else None


def is_first_model(sent: Arrays, own: Arrays, *, names: Sequence[str] | None = None) -> bool:
    """Whether two models of the same names and shapes are the same but for rounding.

    Parameters
    ----------
    names
        Compare these arrays only.
    """
    spread = _spread(own)
    for name in own if names is None else names:
        mine, theirs = (np.asarray(model[name], dtype=np.float64) for model in (own, sent))
        if spread is not None and name in ("means", "medians"):
            allowed = TOLERANCE * spread + _FLOAT32_STEPS * np.abs(mine)
        elif spread is not None and name in ("units", "sds"):
            allowed = TOLERANCE * np.abs(mine)
        else:
            allowed = TOLERANCE * np.maximum(1.0, np.abs(mine))
        if not np.all(np.abs(mine - theirs) <= allowed):
            return False
    return True


def standard_of_table(model: Arrays) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Means and 1/SD (p,) by which a table's model standardises its features, 0 for one unused; None for images."""
    spread = _spread(model)
    if spread is None:
        return None
    unit = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    return np.asarray(model["means"], dtype=np.float64), unit


def _spread(model: Arrays) -> NDArray[np.float64] | None:
    """The SD of each feature (p,), 0 for one that is not looked at; None for a model that is not of a table."""
    if "means" not in model:
        return None
    if "sds" in model:
        return np.asarray(model["sds"], dtype=np.float64)
    units = np.asarray(model["units"], dtype=np.float64)
    return np.divide(1.0, units, out=np.zeros_like(units), where=units > 0)
