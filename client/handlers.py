"""What a site does with a message: the real ClientApp, run by the agent, or in process in a simulation.

Every handler answers with a reply record: `ok`, or `refused` with the rule and a sentence. An exception never reaches
the server with its text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedage.client import predictions
from fedage.client.agent.cancel import should_stop
from fedage.client.contribute import contributions
from fedage.client.gate import admit
from fedage.client.guard import Withheld, releasable_counts, releasable_parts, require
from fedage.client.model import estimator_of, predict, samples_at
from fedage.client.parts import check_fold, held_out, held_out_of_training, of_fold, sizes
from fedage.client.records import read_request, write_reply
from fedage.client.site import Site, SiteCohort
from fedage.client.sites import site_for
from fedage.client.training import TooFewSamples, TrainingDiverged, train_locally
from fedage.common._version import __version__
from fedage.common.analyses.plan import VALIDATION
from fedage.common.campaign import Campaign
from fedage.common.cohort import Cohort
from fedage.common.estimators.base import Trainable
from fedage.common.estimators.configure import preparation
from fedage.common.networks.arrays import ModelRefused
from fedage.common.protocol import (
    ANALYSE,
    DESCRIBE,
    EVALUATE,
    TRAIN,
    Payload,
    Reply,
    Request,
    RequestRefused,
    derived_seed,
    join_model,
    payload_digest,
    split_payload,
)

logger = logging.getLogger(__name__)

Answer = tuple[Mapping[str, Any], Payload]
Handler = Callable[[Site, Campaign, Request, Payload], Answer]

app = ClientApp()


def _answers(kind: str) -> Callable[[Handler], Callable[[Message, Context], Message]]:
    """Turn a handler into a ClientApp function: read, admit, run, reply; a refusal is an answer too."""

    def decorate(handler: Handler) -> Callable[[Message, Context], Message]:
        @wraps(handler)
        def answer(message: Message, context: Context) -> Message:
            site = site_for(context)
            digest = ""
            try:
                request, payload, signature = read_request(message)
                digest = request.digest
                campaign = admit(site, request, payload, signature, kind=kind)
                logger.info("%s, round %d of %s, digest %s", kind, request.round, campaign.campaign.name, digest)
                info, arrays = handler(site, campaign, request, payload)
            except (RequestRefused, Withheld) as refusal:
                logger.warning("refused %s: %s", kind, refusal)
                reply = Reply(
                    site=site.name,
                    digest=digest,
                    status="refused",
                    rule=refusal.rule,
                    reason=refusal.detail,
                    version=__version__,
                )
                return write_reply(reply, {}, to=message)
            reply = Reply(site=site.name, digest=digest, status="ok", info=info, version=__version__)
            return write_reply(reply, arrays, to=message)

        return answer

    return decorate


@app.query("describe")
@_answers(DESCRIBE)
def describe(site: Site, campaign: Campaign, _request: Request, _payload: Payload) -> Answer:
    """How many patients the site brings, what it set aside, and on what it computes."""
    found = site.cohort(campaign)
    minimum_count = _minimum(site, campaign)
    require(found.cohort.n, of="patients in the cohort", minimum_count=minimum_count)
    info = {
        "patients": found.cohort.n,
        "parts": releasable_parts(sizes(found.cohort, campaign), minimum_count=minimum_count),
        "excluded": releasable_counts(found.excluded, minimum_count=minimum_count),
        # Of a table it is rows, which are patients, that are set aside; of images it is files.
        "rejected_files": releasable_counts(found.rejected_files, minimum_count=minimum_count)
        if campaign.table is not None
        else dict(found.rejected_files),
        "rejected_samples": releasable_counts(found.rejected_samples, minimum_count=minimum_count),
        "features": list(found.features),
        "device": site.device,
    }
    return info, {}


@app.train()
@_answers(TRAIN)
def train(site: Site, campaign: Campaign, request: Request, payload: Payload) -> Answer:
    """Train on the site's training patients; the sums for the incoming model's validation come along."""
    weights, iterates = split_payload(payload)
    if set(iterates) - {VALIDATION}:
        # Any model may come in training: what compares or corrects its predictions is for the run's one model.
        raise RequestRefused("unknown-step", "a training request may ask for the validation of its model only")
    check_fold(campaign, request.fold, all_folds_allowed=False)
    found = site.cohort(campaign)
    cohort = of_fold(found.cohort, campaign, request.fold)
    chosen = np.flatnonzero(cohort["is_train"] == 1)
    require(chosen.size, of="training patients", minimum_count=_minimum(site, campaign))
    if left := held_out_of_training(found.cohort, campaign, request.fold):
        require(left, of="patients held out of this fold's training", minimum_count=_minimum(site, campaign))
    validation = np.flatnonzero(cohort["is_validation"] == 1)
    predicted = predict(site, campaign, found, weights, rows=validation)
    sums, withheld = _sums(site, campaign, request, found, cohort.with_columns(predicted_years=predicted), iterates)
    estimator = estimator_of(campaign, found)
    if campaign.training is None or not isinstance(estimator, Trainable):
        raise RequestRefused("not-trained", "the approved campaign file trains nothing in rounds")
    seed = derived_seed("train", campaign.campaign.seed, site.name, request.fold, request.round)
    try:
        update = train_locally(
            estimator,
            weights,
            samples_at(found, chosen),
            cohort["age_years"][chosen],
            training=campaign.training,
            round_number=request.round,
            rng_seed=seed,
            threads=site.threads,
            device=site.device,
            should_stop=should_stop,
        )
    except ModelRefused as refused:
        raise RequestRefused("model", str(refused)) from None
    except TrainingDiverged as diverged:
        raise Withheld("training-diverged", str(diverged)) from None
    except TooFewSamples as few:
        raise Withheld("too-few-samples", str(few)) from None
    change = {name: array - weights[name] for name, array in update.weights.items()}
    info = {"n": int(chosen.size), "loss": update.mean_loss, "seconds": update.seconds, "withheld": withheld}
    return info, {**join_model(change), **sums}


@app.evaluate()
@_answers(EVALUATE)
def evaluate(site: Site, campaign: Campaign, request: Request, payload: Payload) -> Answer:
    """Predict the patients the model was not trained on, keep the predictions, answer the first analyses."""
    check_fold(campaign, request.fold, all_folds_allowed=False)
    weights, iterates = split_payload(payload)
    found = site.cohort(campaign)
    folder, model = site.state_dir(request.digest), payload_digest(weights)
    snapshot = predictions.cohort_digest(found.cohort, snapshot=found.snapshot)
    run = predictions.name_of(request.run, fold=request.fold if campaign.validation.folds else None)
    if not predictions.kept(folder, run=run, model=model, snapshot=snapshot):
        rows = held_out(found.cohort, campaign, request.fold)
        predicted = predict(site, campaign, found, weights, rows=np.flatnonzero(rows))
        predictions.keep(folder, run=run, predicted_years=predicted, model=model, snapshot=snapshot)
    return _analyse(site, campaign, request, found, iterates)


@app.query("analyse")
@_answers(ANALYSE)
def analyse(site: Site, campaign: Campaign, request: Request, payload: Payload) -> Answer:
    """The sums of registered analyses at the iterates sent."""
    check_fold(campaign, request.fold, all_folds_allowed=True)
    _, iterates = split_payload(payload)
    return _analyse(site, campaign, request, site.cohort(campaign), iterates)


def _analyse(
    site: Site,
    campaign: Campaign,
    request: Request,
    found: SiteCohort,
    iterates: Mapping[str, Mapping[str, NDArray[np.float64]]],
) -> Answer:
    """Sums over the cohort with its predictions; with folds, over one fold's patients until every fold has a model."""
    folder = site.state_dir(request.digest)
    snapshot = predictions.cohort_digest(found.cohort, snapshot=found.snapshot)
    folds = campaign.validation.folds if campaign.estimator else None
    if folds is None:
        cohort = predictions.with_predictions(found.cohort, folder, run=request.run, snapshot=snapshot)
    elif request.fold < folds:
        cohort = of_fold(found.cohort, campaign, request.fold)
    else:
        cohort = predictions.with_all_folds(found.cohort, folder, run=request.run, folds=folds, snapshot=snapshot)
    sums, withheld = _sums(site, campaign, request, found, cohort, iterates)
    return {"withheld": withheld}, sums


def _sums(
    site: Site,
    campaign: Campaign,
    request: Request,
    found: SiteCohort,
    cohort: Cohort,
    iterates: Mapping[str, Mapping[str, NDArray[np.float64]]],
) -> tuple[dict[str, NDArray[np.float64]], dict[str, dict[str, str]]]:
    first = preparation(campaign, found.features)
    return contributions(
        campaign,
        cohort,
        iterates,
        folder=site.state_dir(request.digest),
        run=predictions.name_of(request.run, fold=request.fold if campaign.validation.folds else None),
        guard=site.guard,
        more_steps={} if first is None else {first.name: first},
    )


def _minimum(site: Site, campaign: Campaign) -> int:
    return campaign.cell_minimum if site.guard else 1
