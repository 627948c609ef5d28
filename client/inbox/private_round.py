"""A round of training with privacy for each patient: what its noise follows from, paid for, then trained.

Attack: the same noise under two models, or under two cohorts, is subtracted. Rule: the noise follows from the site's
secret and from everything that the answer depends on: campaign, phase, round, fold, model, cohort, mechanism, and what
it is computed with. So a resumed run gets the same answer, which tells nothing new and is charged once; anything else
gets other noise and is charged. Residual risk: what is told beside the answer: its length in seconds, and figures of
other steps, which no noise covers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.client.compute.predictions import cohort_digest
from fedage.client.compute.private_training import BatchNormRefused, PrivateTraining, train_privately
from fedage.client.compute.training import TrainedUpdate
from fedage.client.inbox.gate import Work
from fedage.client.inbox.private_total import total_of
from fedage.client.site.cancel import should_stop
from fedage.common.estimators.base import Estimator, RoundsPhase, Samples
from fedage.common.estimators.private_training import (
    NoPrivateTraining,
    judged_rounds,
    mechanism_of,
    noise_of_validation,
)
from fedage.common.networks.devices import resolve_device
from fedage.common.privacy.accountant import ACCOUNTANT, ChargeRefused, Mechanism, epsilon
from fedage.common.privacy.noise import key_for
from fedage.common.protocol.messages import RequestRefused, payload_digest
from fedage.common.statistics.cohort import Cohort
from fedage.common.version import __version__

OUTSIDE = {
    "rule": "privacy",
    "detail": "the validation of each round has no noise, so that a campaign with differential privacy is not told it",
}
"""Why a round's validation is withheld where it gets no noise."""
FIRST_ROUND = {
    "rule": "privacy",
    "detail": "the model that a phase begins with is not judged: its error would cost privacy, and nobody needs it",
}


def train_private_round(
    work: Work,
    estimator: Estimator,
    phase: RoundsPhase,
    weights: Mapping[str, NDArray[Any]],
    samples: Samples,
    targets: Mapping[str, NDArray[np.float64]],
    *,
    cohort: Cohort,
    phase_number: int,
    round_number: int,
) -> tuple[TrainedUpdate, float, dict[str, Any]]:
    """The noised update, the ε charged for it, and what the reply says of its privacy.

    Parameters
    ----------
    cohort
        The site's patients with their parts, as this fold has them.
    phase_number, round_number
        The phase, and its round from 1.

    Raises
    ------
    RequestRefused
        Rules `budget`, `campaign-epsilon`, `privacy-mechanism`, `privacy-batch-norm`.
    """
    campaign, site, request = work.campaign, work.site, work.request
    training, privacy = campaign.training, campaign.privacy
    if training is None or privacy.clip_norm is None or privacy.delta is None:
        raise RequestRefused("privacy-mechanism", "the campaign gives no clip norm or no δ")
    if phase.couples_samples:
        raise RequestRefused("privacy-mechanism", "the loss relates patients to each other: no gradient is of one only")
    try:
        mechanism = mechanism_of(campaign, estimator, patients=len(samples))
        patients = work.site_cohort.cohort.n
        total = total_of(work, estimator)
        validation = noise_of_validation(campaign, estimator, patients=patients)
    except (NoPrivateTraining, ChargeRefused) as refused:
        raise RequestRefused("privacy-mechanism", str(refused)) from None
    content = _content(
        work, weights, cohort, mechanism, phase_number=phase_number, device=resolve_device(site.device).type
    )
    balance = work.charge(mechanism, content=content, total=total)
    try:
        update = train_privately(
            phase,
            weights,
            samples,
            targets,
            training=training,
            private=PrivateTraining(
                mechanism=mechanism, clip_norm=privacy.clip_norm, key=key_for(site.privacy_secret(), content)
            ),
            round_number=round_number,
            threads=site.threads,
            device=site.device,
            should_stop=should_stop,
        )
    except BatchNormRefused as refused:
        raise RequestRefused("privacy-batch-norm", str(refused)) from None
    charged = 0.0 if balance is None else balance.charged_epsilon
    answer = payload_digest(update.weights)
    if not work.is_same_answer(content=content, sha256=answer):
        # Asked again, computed otherwise (another image, a GPU that does not repeat itself): noise of its own.
        balance = work.charge(
            mechanism, content=hashlib.sha256(f"{content} {answer}".encode()).hexdigest(), total=total
        )
        charged += 0.0 if balance is None else balance.charged_epsilon
    if balance is not None and balance.campaign_epsilon is not None:
        spent = balance.campaign_epsilon
    else:
        # As a ledger would have it: every model before this one, and this one until now.
        models = min(request.fold, campaign.models - 1)
        trained = models * training.rounds * _phases(estimator) + request.round
        told_rounds = models * judged_rounds(campaign, estimator) + request.round - -(-request.round // training.rounds)
        judged = [] if validation is None else validation.told(rounds=told_rounds, finished=0)
        spent = epsilon([*[mechanism] * trained, *judged], delta=privacy.delta)
    told = {
        "epsilon": spent,
        "delta": privacy.delta,
        "noise_multiplier": mechanism.noise_multiplier,
        "sampling_rate": mechanism.sampling_rate,
        "steps": mechanism.steps,
        "accountant": ACCOUNTANT,
    }
    return update, charged, told


def _phases(estimator: Estimator) -> int:
    return sum(isinstance(phase, RoundsPhase) for phase in estimator.phases)


def _content(
    work: Work,
    weights: Mapping[str, NDArray[Any]],
    cohort: Cohort,
    mechanism: Mechanism,
    *,
    phase_number: int,
    device: str,
) -> str:
    """Digest of everything that a round's answer depends on; not of its nonce and run, which a resumed run has new."""
    import torch  # whatever computes in another version may round otherwise

    request = work.request
    follows_from = [
        request.digest,
        request.fold,
        request.round,
        phase_number,
        payload_digest(weights),
        cohort_digest(cohort, snapshot=work.site_cohort.snapshot),
        work.minimum_count,
        mechanism.sampling_rate,
        mechanism.noise_multiplier,
        mechanism.steps,
        __version__,
        torch.__version__,
        device,
    ]
    return hashlib.sha256(json.dumps(follows_from).encode()).hexdigest()
