"""The models of a run that both sides work out: from the approved file's seed, and from sums over all sites.

A site is sent the sums of an exact phase over all sites and solves them itself, so that no model is answered that is
not the solution of sums that patients can have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.agreement import Agreed
from fedage.common.analyses.base import Done, IterateRefused
from fedage.common.analyses.exact import ExactAnalysis, NoisedAnalysis, NoSumOfPatients
from fedage.common.campaign.types import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import Arrays, Estimator, ExactPhase, RoundsPhase
from fedage.common.estimators.configure import configured, exact_analysis, initial_seed, phases_of
from fedage.common.estimators.outcomes import begun_by
from fedage.common.networks.arrays import ModelRefused, arrays_sha256, outline, state_to_arrays
from fedage.common.networks.roles import ArrayRoles, roles_of
from fedage.common.networks.steps import learnt_norm
from fedage.common.protocol.basis import Basis, PreparedSums
from fedage.common.statistics.influence import InfluenceRefused

TOLERANCE = 1e-5
"""How far two computations of the same model may lie apart: initialisers and solvers differ in the last bits between
processors. Absolute up to 1, relative above; standardisation in standard deviations."""
_FLOAT32_STEPS = 4 * float(np.finfo(np.float32).eps)


class NoFirstModel(FedAgeError):
    """A model cannot be worked out; the message says why and holds no value of a patient."""


def model_before(
    campaign: Campaign, features: Sequence[str], *, fold: int, phase: int, basis: Basis
) -> dict[str, NDArray[Any]]:
    """The model that a phase begins with, or after the last one the finished model.

    Parameters
    ----------
    campaign
        The approved file.
    features
        Numeric columns of the site's table.
    fold
        From 0; 0 without folds.
    phase
        Which phase, from 0; as many as there are for the finished model.
    basis
        The model at the end of the last rounds before, and sums over all sites of the exact phases since.

    Raises
    ------
    NoFirstModel
        If a trained model or sums are missing, or are none that patients can have, or give no model.
    """
    estimator, seed = _estimator(campaign, features), initial_seed(campaign, fold=fold)
    phases = phases_of(estimator)
    trained = last_rounds(estimator, before=phase)
    if trained is None and campaign.training is not None and campaign.training.start_bundle is not None:
        if basis.given is None:
            raise NoFirstModel("the campaign file names a bundle that the rounds begin with, and it did not come")
        if phase < len(phases) and isinstance(begun := phases[phase], RoundsPhase):
            first = _first_of_bundle(estimator, begun, basis.given, seed=seed)
            _require_usual_length(estimator, begun, first, seed=seed)
            return first
        return dict(basis.given)
    if trained is None:
        model = _given(estimator, basis)
    elif basis.trained is None:
        raise NoFirstModel("a model of this phase comes with the model that was trained before, and came without")
    else:
        model = dict(basis.trained)
    for between in phases[0 if trained is None else trained + 1 : phase]:
        if not isinstance(between, ExactPhase):
            raise NoFirstModel("the phases are none that a model follows from")
        model = _solved(campaign, between, model, basis.sums.get(between.name), seed=seed)
    if phase < len(phases) and isinstance(following := phases[phase], RoundsPhase):
        try:
            model = following.start(model, seed=seed)
        except ModelRefused as refused:
            raise NoFirstModel(str(refused)) from None
    return model


def _first_of_bundle(estimator: Estimator, phase: RoundsPhase, given: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:
    """The first model of rounds that begin with a bundle: its own, or what the phase makes of a model of age."""
    if begun_by(estimator) is estimator:
        return dict(given)
    try:
        return phase.start(given, seed=seed)
    except ModelRefused as refused:
        raise NoFirstModel(str(refused)) from None


def _require_usual_length(estimator: Estimator, phase: RoundsPhase, weights: Arrays, *, seed: int) -> None:
    """Refuse weights that no run of this estimator ends with.

    Attack: a bundle whose hidden units are so steep that each lets single patients through; one update is then their
    records. Rule: by L2 norm over all learnt arrays the weights are at most as long as a new network's and the longest
    path of a run together, as whatever moved no further from a new network is. Residual risk: a direction of the
    coordinator's choice within this length.
    """
    module = phase.build(seed=seed)
    array_roles = roles_of(module)
    allowed = learnt_norm(state_to_arrays(module), array_roles) + estimator.max_path_norm
    if any(name not in weights for name in array_roles.learnt) or not learnt_norm(weights, array_roles) <= allowed:
        raise NoFirstModel(
            "the bundle that the rounds begin with has longer weights than any run of this estimator ends with (their "
            "L2 norm is above that of a new network and the estimator's max_path_norm together); begin with a bundle "
            "of a run"
        )


def _given(estimator: Estimator, basis: Basis) -> dict[str, NDArray[Any]]:
    """The arrays that the first model begins with, by the digest in the approved file; none where it has no digest."""
    if not estimator.given_sha256:
        return {}
    if basis.given is None:
        raise NoFirstModel("the campaign file names weights that the first model begins with, and they did not come")
    if arrays_sha256(basis.given) != estimator.given_sha256:
        raise NoFirstModel(
            "the weights that came with the first model are not those whose digest the campaign file has"
        )
    return dict(basis.given)


def last_rounds(estimator: Estimator, *, before: int) -> int | None:
    """The last phase before this one that is trained in rounds; None if there is none."""
    trained = [k for k, phase in enumerate(phases_of(estimator)[:before]) if isinstance(phase, RoundsPhase)]
    return trained[-1] if trained else None


def _solved(
    campaign: Campaign, phase: ExactPhase, before: Arrays, sums: PreparedSums | None, *, seed: int
) -> dict[str, NDArray[Any]]:
    if sums is None:
        raise NoFirstModel("a model that is solved from sums comes with them, and this one came without")
    analysis = exact_analysis(campaign, phase)
    if not isinstance(analysis, ExactAnalysis | NoisedAnalysis | Agreed):
        raise NoFirstModel("this estimator has no sums that could be checked")
    try:
        analysis.check(sums.iterate)
        outcome = analysis.combine(analysis.check_total(sums.total, sums.iterate), sums.iterate)
        if not isinstance(outcome, Done):
            raise NoFirstModel("the sums that came with the model give none")
        return dict(phase.solve(outcome.result, before, seed=seed))
    except (IterateRefused, InfluenceRefused, NoSumOfPatients, KeyError, np.linalg.LinAlgError) as refusal:
        raise NoFirstModel(f"the sums that came with the model are refused: {refusal}") from None


def roles(campaign: Campaign, features: Sequence[str], *, phase: int) -> ArrayRoles:
    """What each array of a phase's network is.

    Raises
    ------
    NoFirstModel
        If the phase is not trained in rounds, or its batch normalisation cannot stay at the sites as the file wants.
    """
    estimator = _estimator(campaign, features)
    phases = phases_of(estimator)
    if not 0 <= phase < len(phases) or not isinstance(asked := phases[phase], RoundsPhase):
        raise NoFirstModel("the campaign file trains nothing in this phase")
    training = campaign.training
    stays = (training.local_norms or "all") if training is not None and training.strategy == "fedbn" else None
    found = roles_of(outline(lambda: asked.build(seed=0)), norms_stay=stays)
    if stays and not found.local:
        raise NoFirstModel(
            'training.strategy = "fedbn": this network has no batch normalisation that could stay at the sites; use '
            "an estimator or a norm option that has it, or another strategy"
        )
    if stays and len(phases) > 1 and (phase != len(phases) - 1 or last_rounds(estimator, before=phase) is not None):
        raise NoFirstModel(
            'training.strategy = "fedbn": batch normalisation that stays at the sites cannot go into another phase, '
            "and this estimator has one after or before; use another strategy"
        )
    return found


def _estimator(campaign: Campaign, features: Sequence[str]) -> Estimator:
    estimator = configured(campaign, features)
    if estimator is None:
        raise NoFirstModel("the campaign file has no estimator")
    return estimator


def is_same_model(estimator: Estimator, sent: Arrays, own: Arrays, *, names: Sequence[str] | None = None) -> bool:
    """Whether two models of the same names and shapes are the same but for rounding.

    Parameters
    ----------
    estimator
        Says how a table's model standardises its features: rounding of those is measured in standard deviations.
    names
        Compare these arrays only.
    """
    spread = _spread(estimator, own)
    for name in own if names is None else names:
        mine, theirs = (np.asarray(model[name], dtype=np.float64) for model in (own, sent))
        if spread is not None and name in ("means", "medians"):
            allowed = TOLERANCE * spread + _FLOAT32_STEPS * np.abs(mine)
        elif spread is not None and name in ("units", "sds"):
            allowed = TOLERANCE * np.abs(mine)
        else:
            allowed = TOLERANCE * np.maximum(1.0, np.abs(mine))
        if not np.all(np.abs(mine - theirs) <= allowed):
            return False
    return True


def _spread(estimator: Estimator, model: Arrays) -> NDArray[np.float64] | None:
    """The SD of each feature (p,), 0 for one that is not looked at; None for a model that standardises no row."""
    try:
        standard = estimator.standard(model)
    except KeyError:
        return None  # a model of a phase before there are any
    if standard is None:
        return None
    return np.divide(1.0, standard.units, out=np.zeros_like(standard.units), where=standard.units > 0)
