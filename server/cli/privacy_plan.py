"""`fedage campaign privacy`: what a campaign with differential privacy will cost, before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from fedage.common.analyses.noised_validation import ValidationBounds
from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import Estimator, RoundsPhase
from fedage.common.estimators.configure import phases_known, phases_of, step_limits
from fedage.common.estimators.private_training import (
    ASSUMPTIONS,
    SITE_ASSUMPTIONS,
    NoPrivateTraining,
    all_epsilon,
    approved_total,
    mechanism_of,
    noise_of_validation,
    site_mechanism,
    trainings_of,
)
from fedage.common.estimators.validation_noise import ValidationNoise
from fedage.common.privacy.accountant import ACCOUNTANT, ChargeRefused, Mechanism, epsilon

SIZES = (50, 100, 200, 500, 1000)
"""Patients of a site, where nobody says how many."""
SITES = (3, 10, 30, 100)
"""How many sites take part, where the file lists none."""
_LOUD = 1.0


def privacy_plan(
    campaign: Campaign, *, patients: Sequence[int] = SIZES, features: int = 100, budget: float | None = None
) -> Iterator[str]:
    """What it costs a site of each size, one line an item.

    Parameters
    ----------
    patients
        Of a site, all parts together.
    features
        Of a row, where the estimator takes rows of tables.
    budget
        ε that a site's data set may spend, nothing of it spent yet.

    Raises
    ------
    FedAgeError
        For a campaign without such training.
    """
    if campaign.privacy.mode == "client":
        yield from _of_whole_sites(campaign, features=features)
        return
    if campaign.privacy.mode != "sample":
        raise FedAgeError(
            f'privacy.mode = "{campaign.privacy.mode}": the campaign spends no ε; set privacy.mode = "sample", delta, '
            "clip_norm, and epsilon or noise_multiplier"
        )
    estimator = phases_known(campaign, features=features)
    if campaign.training is None:
        yield from _of_sums(campaign, estimator, patients, features=features, budget=budget)
        return
    parameters, rounds = _parameters(estimator), trainings_of(campaign, estimator)
    yield (
        f"Differential privacy at δ = {campaign.privacy.delta:g}, by the {ACCOUNTANT} of {rounds} trainings, where "
        f"{ASSUMPTIONS}."
    )
    yield f"The largest network has {parameters} learnt parameters; its updates move by their noise as follows."
    for count in patients:
        yield from _of_site(campaign, estimator, count, parameters=parameters, rounds=rounds, budget=budget)
    yield (
        "Noise is the L2 norm of a step's noise over that of the largest possible mean gradient, every patient's at "
        "the clip norm and all in one direction: above 1 a single step is mostly noise, and only many steps of many "
        "sites learn together. More patients, fewer rounds and fewer parameters help; so does a larger batch_size."
    )


def _of_sums(
    campaign: Campaign, estimator: Estimator, patients: Sequence[int], *, features: int, budget: float | None
) -> Iterator[str]:
    """What the sums of an exact phase cost a site, whatever its patients."""
    models, clip = trainings_of(campaign, estimator), campaign.privacy.clip_norm or 0.0
    try:
        made = mechanism_of(campaign, estimator, patients=1)
        total = approved_total(campaign, estimator, made, patients=1)
        validation = noise_of_validation(campaign, estimator, patients=1)
    except (NoPrivateTraining, ChargeRefused) as refused:
        raise FedAgeError(f"not possible: {refused}") from None
    spent = all_epsilon(campaign, estimator, made, patients=1)
    after = ", ".join(f"{_epsilon(made, k, delta=total.delta):.3g} after {k}" for k in dict.fromkeys((1, models)))
    left = ""
    if budget is not None:
        left = f"; of a budget of {budget:g} {budget - spent:.3g} would be left"
        if spent > budget:
            times = _affordable(made, models, budget, total.delta)
            left = f"; a budget of {budget:g} would refuse it after {times} models"
    yield (
        f"Differential privacy at δ = {total.delta:g}, by the {ACCOUNTANT} of the sums of {models} models, where "
        f"{ASSUMPTIONS}."
    )
    yield f"Noise multiplier {made.noise_multiplier:.4g}; ε {after}, at a site of any size{left}."
    yield from _of_validation(campaign, validation, patients, spent=spent, delta=total.delta)
    # As a symmetric matrix, its largest eigenvalue, see `noised_moments`; of a patient's row, at most C².
    noise = made.noise_multiplier * clip**2 * math.sqrt(2 * features)
    yield f"Below, the noise of the sums of {features} features and age, in the direction in which it is largest."
    for count in patients:
        trained = _trained(campaign, count)
        if trained < 1:
            yield f"{count} patients: none to train on."
            continue
        share = noise / (trained * clip**2)
        yield f"{count} patients: sums of {trained}; noise {share:.3g} of the largest that they can be."
        if share > _LOUD:
            yield "  The noise outweighs any sums: a site of this size alone cannot teach the model."
    yield (
        "Over K sites the patients add up and the noise grows by √K. More patients, fewer features and fewer folds "
        "help. privacy.clip_norm is best near the L2 norm of an ordinary row: √(features + 2) for features whose SD "
        "is a quarter of their stated range."
    )


def _of_whole_sites(campaign: Campaign, *, features: int) -> Iterator[str]:
    """What privacy of whole sites costs, by how many take part: whatever their patients."""
    estimator = phases_known(campaign, features=features)
    parameters, rounds = _parameters(estimator), trainings_of(campaign, estimator)
    try:
        made = site_mechanism(campaign, estimator)
    except (NoPrivateTraining, ChargeRefused) as refused:
        raise FedAgeError(f'privacy.mode = "client": not possible: {refused}') from None
    delta, clip, limits = campaign.privacy.delta or 0.0, campaign.privacy.clip_norm or 0.0, step_limits(campaign)
    after = ", ".join(
        f"{_epsilon(made, k, delta=delta):.3g} after {k}" for k in dict.fromkeys((1, *_between(rounds), rounds))
    )
    yield (
        f"Differential privacy of whole sites at δ = {delta:g}, by the {ACCOUNTANT} of {rounds} rounds, where "
        f"{SITE_ASSUMPTIONS}."
    )
    yield f"Noise multiplier {made.noise_multiplier:.4g}; ε {after}, of each site that takes part in all rounds."
    yield f"The largest network has {parameters} learnt parameters; the model moves by its noise as follows."
    named = campaign.campaign.sites
    for sites in (len(named),) if named else SITES:
        length = made.noise_multiplier * clip * math.sqrt(parameters) / sites
        step, run = length / clip, length / clip / math.sqrt(rounds)
        cut = ""
        if limits is not None and length > limits.step_norm:
            cut = f"; a round moves the model by {limits.step_norm:g} at most, so that it is scaled down with the noise"
        yield (
            f"{sites} sites: noise of L2 norm {length:.3g} in a round, {step:.3g} times the longest possible mean "
            f"update, {run:.3g} times over the whole run{cut}."
        )
        if run > _LOUD:
            yield "  The noise of the whole run outweighs any update: so few sites cannot teach a model of this size."
    if campaign.training is not None and campaign.training.weighting != "equal":
        yield (
            "These are of equal weights. With weights by patients the noise is larger by the largest site's share "
            'times the number of sites; training.weighting = "equal" avoids that.'
        )


def _of_site(
    campaign: Campaign,
    estimator: Estimator,
    count: int,
    *,
    parameters: int,
    rounds: int,
    budget: float | None,
) -> Iterator[str]:
    trained = _trained(campaign, count)
    if trained < 1:
        yield f"{count} patients: none to train on."
        return
    try:
        made = mechanism_of(campaign, estimator, patients=trained)
        total = approved_total(campaign, estimator, made, patients=count)
        validation = noise_of_validation(campaign, estimator, patients=count)
    except (NoPrivateTraining, ChargeRefused) as refused:
        yield f"{count} patients ({trained} train): not possible: {refused}."
        return
    expected = made.sampling_rate * trained
    step = made.noise_multiplier * math.sqrt(parameters) / expected
    run = step / math.sqrt(made.steps * rounds)
    after = ", ".join(
        f"{_epsilon(made, k, delta=total.delta):.3g} after {k}" for k in dict.fromkeys((1, *_between(rounds), rounds))
    )
    left = ""
    spent = all_epsilon(campaign, estimator, made, patients=count)
    if budget is not None:
        left = (
            f"; of a budget of {budget:g} {budget - spent:.3g} would be left"
            if spent <= budget
            else f"; a budget of {budget:g} would refuse it after "
            f"{_affordable(made, rounds, budget, total.delta)} trainings"
        )
    yield (
        f"{count} patients: an update of {trained}, each in a step with probability {made.sampling_rate:.3g} "
        f"({expected:.3g} expected), {made.steps} steps a round, noise multiplier {made.noise_multiplier:.4g}; "
        f"ε {after}; noise {step:.3g} of a step, {run:.3g} of the whole run{left}."
    )
    if step > _LOUD * math.sqrt(made.steps * rounds):
        yield "  The noise of the whole run outweighs any gradient: a site of this size cannot teach the model."
    yield from _of_validation(campaign, validation, (count,), spent=spent, delta=total.delta)


def _of_validation(
    campaign: Campaign, noise: ValidationNoise | None, patients: Sequence[int], *, spent: float, delta: float
) -> Iterator[str]:
    """What the noised validation costs, and how far its errors are off by that at one site."""
    if noise is None:
        yield "  Validation errors and bias line are told without noise, outside the guarantee."
        return
    alone, largest = epsilon(noise.together, delta=delta), ValidationBounds.of(campaign).error_years
    yield (
        f"  With validation errors and bias line ε {spent:.3g}; alone they would cost {alone:.3g}, "
        f"privacy.validation_share = {campaign.privacy.validation_share:g} of it. Errors beyond {largest:.3g} years "
        "count as that."
    )
    for count in patients:
        if (judging := _judging(campaign, count)) < 1:
            continue
        row = 1 / math.sqrt(0.8)  # see `noised_errors`
        finished, of_round = (
            one.noise_multiplier * largest * row / judging for one in (noise.finished, noise.of_round)
        )
        rounds = f"; of a round {of_round:.3g}" if noise.rounds else ""
        yield f"  The MAE of {judging} validation patients of {count} has noise of SD {finished:.3g} years{rounds}."


def _judging(campaign: Campaign, count: int) -> int:
    """Who validates the finished model: with folds everybody, each by the model that they were held out of."""
    fractions = campaign.validation.fractions
    return count if fractions is None else round(count * fractions.validation)


def _trained(campaign: Campaign, count: int) -> int:
    validation = campaign.validation
    if validation.fractions is not None:
        return round(count * validation.fractions.train)
    folds = validation.folds or 1
    return count * (folds - 1) // folds


def _between(rounds: int) -> tuple[int, ...]:
    return tuple(k for k in (rounds // 4, rounds // 2) if k > 1)


def _epsilon(mechanism: Mechanism, times: int, *, delta: float) -> float:
    return epsilon([mechanism] * times, delta=delta)


def _affordable(mechanism: Mechanism, rounds: int, budget: float, delta: float) -> int:
    """The most trainings within a budget."""
    low, high = 0, rounds
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _epsilon(mechanism, middle, delta=delta) <= budget else (low, middle)
    return low


def _parameters(estimator: Estimator) -> int:
    """Learnt parameters of the largest network."""
    from fedage.common.networks.arrays import outline

    return max(
        sum(p.numel() for p in outline(partial(phase.build, seed=0)).parameters() if p.requires_grad)
        for phase in phases_of(estimator)
        if isinstance(phase, RoundsPhase)
    )
