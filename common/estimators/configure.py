"""An estimator as a campaign file configures it, and what its phases mean for a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fedage.common import estimators
from fedage.common.analyses.agreement import agreed, rule_of
from fedage.common.analyses.base import Analysis
from fedage.common.analyses.exact import ExactAnalysis, NoisedAnalysis, SumsNoise
from fedage.common.campaign.types import USUAL_AGE_STEP_YEARS, Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import (
    Conditions,
    Estimator,
    ExactPhase,
    KinkedLoss,
    Phase,
    RoundsPhase,
)
from fedage.common.estimators.table import FEATURE
from fedage.common.estimators.validation_noise import validation_noise
from fedage.common.networks.steps import StepLimits
from fedage.common.privacy.accountant import noise_for
from fedage.common.protocol.messages import derived_seed


class PhaseRefused(FedAgeError):
    """An estimator's phases are none that can be run; the message says why."""


def configured(campaign: Campaign, features: Sequence[str] = ()) -> Estimator | None:
    """The campaign's estimator; None for a campaign that only analyses.

    Parameters
    ----------
    campaign
        The file.
    features
        Numeric columns of the sites' tables, for an estimator that takes a row.

    Raises
    ------
    FeaturesMissing
        If the file names features that are not among them.
    """
    if campaign.estimator is None:
        return None
    return estimators.make(campaign.estimator.name, campaign.estimator.options).for_table(features)


def phases_known(campaign: Campaign, *, features: int = 1) -> Estimator:
    """The campaign's estimator, for whoever asks about its phases before any table has been seen.

    Parameters
    ----------
    features
        How many a row is to have, where it takes rows.

    Raises
    ------
    PhaseRefused
        In a campaign without one.
    """
    if campaign.estimator is None:
        raise PhaseRefused("the campaign file has no estimator")
    return estimators.make(campaign.estimator.name, campaign.estimator.options).for_any_table(features)


def initial_seed(campaign: Campaign, *, fold: int) -> int:
    """The seed of a fold's first model."""
    return derived_seed("initial-weights", campaign.campaign.seed, fold)


def step_limits(campaign: Campaign) -> StepLimits | None:
    """How far the campaign's model may move in a phase; None where nothing is trained in rounds.

    Never more than the estimator states, whatever the file and the number of its rounds.
    """
    training = campaign.training
    if training is None or campaign.estimator is None:
        return None
    estimator = estimators.estimator_class(campaign.estimator.name)
    step, path = estimator.max_step_norm, estimator.max_path_norm
    if training.max_step_norm is not None:
        step = min(step, training.max_step_norm)
    asked = math.sqrt(training.rounds) * step if training.max_path_norm is None else training.max_path_norm
    return StepLimits(step_norm=step, path_norm=min(path, asked))


def update_limits(campaign: Campaign) -> StepLimits | None:
    """How far one site's update may go: as the model, or the clip norm where whole sites are private."""
    limits, clip = step_limits(campaign), campaign.privacy.clip_norm
    if limits is None or campaign.privacy.mode != "client" or clip is None:
        return limits
    return StepLimits(step_norm=min(limits.step_norm, clip), path_norm=limits.path_norm)


class FeaturesDiffer(FedAgeError):
    """The campaign's features are not the same columns at all sites."""


