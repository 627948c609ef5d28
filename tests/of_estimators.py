"""Short ways for tests to one estimator's phases: its network, its exact sums, its model before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.client.compute import training
from fedage.client.compute.training import TrainedUpdate, predict_columns
from fedage.common.analyses.base import Analysis, Done, run_locally
from fedage.common.campaign.types import Campaign
from fedage.common.estimators import derive
from fedage.common.estimators.base import Arrays, Conditions, Estimator, ExactPhase, RoundsPhase, Samples
from fedage.common.estimators.configure import exact_analyses, rounds_phases
from fedage.common.estimators.ridge import PREPARATION
from fedage.common.networks.arrays import Weights
from fedage.common.networks.roles import ArrayRoles
from fedage.common.protocol.basis import Basis, PreparedSums, join_basis
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray


def network(estimator: Estimator) -> Any:
    """The estimator's one phase in rounds."""
    (phase,) = (phase for phase in estimator.phases if isinstance(phase, RoundsPhase))
    return phase


def samples(estimator: Estimator, array: NDArray[Any]) -> Samples:
    """An array as the samples of an estimator with one input."""
    (name,) = estimator.shapes()
    return Samples({name: array})


def built(estimator: Estimator, *, seed: int) -> Weights:
    """The arrays of a network that no exact phase comes before."""
    return dict(network(estimator).start({}, seed=seed))


def prepared(estimator: Estimator, sites: Mapping[str, Cohort], *, minimum_count: int = 1) -> dict[str, Any]:
    """The result of the exact phase that the estimator begins with."""
    phase = estimator.phases[0]
    assert isinstance(phase, ExactPhase)
    outcome = run_locally(phase.analysis(Conditions(minimum_count=minimum_count)), sites)
    assert isinstance(outcome, Done), outcome
    return outcome.result


def weights_from(estimator: Estimator, result: Mapping[str, Any], *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """The model after the exact phase, or the network that starts from it."""
    first, *others = estimator.phases
    assert isinstance(first, ExactPhase)
    model = first.solve(result, {}, seed=seed)
    for phase in others:
        assert isinstance(phase, RoundsPhase)
        model = phase.start(model, seed=seed)
    return model


def predict_years(
    estimator: Estimator,
    weights: Arrays,
    array: NDArray[Any],
    *,
    batch_size: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FloatArray:
    """Predicted ages of an array of samples."""
    if not len(array):
        return np.empty(0)
    return predict_columns(
        estimator.predictor(weights, device=device),
        samples(estimator, array),
        batch_size=batch_size or estimator.prediction_batch,
        device=device,
        threads=threads,
        should_stop=should_stop,
    )["predicted_years"]


def train_locally(
    estimator: Estimator, weights: Arrays, array: NDArray[Any], ages_years: FloatArray, **options: Any
) -> TrainedUpdate:
    """One round on an array of samples."""
    return training.train_locally(
        network(estimator), weights, samples(estimator, array), {"age_years": ages_years}, **options
    )


def preparation(campaign: Campaign, features: Sequence[str]) -> Analysis | None:
    """The analysis of the exact phase on a table; None for a campaign that has none."""
    return exact_analyses(campaign, features).get(PREPARATION)


def basis(sums: PreparedSums | None) -> Basis:
    """The basis of a model after that phase."""
    return Basis() if sums is None else Basis(sums={PREPARATION: sums})


def join_preparation(sums: PreparedSums | None) -> dict[str, NDArray[Any]]:
    """Payload names for its sums."""
    return join_basis(basis(sums))


def first_model(
    campaign: Campaign, features: Sequence[str], *, fold: int, sums: PreparedSums | None
) -> dict[str, NDArray[Any]]:
    """The model before the first round, or the finished one where there are no rounds."""
    estimator = derive._estimator(campaign, features)
    trained = rounds_phases(estimator)
    phase = trained[0] if trained else len(estimator.phases)
    return derive.model_before(campaign, features, fold=fold, phase=phase, basis=basis(sums))


def roles(campaign: Campaign, features: Sequence[str]) -> ArrayRoles:
    """The roles of the network's arrays."""
    estimator = derive._estimator(campaign, features)
    return derive.roles(campaign, features, phase=rounds_phases(estimator)[0])
