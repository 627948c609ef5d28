"""The campaign's model at a site: ages predicted for some of its patients, whatever kind of estimator made it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedage.client.agent.cancel import should_stop
from fedage.client.guard import Withheld
from fedage.client.site import Site, SiteCohort
from fedage.client.training import predict_years
from fedage.common.analyses._columns import MAX_AGE_YEARS
from fedage.common.campaign import Campaign
from fedage.common.estimators._table import TableBase
from fedage.common.estimators.base import Estimator, Trainable
from fedage.common.estimators.configure import configured
from fedage.common.estimators.table_ridge import TableRidge, WeightsRefused
from fedage.common.networks.arrays import ModelRefused
from fedage.common.protocol import Payload, RequestRefused
from fedage.common.statistic import FloatArray


def estimator_of(campaign: Campaign, found: SiteCohort) -> Estimator | TableBase:
    """The campaign's estimator for this site's data.

    Raises
    ------
    RequestRefused
        Rule `no-estimator` in a campaign that only analyses.
    """
    estimator = configured(campaign, found.features)
    if estimator is None:
        raise RequestRefused("no-estimator", "the approved campaign file has no estimator")
    return estimator


def predict(
    site: Site, campaign: Campaign, found: SiteCohort, weights: Payload, *, rows: NDArray[np.intp]
) -> FloatArray:
    """Predictions (n,) in cohort order, 0 to 130 years, NaN for the patients not in `rows`.

    A prediction beyond, or none at all, counts as the bound: analyses leave implausible values out, and a model made so
    that one patient's is implausible would tell of that patient by subtraction.

    Raises
    ------
    RequestRefused
        Rule `model` for weights that are not those of the campaign's model.
    PredictionStopped
        If the message is cancelled.
    """
    estimator = estimator_of(campaign, found)
    predicted = np.full(found.cohort.n, np.nan)
    if not rows.size:
        return predicted
    samples = samples_at(found, rows)
    try:
        if isinstance(estimator, TableRidge):
            predicted[rows] = estimator.predict_years(weights, samples)
        elif isinstance(estimator, Trainable):
            predicted[rows] = predict_years(
                estimator,
                dict(weights),
                samples,
                device=site.device,
                threads=site.threads,
                should_stop=should_stop,
            )
    except (ModelRefused, WeightsRefused) as refused:
        raise RequestRefused("model", str(refused)) from None
    predicted[rows] = np.clip(np.nan_to_num(predicted[rows], nan=MAX_AGE_YEARS), 0.0, MAX_AGE_YEARS)
    return predicted


def samples_at(found: SiteCohort, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """The samples of some patients.

    Raises
    ------
    Withheld
        Rule `no-samples` at a site without them.
    """
    if found.samples is None:
        raise Withheld("no-samples", "this site has no samples for the campaign's estimator")
    return np.asarray(found.samples[rows])