def agreed_features(campaign: Campaign, columns: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Numeric columns of a table that give every site's features: what else some site's table holds does not matter.

    Parameters
    ----------
    campaign
        The file.
    columns
        By site, the numeric columns of its table.

    Raises
    ------
    FeaturesMissing, FeaturesDiffer
        If the file names features that a site does not have, or its patterns find others at one site than at another.
    """
    chosen: dict[str, frozenset[str]] = {}
    for site, there in sorted(columns.items()):
        try:
            estimator = configured(campaign, there)
        except FedAgeError as error:
            raise type(error)(f"site {site}: {error}") from None
        if estimator is not None and estimator.row_columns:
            chosen[site] = frozenset(name.removeprefix(FEATURE) for name in estimator.row_columns)
    if not chosen:
        return ()
    everywhere = frozenset.intersection(*chosen.values())
    for site, features in chosen.items():
        if extra := sorted(features - everywhere):
            without = next(other for other, features_there in chosen.items() if extra[0] not in features_there)
            more = f" and {len(extra) - 5} more" if len(extra) > 5 else ""
            raise FeaturesDiffer(
                f"estimator.options.features finds columns at {site} that are no numeric column at {without}: "
                f"{', '.join(extra[:5])}{more}; name the features, exclude these, or give all tables the same columns"
            )
    return tuple(sorted(columns[min(chosen)]))


def phases_of(estimator: Estimator) -> tuple[Phase, ...]:
    """The estimator's phases, after making sure that they can be told apart and are of a kind that there is.

    Raises
    ------
    PhaseRefused
    """
    phases = estimator.phases
    kinds = [isinstance(phase, RoundsPhase) + 2 * isinstance(phase, ExactPhase) for phase in phases]
    if not phases or any(kind not in (1, 2) for kind in kinds):
        raise PhaseRefused(
            f"a phase of {estimator.name} is neither trained in rounds nor exact; see estimators/base.py"
        )
    if len({phase.name for phase in phases}) != len(phases):
        raise PhaseRefused(f"two phases of {estimator.name} have the same name")
    if (1 in kinds) != estimator.trained_in_rounds:
        raise PhaseRefused(
            f"{estimator.name} says trained_in_rounds = {estimator.trained_in_rounds}, its phases otherwise"
        )
    return phases


def usual_age_limits(estimator: Estimator) -> tuple[float, float]:
    """The limits of ages that a campaign file which states none asks for: the estimator's, inwards to whole steps.

    Attack: limits that a coordinator moves file by file tell who is between two of them. Rule: those that follow from
    an estimator's options lie on the grid that sites hold age limits to, and count as the file's own.
    """
    low, high = estimator.ages_years
    step = USUAL_AGE_STEP_YEARS
    return math.ceil(low / step) * step, math.floor(high / step) * step


def kinked_loss(estimator: Estimator) -> str:
    """The option by which the estimator asks for a loss that bends at a patient; empty if it asks for none."""
    return estimator.kinked_loss if isinstance(estimator, KinkedLoss) else ""


def rounds_phases(estimator: Estimator) -> tuple[int, ...]:
    """Which phases are trained in rounds."""
    return tuple(k for k, phase in enumerate(phases_of(estimator)) if isinstance(phase, RoundsPhase))


def place_of_round(estimator: Estimator, *, rounds: int, number: int) -> tuple[int, int] | None:
    """The phase of a round of the run, and its number in that phase from 1; None for one that the run does not have.

    Each phase that is trained takes as many rounds as the file says, one phase after another.
    """
    trained = rounds_phases(estimator)
    if not 1 <= number <= rounds * len(trained):
        return None
    return trained[(number - 1) // rounds], (number - 1) % rounds + 1


def exact_analysis(campaign: Campaign, phase: ExactPhase) -> Analysis:
    """The analysis of an exact phase, over the patients in training, after the agreement on its columns.

    Attack: an exact phase sums what no rule has looked at. Rule: its analysis has to say of which groups and columns
    its sums are (`Reducible`), and they pass the influence rule, the minimum count and the bounds like any other's.
    Residual risk: an installed package that says something else than it sums; it is code that a site's administrator
    trusts, as he does FedAge.

    Raises
    ------
    PhaseRefused
        If the analysis has no such groups, or another name than the phase; if it has noise and the campaign says
        nothing of it, or the other way round.
    """
    private = campaign.privacy.mode in ("sample", "client")
    analysis = phase.analysis(
        Conditions(
            minimum_count=campaign.cell_minimum,
            # Else those who are never trained on would count as held out, and hide how few really are.
            healthy_only=campaign.cohort.train_on == "healthy",
            cross_fitted=campaign.validation.folds is not None,
            influence=rule_of(campaign),
            sites=campaign.training_sites,
            site=campaign.site,
            noise=sums_noise(campaign),
        )
    )
    sound = require_exact(phase, analysis)
    if isinstance(sound, NoisedAnalysis):
        if campaign.privacy.mode != "sample" or campaign.training is not None or not sound.noise_multiplier > 0:
            raise PhaseRefused(f"the sums of phase {phase.name!r} are for noise, and the campaign gives none")
        return sound
    if private:
        raise PhaseRefused(f"the sums of phase {phase.name!r} have no noise, and the campaign promises privacy")
    return agreed(sound, campaign)


def sums_noise(campaign: Campaign) -> SumsNoise | None:
    """The noise of the sums of a campaign that trains nothing in rounds: asked once of each of its models.

    None without privacy for each patient.

    Raises
    ------
    NoNoise
        If no noise keeps within its ε.
    """
    privacy = campaign.privacy
    if privacy.mode != "sample" or campaign.training is not None or privacy.clip_norm is None or privacy.delta is None:
        return None
    noise = privacy.noise_multiplier
    if noise is None and privacy.epsilon is not None:
        beside = validation_noise(campaign, rounds=0, epsilon=privacy.epsilon)
        noise = noise_for(
            privacy.epsilon,
            delta=privacy.delta,
            rate=1.0,
            steps=campaign.models,
            beside=() if beside is None else beside.together,
        )
    return None if noise is None else SumsNoise(noise_multiplier=noise, clip_norm=privacy.clip_norm)


def require_exact(phase: ExactPhase, analysis: object) -> ExactAnalysis | NoisedAnalysis:
    """The analysis of an exact phase, if its sums can be held to the rules, or are for noise.

    Raises
    ------
    PhaseRefused
    """
    if not isinstance(analysis, ExactAnalysis | NoisedAnalysis):
        raise PhaseRefused(
            f"the sums of phase {phase.name!r} cannot be held to the influence rule: its analysis must be an "
            "ExactAnalysis (common/analyses/exact.py)"
        )
    if analysis.name != phase.name:
        raise PhaseRefused(f"the analysis of phase {phase.name!r} is called {analysis.name!r}; give both the same name")
    return analysis


def exact_analyses(campaign: Campaign, features: Sequence[str]) -> dict[str, Analysis]:
    """The analyses of all exact phases by name; none where a bundle stands for what comes before the rounds."""
    estimator = configured(campaign, features)
    if estimator is None or (campaign.training is not None and campaign.training.start_bundle is not None):
        return {}
    return {p.name: exact_analysis(campaign, p) for p in phases_of(estimator) if isinstance(p, ExactPhase)}
