"""What a site does with a message: the real ClientApp, run by the agent, or in process in a simulation.

Every handler answers with a reply record: `ok`, or `refused` with the rule and a sentence (see `exchange`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedage.client.cohort.selection.parts import (
    check_fold,
    count_set_aside,
    held_out,
    part_sizes,
    parts_for_fold,
    why_no_training,
)
from fedage.client.compute import predictions
from fedage.client.compute.contribute import Contributions
from fedage.client.compute.model import (
    estimator_of,
    predict,
    predict_in_training,
    samples_of,
    statistics_of_site,
    targets_of,
)
from fedage.client.compute.round_sums import of_a_round
from fedage.client.compute.saliency import saliency_columns
from fedage.client.compute.training import BatchTooLarge, TooFewSamples, TrainingDiverged, train_locally
from fedage.client.disclosure.guard import Withheld, releasable_counts, releasable_parts, require
from fedage.client.inbox.bundles import model_of_bundle
from fedage.client.inbox.exchange import Handler, respond
from fedage.client.inbox.gate import Answer, Work
from fedage.client.inbox.masked_answer import hidden
from fedage.client.inbox.model_continuity import admit_model
from fedage.client.inbox.own_training import begin_training, with_own_norms
from fedage.client.inbox.private_round import FIRST_ROUND, OUTSIDE, train_private_round
from fedage.client.inbox.secure_stages import answer_stage
from fedage.client.inbox.sites import site_for
from fedage.client.inbox.sums import NO_AGE_YET, ONLY_VALIDATES, answer_of, sums_of, with_phase_columns
from fedage.client.site.cancel import should_stop
from fedage.common.analyses.evaluation.metrics import VALIDATION, Evaluation
from fedage.common.analyses.plan import registered
from fedage.common.estimators.base import RoundsPhase
from fedage.common.estimators.configure import (
    kinked_loss,
    phases_of,
    place_of_round,
    rounds_phases,
    step_limits,
    update_limits,
)
from fedage.common.networks.arrays import ModelRefused
from fedage.common.networks.devices import device_text
from fedage.common.networks.steps import clipped_step
from fedage.common.protocol.heads import key_to_hex
from fedage.common.protocol.messages import (
    ANALYSE,
    DESCRIBE,
    EVALUATE,
    KINDS,
    SECURE,
    TRAIN,
    RequestRefused,
    join_model,
    payload_digest,
    split_payload,
)

Arrays = Mapping[str, NDArray[Any]]
Iterates = Mapping[str, Mapping[str, NDArray[np.float64]]]


class SiteHandlers(ClientApp):
    """Flower's ClientApp; a message of a kind that no site knows is refused like any other, not raised."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message of any type."""
        kind = message.metadata.message_type
        if kind not in (*KINDS, SECURE):
            return respond(site_for(context), message, kind="unknown", handler=_unknown)
        return super().__call__(message, context)


app = SiteHandlers()


def _unknown(_work: Work) -> Answer:
    raise RequestRefused("malformed-request", "no such kind of message")


def _answers(kind: str) -> Callable[[Handler], Callable[[Message, Context], Message]]:
    """Turn a handler into a ClientApp function."""

    def decorate(handler: Handler) -> Callable[[Message, Context], Message]:
        @wraps(handler)
        def answer(message: Message, context: Context) -> Message:
            return respond(site_for(context), message, kind=kind, handler=hidden(handler))

        return answer

    return decorate


app.query("secure")(_answers(SECURE)(answer_stage))


@app.query("describe")
@_answers(DESCRIBE)
def describe(work: Work) -> Answer:
    """How many patients the site brings, what it set aside, what it answers, and on what it computes."""
    site_cohort, campaign, minimum_count = work.site_cohort, work.campaign, work.minimum_count
    in_parts, aside = part_sizes(site_cohort.cohort, campaign), count_set_aside(site_cohort.cohort)
    parts = releasable_parts(in_parts, minimum_count=minimum_count)
    # With the parts' sizes the number of all would tell how many are in none.
    others = site_cohort.cohort.n - sum(aside.values()) - sum(in_parts.values())
    used = sum(in_parts.values()) + (others if others >= minimum_count else 0)
    if not campaign.privacy.secure_aggregation:
        require(used, of="patients in the cohort", minimum_count=minimum_count)
    left_out = {**site_cohort.excluded, **{reason: count for reason, count in aside.items() if count}}
    excluded = releasable_counts(left_out, minimum_count=minimum_count)
    info = {
        "patients": used,
        "minimum_count": minimum_count,
        "parts": parts,
        "excluded": excluded,
        # A file is of one patient, a row of a table is one: few of them are few patients.
        "rejected_files": releasable_counts(site_cohort.rejected_files, minimum_count=minimum_count),
        "rejected_samples": releasable_counts(site_cohort.rejected_samples, minimum_count=minimum_count),
        "features": list(site_cohort.features),
        "device": device_text(work.site.device, precision=campaign.training.precision if campaign.training else None),
    }
    if campaign.privacy.secure_aggregation:  # which hides how many a site brings
        info = {key: info[key] for key in ("minimum_count", "features", "device")}
    if (rules := work.site.rules) is not None:
        info |= {"audit_key": key_to_hex(rules.audit.public_key), "kinds": rules.kinds()}
    cells = filter(None, (used, *parts.values(), *excluded.values()))
    return Answer(info=info, patients=used, smallest_cell=min(cells, default=None))


