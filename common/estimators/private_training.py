"""What a campaign's training with privacy for each patient is at a site: its mechanism, how often, and its total."""

from __future__ import annotations

import math

from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import Estimator
from fedage.common.estimators.configure import rounds_phases, sums_noise
from fedage.common.estimators.validation_noise import ValidationNoise, validation_noise
from fedage.common.privacy.accountant import Budget, Mechanism, NoNoise, epsilon, noise_for

ASSUMPTIONS = (
    "the unit is the patient: all exams of one are one sample; adjacency is adding or removing one patient; the number "
    "of a site's patients is public, and so is in which part or fold a patient is; the noise is the site's secret"
)
"""What (ε, δ) of a site is a statement about."""

SITE_ASSUMPTIONS = (
    "the unit is the site; adjacency is replacing all that one site's updates hold by nothing, with its weight in the "
    "mean kept; which sites take part, and their weights, are public; every site takes part in every round, so that no "
    "sampling lowers ε; the noise is the coordinator's secret, who sees the updates without it"
)
"""What (ε, δ) of a whole site is a statement about."""


class NoPrivateTraining(FedAgeError):
    """The campaign trains nothing, or not privately, or its budget needs more noise than can be accounted for."""


def mechanism_of(campaign: Campaign, estimator: Estimator, *, patients: int) -> Mechanism:
    """One round's training at a site with so many training patients, or the sums of an exact phase, which all join.

    A patient joins a step with probability q = B / n (Poisson sampling); a pass over the data is ⌈n / B⌉ steps.

    Raises
    ------
    NoPrivateTraining
        If there is none to charge for.
    ChargeRefused
        If it cannot be accounted for.
    """
    training, privacy = campaign.training, campaign.privacy
    if training is None and privacy.mode == "sample" and patients >= 1:
        try:
            of_sums = sums_noise(campaign)
        except NoNoise as refused:
            raise NoPrivateTraining(str(refused)) from None
        if of_sums is not None:
            return Mechanism(sampling_rate=1.0, noise_multiplier=of_sums.noise_multiplier, steps=1)
    if training is None or privacy.mode != "sample" or patients < 1:
        raise NoPrivateTraining("there is no training with privacy for each patient to account for")
    rate = min(1.0, training.batch_size / patients)
    steps = training.local_epochs * math.ceil(patients / training.batch_size)
    noise = privacy.noise_multiplier
    if noise is None:
        if privacy.epsilon is None or privacy.delta is None:
            raise NoPrivateTraining("the campaign gives neither a noise multiplier nor ε and δ")
        try:
            beside = noise_of_validation(campaign, estimator, patients=patients)
            noise = noise_for(
                privacy.epsilon,
                delta=privacy.delta,
                rate=rate,
                steps=steps * trainings_of(campaign, estimator),
                beside=() if beside is None else beside.together,
            )
        except NoNoise as refused:
            raise NoPrivateTraining(str(refused)) from None
    return Mechanism(sampling_rate=rate, noise_multiplier=noise, steps=steps)


def site_mechanism(campaign: Campaign, estimator: Estimator) -> Mechanism:
    """One round with privacy for each whole site: one noisy step that every site takes part in.

    Raises
    ------
    NoPrivateTraining
        If there is none, or its budget needs more noise than can be accounted for.
    ChargeRefused
        If it cannot be accounted for.
    """
    privacy = campaign.privacy
    if campaign.training is None or privacy.mode != "client":
        raise NoPrivateTraining("there is no training with privacy for each site to account for")
    noise = privacy.noise_multiplier
    if noise is None:
        if privacy.epsilon is None or privacy.delta is None:
            raise NoPrivateTraining("the campaign gives neither a noise multiplier nor ε and δ")
        try:
            noise = noise_for(privacy.epsilon, delta=privacy.delta, rate=1.0, steps=trainings_of(campaign, estimator))
        except NoNoise as refused:
            raise NoPrivateTraining(str(refused)) from None
    return Mechanism(sampling_rate=1.0, noise_multiplier=noise, steps=1)


def trainings_of(campaign: Campaign, estimator: Estimator) -> int:
    """How many times a campaign trains at a site: once a round of each phase that is trained, of each model.

    Sums with noise count as once.
    """
    return times_of_a_model(campaign, estimator) * campaign.models


def times_of_a_model(campaign: Campaign, estimator: Estimator) -> int:
    """How often for one of its models."""
    if campaign.training is None:
        return int(campaign.privacy.mode == "sample" and campaign.estimator is not None)
    return campaign.training.rounds * len(rounds_phases(estimator))


def judged_rounds(campaign: Campaign, estimator: Estimator) -> int:
    """Of how many rounds of each model the error is told: all but the first of a phase, whose model nobody needs."""
    if campaign.training is None:
        return 0
    return (campaign.training.rounds - 1) * len(rounds_phases(estimator))


def noise_of_validation(campaign: Campaign, estimator: Estimator, *, patients: int) -> ValidationNoise | None:
    """The noise of validation errors and bias line at a site; None where they have none.

    Parameters
    ----------
    patients
        Of the site. They count only where the file gives a noise multiplier and no ε.

    Raises
    ------
    NoPrivateTraining
        If no noise keeps within their share of ε.
    ChargeRefused
        If it cannot be accounted for.
    """
    privacy = campaign.privacy
    if not campaign.noises_validation or privacy.delta is None:
        return None
    total = privacy.epsilon
    if total is None:
        made = mechanism_of(campaign, estimator, patients=patients)
        total = epsilon([made] * trainings_of(campaign, estimator), delta=privacy.delta)
    try:
        return validation_noise(campaign, rounds=judged_rounds(campaign, estimator), epsilon=total)
    except NoNoise as refused:
        raise NoPrivateTraining(str(refused)) from None


def approved_total(campaign: Campaign, estimator: Estimator, mechanism: Mechanism, *, patients: int) -> Budget:
    """What the approved file lets a site spend on it in all: its ε, or that of all its rounds and of its validation.

    Parameters
    ----------
    patients
        Of the site, in all parts.

    Raises
    ------
    NoPrivateTraining
        In a campaign without δ.
    """
    privacy = campaign.privacy
    if privacy.delta is None:
        raise NoPrivateTraining("the campaign gives no δ")
    total = privacy.epsilon
    if total is None:
        total = all_epsilon(campaign, estimator, mechanism, patients=patients)
    return Budget(epsilon=total, delta=privacy.delta)


def all_epsilon(campaign: Campaign, estimator: Estimator, mechanism: Mechanism, *, patients: int) -> float:
    """ε of all of a campaign's trainings by this mechanism and of its validation, at its δ."""
    validation = noise_of_validation(campaign, estimator, patients=patients)
    trained = [mechanism] * trainings_of(campaign, estimator)
    beside = () if validation is None else validation.together
    return epsilon([*trained, *beside], delta=campaign.privacy.delta or 0.0)
