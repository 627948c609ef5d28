"""What an estimator with privacy for each patient cannot have; each with what to use instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedage.common.toml.problems import Problem

if TYPE_CHECKING:
    from fedage.common.estimators.base import Estimator, RoundsPhase

_KEY = "privacy.mode"


def privacy_problems(estimator: Estimator) -> Iterator[Problem]:
    """Losses that couple patients, sums without noise, normalisation by the batch; nothing to be private about."""
    from fedage.common.estimators.base import ExactPhase, RoundsPhase
    from fedage.common.estimators.configure import phases_of

    phases = phases_of(estimator)
    rounds = [phase for phase in phases if isinstance(phase, RoundsPhase)]
    for phase in phases:
        if isinstance(phase, ExactPhase):
            yield _problem(
                f"not possible with phase {phase.name!r} of {estimator.name} with these options, which sums training "
                'patients without noise; use table-mlp with start = "stated" and ranges of the features, an estimator '
                'without such a phase, or privacy.mode = "none"'
            )
    if not rounds:
        return
    for phase in rounds:
        if phase.couples_samples:
            yield _problem(
                f"not possible with {estimator.name}, whose loss relates the samples of a batch to each other, so that "
                "one patient's gradient cannot be told apart; choose another of the two"
            )
        if _has_batch_norm(phase):
            yield _problem(
                f"not possible with phase {phase.name!r} of {estimator.name} with these options: batch normalisation "
                "mixes the patients of a batch, so that no patient's gradient can be clipped alone; use group "
                'normalisation (estimator.options.norm = "group")'
            )


def _problem(sentence: str) -> Problem:
    return Problem(_KEY, f'{_KEY} = "sample": {sentence}')


def _has_batch_norm(phase: RoundsPhase) -> bool:
    from functools import partial

    from fedage.common.networks.arrays import outline
    from fedage.common.networks.batch_norm import has_batch_norm

    return has_batch_norm(outline(partial(phase.build, seed=0)))
