"""Differential privacy in a run: the noise of whole sites, and what that or noise on sums has cost each site."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from fedage.common.campaign.types import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import Estimator
from fedage.common.estimators.configure import phases_known
from fedage.common.estimators.private_training import mechanism_of, site_mechanism
from fedage.common.privacy.accountant import ACCOUNTANT, Mechanism, epsilon
from fedage.common.privacy.noise import KEY_BYTES, key_for
from fedage.server.campaign.rounds import RoundRecord
from fedage.server.campaign.strategies import SiteNoise
from fedage.server.sites.session import CampaignFailed, Session


def site_noise(session: Session, estimator: Estimator, *, fold: int, learnt: Collection[str]) -> SiteNoise | None:
    """The noise of a fold's model; None in a campaign without privacy of whole sites.

    Its key follows from the coordinator's signing key, so that a resumed run has the same noise; a simulation,
    which has none, draws one.

    Raises
    ------
    CampaignFailed
        If the budget needs more noise than can be accounted for.
    """
    campaign = session.campaign
    clip_norm = campaign.privacy.clip_norm
    if campaign.privacy.mode != "client" or clip_norm is None:
        return None
    try:
        mechanism = site_mechanism(campaign, estimator)
    except FedAgeError as refused:
        raise CampaignFailed(str(refused)) from None
    secret = secrets.token_bytes(KEY_BYTES) if session.key is None else session.key.private_bytes_raw()
    return SiteNoise(
        noise_multiplier=mechanism.noise_multiplier,
        clip_norm=clip_norm,
        key=key_for(secret, "sites", campaign.digest, str(fold)),
        learnt=frozenset(learnt),
    )


def sums_cost(campaign: Campaign, *, models: int) -> dict[str, Any]:
    """What sums with noise for so many models have cost a site's patients (`site_info.Privacy`)."""
    mechanism, delta = mechanism_of(campaign, phases_known(campaign), patients=1), campaign.privacy.delta or 0.0
    return _told(mechanism, epsilon=epsilon([mechanism] * models, delta=delta), delta=delta)


def _told(mechanism: Mechanism, *, epsilon: float, delta: float) -> dict[str, Any]:
    return {
        "epsilon": epsilon,
        "delta": delta,
        "noise_multiplier": mechanism.noise_multiplier,
        "sampling_rate": mechanism.sampling_rate,
        "steps": mechanism.steps,
        "accountant": ACCOUNTANT,
    }


def add_site_costs(campaign: Campaign, rounds: Iterable[RoundRecord]) -> None:
    """Put into each round what it and those before have cost each of its sites (`site_info.Privacy`).

    Nothing in a campaign without privacy of whole sites: there the sites tell what was spent.
    """
    if campaign.privacy.mode != "client" or campaign.privacy.delta is None:
        return
    mechanism, taken_part, delta = (
        site_mechanism(campaign, phases_known(campaign)),
        Counter[str](),
        campaign.privacy.delta,
    )
    for done in rounds:
        taken_part.update(done.sites)
        costs = {count: epsilon([mechanism] * count, delta=delta) for count in {taken_part[s] for s in done.sites}}
        for site in done.sites:
            done.privacy[site] = _told(mechanism, epsilon=costs[taken_part[site]], delta=delta)
