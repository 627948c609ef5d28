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
from fedage.client.records import read_request, write_reply
from fedage.client.site import Site, SiteCohort
from fedage.client.sites import site_for
from fedage.client.training import TooFewSamples, TrainingDiverged, predict_years, train_locally
from fedage.common import estimators
from fedage.common._version import __version__
from fedage.common.campaign import Campaign
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
    parts = {part: int(found.cohort[f"is_{part}"].sum()) for part in ("train", "validation", "test")}
    info = {
        "patients": found.cohort.n,
        "parts": releasable_parts(parts, minimum_count=minimum_count),
        "excluded": releasable_counts(found.excluded, minimum_count=minimum_count),
        "rejected_files": dict(found.rejected_files),
        "rejected_samples": releasable_counts(found.rejected_samples, minimum_count=minimum_count),
        "device": site.device,
    }
    return info, {}


@app.train()
@_answers(TRAIN)
def train(site: Site, campaign: Campaign, request: Request, payload: Payload) -> Answer:
    """Train on the site's training patients; the sums for the incoming model's validation come along."""
    weights, iterates = split_payload(payload)
    found = site.cohort(campaign)
    chosen = np.flatnonzero(found.cohort["is_train"] == 1)
    require(chosen.size, of="training patients", minimum_count=_minimum(site, campaign))
    validation = np.flatnonzero(found.cohort["is_validation"] == 1)
    predicted = _predict(site, campaign, found, weights, rows=validation)
    sums, withheld = contributions(
        campaign,
        found.cohort.with_columns(predicted_years=predicted),
        iterates,
        folder=site.state_dir(request.digest),
        run=request.run,
        guard=site.guard,
    )
    estimator = estimators.make(campaign.estimator.name, campaign.estimator.options)
    seed = derived_seed("train", campaign.campaign.seed, site.name, request.fold, request.round)
    try:
        update = train_locally(
            estimator,
            weights,
            _rows(found, chosen),
            found.cohort["age_years"][chosen],
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
    weights, iterates = split_payload(payload)
    found = site.cohort(campaign)
    folder, model = site.state_dir(request.digest), payload_digest(weights)
    snapshot = predictions.cohort_digest(found.cohort, snapshot=found.snapshot)
    if not predictions.kept(folder, run=request.run, model=model, snapshot=snapshot):
        held_out = np.flatnonzero(found.cohort["is_train"] != 1)
        predicted = _predict(site, campaign, found, weights, rows=held_out)
        predictions.keep(folder, run=request.run, predicted_years=predicted, model=model, snapshot=snapshot)
    return _analyse(site, campaign, request, found, iterates)


@app.query("analyse")
@_answers(ANALYSE)
def analyse(site: Site, campaign: Campaign, request: Request, payload: Payload) -> Answer:
    """The sums of registered analyses at the iterates sent."""
    _, iterates = split_payload(payload)
    return _analyse(site, campaign, request, site.cohort(campaign), iterates)


def _analyse(
    site: Site,
    campaign: Campaign,
    request: Request,
    found: SiteCohort,
    iterates: Mapping[str, Mapping[str, NDArray[np.float64]]],
) -> Answer:
    folder = site.state_dir(request.digest)
    snapshot = predictions.cohort_digest(found.cohort, snapshot=found.snapshot)
    cohort = predictions.with_predictions(found.cohort, folder, run=request.run, snapshot=snapshot)
    sums, withheld = contributions(campaign, cohort, iterates, folder=folder, run=request.run, guard=site.guard)
    return {"withheld": withheld}, sums


def _predict(
    site: Site, campaign: Campaign, found: SiteCohort, weights: Payload, *, rows: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Predictions (n,) in cohort order, NaN for the patients not in `rows`."""
    estimator = estimators.make(campaign.estimator.name, campaign.estimator.options)
    predicted = np.full(found.cohort.n, np.nan)
    if rows.size:
        try:
            predicted[rows] = predict_years(
                estimator, dict(weights), _rows(found, rows), device=site.device, threads=site.threads
            )
        except ModelRefused as refused:
            raise RequestRefused("model", str(refused)) from None
    return predicted


def _rows(found: SiteCohort, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    if found.samples is None:
        raise Withheld("no-samples", "this site has no samples for the campaign's estimator")
    return np.asarray(found.samples[rows], dtype=np.float32)


def _minimum(site: Site, campaign: Campaign) -> int:
    return campaign.privacy.minimum_count if site.guard else 1