@app.train()
@_answers(TRAIN)
def train(work: Work) -> Answer:
    """Train on the site's training patients; the sums for the incoming model's validation come along."""
    site, campaign, request, site_cohort = work.site, work.campaign, work.request, work.site_cohort
    weights, iterates = split_payload(work.payload)
    if set(iterates) - {VALIDATION}:
        # Any model may come in training: what compares or corrects its predictions is for the run's one model.
        raise RequestRefused("unknown-step", "a training request may ask for the validation of its model only")
    if campaign.validates:
        raise RequestRefused("role", ONLY_VALIDATES)
    check_fold(campaign, request.fold, all_folds_allowed=False)
    cohort = parts_for_fold(site_cohort.cohort, campaign, request.fold)
    chosen = np.flatnonzero(cohort["is_train"] == 1)
    require(chosen.size, of="training patients", minimum_count=work.minimum_count)
    if too_few := why_no_training(site_cohort.cohort, campaign, minimum_count=work.minimum_count):
        raise Withheld("minimum-count", too_few)
    estimator = estimator_of(campaign, site_cohort)
    if campaign.training is None or not rounds_phases(estimator):
        raise RequestRefused("not-trained", "the approved campaign file trains nothing in rounds")
    if site.guard and work.minimum_count > 1 and (bends := kinked_loss(estimator)):
        raise RequestRefused(
            "kinked-loss", f"a site with a minimum count trains with smooth losses only, and this one is not: {bends}"
        )
    place = place_of_round(estimator, rounds=campaign.training.rounds, number=request.round)
    if place is None:
        last = campaign.training.rounds * len(rounds_phases(estimator))
        raise RequestRefused("round", f"the approved campaign file has the rounds 1 to {last} only")
    phase = phases_of(estimator)[place[0]]
    assert isinstance(phase, RoundsPhase)
    run = predictions.name_of(request.run, fold=request.fold if campaign.validation.folds else None)
    roles = admit_model(work, weights, name=run, phase=place[0], round_number=place[1])
    limits, bounds = step_limits(campaign), update_limits(campaign)
    own = None
    if roles is not None and limits is not None:
        own = begin_training(work, weights, name=run, phase=place[0], phase_round=place[1], roles=roles, limits=limits)
    work.bring_model(payload_digest(weights))
    weights = weights if own is None else dict(own.weights)
    validation = np.flatnonzero(cohort["is_validation"] == 1)
    is_private, epsilon, of_privacy = campaign.privacy.mode == "sample", 0.0, dict[str, Any]()
    tells_round = campaign.privacy.mode == "none"
    is_judged = tells_round or (campaign.noises_validation and place[1] > 1)
    predicted = (
        None if not is_judged else predict_in_training(site, estimator, phase, site_cohort, weights, rows=validation)
    )
    if not is_judged:
        reason = FIRST_ROUND if campaign.noises_validation else OUTSIDE
        contributed = Contributions(sums={}, withheld={VALIDATION: dict(reason)})
    elif predicted is None:
        contributed = Contributions(sums={}, withheld={VALIDATION: dict(NO_AGE_YET)})
    else:
        judged = registered(campaign)[VALIDATION]
        with_ages = cohort.with_columns(predicted_years=predicted)
        contributed = sums_of(work, with_ages, iterates, model=payload_digest(weights))
        if site.guard and work.minimum_count > 1 and isinstance(judged, Evaluation):
            contributed = of_a_round(contributed, judged, estimator=estimator, predicted=predicted[validation])
    samples = samples_of(site_cohort, chosen)
    # Under differential privacy nothing is left out by how many have it: one patient more would change all targets.
    targets = targets_of(estimator, cohort, chosen, minimum_count=1 if is_private else work.minimum_count)
    try:
        if is_private:
            update, epsilon, of_privacy = train_private_round(
                work,
                estimator,
                phase,
                weights,
                samples,
                targets,
                cohort=cohort,
                phase_number=place[0],
                round_number=place[1],
            )
        else:
            update = train_locally(
                phase,
                weights,
                samples,
                targets,
                training=campaign.training,
                round_number=place[1],
                rng_seed=site.training_seed(campaign, "augmentation", request.fold, request.round),
                # Not by the round: the same batches in every one.
                order_seed=site.training_seed(campaign, "batches", request.fold, place[0]),
                minimum_count=work.minimum_count if site.guard else 1,
                control=None if own is None else own.control,
                threads=site.threads,
                device=site.device,
                should_stop=should_stop,
            )
    except ModelRefused as refused:
        raise RequestRefused("model", str(refused)) from None
    except (BatchTooLarge, TooFewSamples, TrainingDiverged) as reason:
        raise Withheld(reason.rule, str(reason)) from None
    change = {name: array - weights[name] for name, array in update.weights.items()}
    info = {
        "n": int(chosen.size),
        "loss": update.mean_loss if tells_round else None,
        "seconds": update.seconds,
        "withheld": contributed.withheld,
    }
    info |= {"privacy": of_privacy} if of_privacy else {}
    info |= {"batch_parts": update.parts} if update.parts > 1 else {}
    if own is not None and roles is not None and bounds is not None:
        within = clipped_step(weights, change, roles, step_norm=bounds.step_norm)
        if campaign.privacy.mode != "client":
            info["clipped"] = any(within[name] is not change[name] for name in roles.moving)
        info |= own.keep(update.weights, within, learnt=roles.learnt, steps=update.steps)
        change = within
    answer = answer_of(contributed, info=info, epsilon=epsilon)
    return replace(
        answer,
        payload={**join_model(change), **contributed.sums},
        patients=min(int(chosen.size) + contributed.patients, site_cohort.cohort.n),
        smallest_cell=min(int(chosen.size), contributed.smallest_cell or int(chosen.size)),
        roles=roles,
    )


