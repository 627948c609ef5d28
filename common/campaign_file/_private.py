"""What `[privacy]` contradicts: its own keys, and parts of an estimator; each with what to use instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedage.common.campaign.types import Privacy
from fedage.common.campaign_file._sound import ValidValues, default_words
from fedage.common.toml.problems import Problem
from fedage.common.toml.words import show

if TYPE_CHECKING:
    from fedage.common.estimators.base import Estimator, RoundsPhase

_KEY = "privacy.mode"


def privacy_problems(estimator: Estimator, *, mode: str) -> Iterator[Problem]:
    """Sums without noise and running statistics, which nothing clips; for each patient, losses that couple them."""
    from fedage.common.analyses.exact import NoisedAnalysis
    from fedage.common.estimators.base import Conditions, ExactPhase, RoundsPhase
    from fedage.common.estimators.configure import phases_of

    phases = phases_of(estimator)
    rounds = [phase for phase in phases if isinstance(phase, RoundsPhase)]
    for phase in phases:
        if isinstance(phase, ExactPhase):
            noised = isinstance(phase.analysis(Conditions(minimum_count=2)), NoisedAnalysis)
            if noised and mode == "sample" and len(phases) == 1:
                continue
            instead = '; use table-ridge or table-mlp with start = "stated" and ranges of the features'
            if mode == "client":
                instead = ', as that of whole sites is of updates; use table-mlp with start = "stated" and ranges'
            yield _problem(
                mode,
                f"not possible with phase {phase.name!r} of {estimator.name} with these options, which sums training "
                f'patients without noise{instead}, an estimator without such a phase, or privacy.mode = "none"',
            )
    if not rounds:
        return
    for phase in rounds:
        if phase.couples_samples and mode == "sample":
            yield _problem(
                mode,
                f"not possible with {estimator.name} with these options, whose loss relates the samples of a batch to "
                "each other, so that no patient's gradient can be told apart; give that part of the loss the weight "
                "0 in estimator.options where it has one, or choose another of the two",
            )
        if _has_batch_norm(phase):
            why = "mixes the patients of a batch, so that no patient's gradient can be clipped alone"
            if mode == "client":
                why = "has running means and variances, to which neither the clip norm nor the noise applies"
            yield _problem(
                mode,
                f"not possible with phase {phase.name!r} of {estimator.name} with these options: batch normalisation "
                f'{why}; use group normalisation (estimator.options.norm = "group")',
            )


def noise_problems(estimator: Estimator) -> Iterator[Problem]:
    """Sums that are for noise, in a campaign that adds none: no rule looks at the patients behind them."""
    from fedage.common.analyses.exact import NoisedAnalysis
    from fedage.common.estimators.base import Conditions, ExactPhase
    from fedage.common.estimators.configure import phases_of

    for phase in phases_of(estimator):
        if isinstance(phase, ExactPhase) and isinstance(phase.analysis(Conditions(minimum_count=2)), NoisedAnalysis):
            yield Problem(
                "estimator.options.start",
                f'estimator.options.start = "stated": {estimator.name} has it for sums with noise only; set '
                'privacy.mode = "sample", epsilon, delta and clip_norm, or leave start out',
            )


def _problem(mode: str, sentence: str) -> Problem:
    return Problem(_KEY, f'{_KEY} = "{mode}": {sentence}')


def _has_batch_norm(phase: RoundsPhase) -> bool:
    from functools import partial

    from fedage.common.networks.arrays import outline
    from fedage.common.networks.batch_norm import has_batch_norm

    return has_batch_norm(outline(partial(phase.build, seed=0)))


def privacy_contradictions(sound: ValidValues) -> Iterator[Problem]:
    """What the keys of `[privacy]` say against each other."""
    budget = [key for key in ("epsilon", "noise_multiplier") if sound.given(f"privacy.{key}")]
    if len(budget) == 2:
        yield Problem(
            "privacy.noise_multiplier",
            f"privacy.epsilon = {show(sound['privacy.epsilon'])} and privacy.noise_multiplier = "
            f"{show(sound['privacy.noise_multiplier'])}: each follows from the other; remove one of them",
        )
    mode = sound["privacy.mode"]
    if mode in ("sample", "client"):
        if not budget and not sound.wrong("privacy.epsilon") and not sound.wrong("privacy.noise_multiplier"):
            yield Problem(
                "privacy.mode",
                f'privacy.mode = "{mode}": needs privacy.epsilon or privacy.noise_multiplier, and has neither; add one',
            )
        if not sound.has("training") and not (mode == "sample" and sound.has("estimator")):
            yield Problem(
                "privacy.mode",
                f'privacy.mode = "{mode}": needs [training], whose updates get the noise; sums of analyses have none; '
                'add [training], or use privacy.mode = "none"',
            )
        for key in ("delta", "clip_norm"):
            if not sound.given(f"privacy.{key}") and not sound.wrong(f"privacy.{key}"):
                yield Problem("privacy.mode", f'privacy.mode = "{mode}": needs privacy.{key}, which is missing; add it')
    for key in ("validation_share", "largest_error_years"):
        given = sound.given(f"privacy.{key}") and sound[f"privacy.{key}"] != Privacy.model_fields[key].default
        if given and mode in ("none", "client"):
            yield Problem(
                f"privacy.{key}",
                f'privacy.{key} = {show(sound[f"privacy.{key}"])}: has no effect without privacy.mode = "sample", '
                "which adds noise to validation errors and the bias line; remove it",
            )
    if mode == "none":
        for key in ("epsilon", "delta", "noise_multiplier", "clip_norm"):
            if sound.given(f"privacy.{key}"):
                yield Problem(
                    f"privacy.{key}",
                    f'privacy.{key} = {show(sound[f"privacy.{key}"])}: has no effect with privacy.mode = "none"; set '
                    'privacy.mode = "sample", or remove it',
                )
    yield from _hidden_sums(sound)


def _hidden_sums(sound: ValidValues) -> Iterator[Problem]:
    """With secure aggregation a sum over too few sites is not opened."""
    hides, minimum = sound["privacy.secure_aggregation"], sound["privacy.minimum_sites"]
    if hides and sound["privacy.mode"] == "client":
        yield Problem(
            "privacy.mode",
            'privacy.mode = "client": not possible with privacy.secure_aggregation = true, which hides the weights '
            'that the size of the noise follows from; use privacy.mode = "sample", or leave secure aggregation off',
        )
    if sound["privacy.results_by_site"] and hides is False:
        yield Problem(
            "privacy.results_by_site",
            "privacy.results_by_site = true: only with privacy.secure_aggregation = true, as results by site are told "
            "without it; remove it",
        )
    if sound["training.finish_early"] and hides is False:
        yield Problem(
            "training.finish_early",
            "training.finish_early = true: only with privacy.secure_aggregation = true, as rounds go on without a site "
            "that leaves otherwise; remove it",
        )
    if not hides or minimum is None:
        return
    quorum, sites = sound["training.quorum"], sound["campaign.sites"]
    default = default_words(sound, "privacy.minimum_sites")
    if sound.has("training") and quorum is not None and quorum < minimum:
        yield Problem(
            "training.quorum",
            f"training.quorum = {quorum}: must be ≥ privacy.minimum_sites = {minimum}{default} with "
            "privacy.secure_aggregation = true (a sum over fewer sites is not opened); raise it, or lower "
            "privacy.minimum_sites, to 2 at least",
        )
    if sites and len(sites) < minimum:
        yield Problem(
            "privacy.minimum_sites",
            f"privacy.minimum_sites = {minimum}{default}: must be at most the {len(sites)} sites of campaign.sites; "
            "list more sites, or lower it, to 2 at least",
        )
