"""Noise on the sums of an exact phase with privacy for each patient: paid for, then added, before anything leaves.

Attack: the same noise on other sums is subtracted. Rule: as of a private round, it follows from the site's secret and
from everything that the sums depend on; so the same question gets the same answer, charged once, and any other question
other noise, charged again. Residual risk: what is told beside the sums, which no noise covers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fedage.client.compute.contribute import Contributions
from fedage.client.compute.model import estimator_of
from fedage.client.compute.predictions import cohort_digest
from fedage.client.inbox.gate import Work
from fedage.common.analyses.base import Analysis
from fedage.common.analyses.exact import NoisedAnalysis
from fedage.common.estimators.private_training import NoPrivateTraining, approved_total, mechanism_of
from fedage.common.privacy.accountant import ACCOUNTANT, ChargeRefused, epsilon
from fedage.common.privacy.noise import SecretRandom, key_for, noised
from fedage.common.protocol.messages import RequestRefused
from fedage.common.statistics.cohort import Cohort
from fedage.common.version import __version__


def with_noise(work: Work, contributed: Contributions, cohort: Cohort, exact: Mapping[str, Analysis]) -> Contributions:
    """The contributions with noise on the sums of exact phases that are for it.

    Raises
    ------
    RequestRefused
        Rules `budget`, `campaign-epsilon`, `privacy-mechanism`.
    """
    for step in sorted(set(exact) & set(contributed.sums)):
        if isinstance(analysis := exact[step], NoisedAnalysis):
            contributed = _noised(work, contributed, cohort, analysis)
    return contributed


def _noised(work: Work, contributed: Contributions, cohort: Cohort, analysis: NoisedAnalysis) -> Contributions:
    campaign, request = work.campaign, work.request
    estimator = estimator_of(campaign, work.site_cohort)
    try:
        mechanism = mechanism_of(campaign, estimator, patients=max(1, cohort.n))
        total = approved_total(campaign, estimator, mechanism)
    except (NoPrivateTraining, ChargeRefused) as refused:
        raise RequestRefused("privacy-mechanism", str(refused)) from None
    if not 0 < mechanism.noise_multiplier == analysis.noise_multiplier:
        raise RequestRefused("privacy-mechanism", "the sums are for other noise than the campaign file gives")
    sums = contributed.sums[analysis.name]
    content = hashlib.sha256(
        json.dumps(
            [
                request.digest,
                request.fold,
                analysis.name,
                cohort_digest(cohort, snapshot=work.site_cohort.snapshot),
                work.minimum_count,
                mechanism.noise_multiplier,
                # Noise of its own for sums that come out otherwise, by another release or processor.
                hashlib.sha256(sums.tobytes()).hexdigest(),
                __version__,
                np.__version__,
            ]
        ).encode()
    ).hexdigest()
    balance = work.charge(mechanism, content=content, total=total)
    layout = analysis.layout({})
    random = SecretRandom(key_for(work.site.privacy_secret(), content))
    blocks = {field.name: layout.block(sums, field.name) for field in layout.fields}
    blocks[analysis.noised_block] = noised(blocks[analysis.noised_block], sd=mechanism.noise_multiplier, random=random)
    if balance is not None and balance.campaign_epsilon is not None:
        spent = balance.campaign_epsilon
    else:
        spent = epsilon([mechanism] * (request.fold + 1), delta=total.delta)
    told = {
        "epsilon": spent,
        "delta": total.delta,
        "noise_multiplier": mechanism.noise_multiplier,
        "sampling_rate": mechanism.sampling_rate,
        "steps": mechanism.steps,
        "accountant": ACCOUNTANT,
    }
    return replace(
        contributed,
        sums={**contributed.sums, analysis.name: layout.flatten(blocks)},
        epsilon=contributed.epsilon + (0.0 if balance is None else balance.charged_epsilon),
        privacy=told,
    )