@app.evaluate()
@_answers(EVALUATE)
def evaluate(work: Work) -> Answer:
    """Predict the patients the model was not trained on, keep the predictions, answer the first analyses."""
    site, campaign, request, site_cohort = work.site, work.campaign, work.request, work.site_cohort
    check_fold(campaign, request.fold, all_folds_allowed=False)
    if request.fold == campaign.final_fold and not campaign.validates:
        raise RequestRefused("fold", "this site's patients made the final model, so it is not judged by them")
    weights, iterates = split_payload(work.payload)
    if campaign.bundle is not None:
        weights = dict(model_of_bundle(work))
    folder, model = site.state_dir(request.digest), payload_digest(weights)
    snapshot = predictions.cohort_digest(site_cohort.cohort, snapshot=site_cohort.snapshot)
    run = predictions.name_of(request.run, fold=request.fold if campaign.validation.folds else None)
    if not predictions.are_kept(folder, run=run, model=model, snapshot=snapshot):
        estimator = estimator_of(campaign, site_cohort)
        rows = np.flatnonzero(held_out(site_cohort.cohort, campaign, request.fold))
        if campaign.bundle is None:
            last = len(phases_of(estimator))
            admit_model(work, weights, name=run, phase=last)
            of_site = partial(statistics_of_site, site, estimator, site_cohort, weights, rows=rows)
            weights = with_own_norms(work, weights, name=run, phase=last - 1, own_statistics=of_site)
        predicted = predict(site, estimator, site_cohort, weights, rows=rows)
        maps = saliency_columns(site, campaign, estimator, site_cohort, weights, rows=rows)
        predictions.keep(folder, run=run, columns={**predicted, **maps}, model=model, snapshot=snapshot)
    return _analyse(work, iterates)


@app.query("analyse")
@_answers(ANALYSE)
def analyse(work: Work) -> Answer:
    """The sums of registered analyses at the iterates sent."""
    check_fold(work.campaign, work.request.fold, all_folds_allowed=True)
    weights, iterates = split_payload(work.payload)
    return _analyse(work, iterates, weights)


def _analyse(work: Work, iterates: Iterates, before: Arrays | None = None) -> Answer:
    """Sums over the cohort with its predictions; with folds, over one fold's patients until every fold has a model.

    `before` is the model that an exact phase's columns are computed with.
    """
    campaign, request, site_cohort = work.campaign, work.request, work.site_cohort
    folder = work.site.state_dir(request.digest)
    snapshot = predictions.cohort_digest(site_cohort.cohort, snapshot=site_cohort.snapshot)
    folds = campaign.validation.folds if campaign.estimator else None
    runs = [request.run] if folds is None else [predictions.name_of(request.run, fold=k) for k in range(folds)]
    if folds is None:
        cohort = predictions.with_predictions(site_cohort.cohort, folder, run=request.run, snapshot=snapshot)
    elif request.fold != folds:
        cohort = parts_for_fold(site_cohort.cohort, campaign, request.fold)
    elif campaign.validates and campaign.final_fold is not None:
        run = predictions.name_of(request.run, fold=campaign.final_fold)
        runs = [run]
        cohort = predictions.with_final_model(site_cohort.cohort, folder, run=run, snapshot=snapshot)
    else:
        cohort = predictions.with_all_folds(site_cohort.cohort, folder, run=request.run, folds=folds, snapshot=snapshot)
    cohort = with_phase_columns(work, cohort, iterates, before or {})
    model = predictions.models_of(folder, runs=runs) if campaign.noises_validation else ""
    contributed = sums_of(work, cohort, iterates, model=model)
    told = {"privacy": contributed.privacy} if contributed.privacy else {}
    return answer_of(contributed, info={"withheld": contributed.withheld, **told})
