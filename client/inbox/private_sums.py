"""Noise on sums with privacy for each patient, of exact phases and of the validation: paid for, added, then sent.

Attack: the same noise on other sums is subtracted. Rule: as of a private round, it follows from the site's secret and
from everything that the sums depend on, also the model; so the same question gets the same answer, charged once, and
any other question other noise, charged again. Residual risk: what is told beside the sums, which no noise covers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fedage.client.compute.contribute import Contributions
from fedage.client.compute.model import estimator_of
from fedage.client.compute.predictions import cohort_digest
from fedage.client.inbox.gate import Work
from fedage.client.inbox.private_total import epsilon_at_the_end, total_of
from fedage.common.analyses.base import Analysis
from fedage.common.analyses.exact import NoisedAnalysis
from fedage.common.analyses.noised_validation import SUMS, VARIANCE, NoisedValidation
from fedage.common.estimators.base import Estimator
from fedage.common.estimators.private_training import (
    NoPrivateTraining,
    mechanism_of,
    noise_of_validation,
)
from fedage.common.estimators.validation_noise import ValidationNoise
from fedage.common.privacy.accountant import ACCOUNTANT, Budget, ChargeRefused, Mechanism, epsilon
from fedage.common.privacy.noise import SecretRandom, key_for, noised
from fedage.common.protocol.messages import TRAIN, RequestRefused
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray
from fedage.common.version import __version__


def with_noise(
    work: Work, contributed: Contributions, cohort: Cohort, steps: Mapping[str, Analysis], *, model: str
) -> Contributions:
    """The contributions with noise on the sums of those steps that are for it.

    Parameters
    ----------
    model
        Digest of the model, or of those of all folds, whose predictions are judged.

    Raises
    ------
    RequestRefused
        Rules `budget`, `campaign-epsilon`, `privacy-mechanism`, of sums that a model is made of; validation sums that
        these rules forbid are withheld instead.
    """
    for step in sorted(set(steps) & set(contributed.sums)):
        analysis = steps[step]
        if isinstance(analysis, NoisedValidation):
            try:
                contributed = _judged(work, contributed, cohort, analysis, model=model)
            except RequestRefused as refused:
                sums = {name: vector for name, vector in contributed.sums.items() if name != step}
                reason = {"rule": refused.rule, "detail": refused.detail}
                contributed = replace(contributed, sums=sums, withheld={**contributed.withheld, step: reason})
        elif isinstance(analysis, NoisedAnalysis):
            contributed = _solved(work, contributed, cohort, analysis)
    return contributed


def _solved(work: Work, contributed: Contributions, cohort: Cohort, analysis: NoisedAnalysis) -> Contributions:
    """With noise on the sums that a model is solved from."""
    campaign, request = work.campaign, work.request
    estimator = estimator_of(campaign, work.site_cohort)
    try:
        mechanism = mechanism_of(campaign, estimator, patients=max(1, cohort.n))
        total = total_of(work, estimator)
    except (NoPrivateTraining, ChargeRefused) as refused:
        raise RequestRefused("privacy-mechanism", str(refused)) from None
    if not 0 < mechanism.noise_multiplier == analysis.noise_multiplier:
        raise RequestRefused("privacy-mechanism", "the sums are for other noise than the campaign file gives")
    sums, layout = contributed.sums[analysis.name], analysis.layout({})
    block = layout.block(sums, analysis.noised_block)
    made, charged, spent = _noised(work, block, sums, cohort, analysis.name, mechanism, total=total, model="")
    if spent is None:
        spent = epsilon([mechanism] * (min(request.fold, campaign.models - 1) + 1), delta=total.delta)
    told = {
        **_told(spent, total),
        "noise_multiplier": mechanism.noise_multiplier,
        "sampling_rate": mechanism.sampling_rate,
        "steps": mechanism.steps,
    }
    blocks = {field.name: layout.block(sums, field.name) for field in layout.fields}
    noisy = layout.flatten({**blocks, analysis.noised_block: made})
    return replace(
        contributed,
        sums={**contributed.sums, analysis.name: noisy},
        epsilon=contributed.epsilon + charged,
        privacy=told,
    )


def _judged(
    work: Work, contributed: Contributions, cohort: Cohort, analysis: NoisedValidation, *, model: str
) -> Contributions:
    """With noise on the sums that a model is judged by."""
    campaign, patients = work.campaign, work.site_cohort.cohort.n
    estimator = estimator_of(campaign, work.site_cohort)
    try:
        noise = noise_of_validation(campaign, estimator, patients=patients)
        total = total_of(work, estimator)
    except (NoPrivateTraining, ChargeRefused) as refused:
        raise RequestRefused("privacy-mechanism", str(refused)) from None
    if noise is None:
        raise RequestRefused("privacy-mechanism", "the campaign file gives no noise for these sums")
    mechanism = noise.of_round if work.request.kind == TRAIN else noise.finished
    sums, layout = contributed.sums[analysis.name], analysis.layout({})
    bare = layout.block(sums, SUMS)
    made, charged, spent = _noised(work, bare, sums, cohort, analysis.name, mechanism, total=total, model=model)
    noisy = layout.flatten({SUMS: made, VARIANCE: mechanism.noise_multiplier**2})
    return replace(
        contributed,
        sums={**contributed.sums, analysis.name: noisy},
        epsilon=contributed.epsilon + charged,
        privacy=_told(_in_all(work, estimator, noise) if spent is None else spent, total),
    )


def _in_all(work: Work, estimator: Estimator, noise: ValidationNoise) -> float:
    """ε at the end of a campaign in a simulation, where no ledger is kept."""
    if work.campaign.validates:
        return epsilon(noise.told(rounds=0, finished=2), delta=work.campaign.privacy.delta or 0.0)
    return epsilon_at_the_end(work, estimator)


def _noised(
    work: Work,
    bare: FloatArray,
    sums: FloatArray,
    cohort: Cohort,
    step: str,
    mechanism: Mechanism,
    *,
    total: Budget,
    model: str,
) -> tuple[FloatArray, float, float | None]:
    """The block `bare` of `sums` with noise, the ε charged for it, and what the campaign has spent, where that is kept.

    Raises
    ------
    RequestRefused
        Rules `budget`, `campaign-epsilon`, `privacy-mechanism`.
    """
    request = work.request
    follows_from = [
        request.digest,
        request.kind == TRAIN,
        request.round,
        request.fold,
        step,
        model,
        cohort_digest(cohort, snapshot=work.site_cohort.snapshot),
        work.minimum_count,
        mechanism.noise_multiplier,
        # Noise of its own for sums that come out otherwise, by another release or processor.
        hashlib.sha256(sums.tobytes()).hexdigest(),
        __version__,
        np.__version__,
    ]
    content = hashlib.sha256(json.dumps(follows_from).encode()).hexdigest()
    balance = work.charge(mechanism, content=content, total=total)
    random = SecretRandom(key_for(work.site.privacy_secret(), content))
    made = noised(bare, sd=mechanism.noise_multiplier, random=random)
    if balance is None:
        return made, 0.0, None
    return made, balance.charged_epsilon, balance.campaign_epsilon


def _told(spent: float, total: Budget) -> dict[str, Any]:
    return {"epsilon": spent, "delta": total.delta, "accountant": ACCOUNTANT}
