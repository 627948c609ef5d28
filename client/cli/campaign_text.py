"""What an administrator reads before approving: who asks for what, what leaves, what the site's policy says to it."""

from __future__ import annotations

from collections.abc import Iterator

from fedage.client.cohort.selection.fold_assignment import FEWEST_FOLDS, folds_for
from fedage.client.consent.policy import Allowed, Refused
from fedage.client.consent.rules import SiteRules
from fedage.client.consent.terms import budget_of
from fedage.client.disclosure.guard import Withheld
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import CampaignErrors
from fedage.common.campaign_file.describe import campaign_sentences
from fedage.common.estimators.configure import phases_known
from fedage.common.estimators.private_training import (
    NoPrivateTraining,
    mechanism_of,
    noise_of_validation,
    times_of_a_model,
)
from fedage.common.privacy.accountant import ChargeRefused
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, KINDS, TRAIN, RequestRefused


def title(rules: SiteRules, digest: str, state: str) -> str:
    """One line: digest, state, name."""
    campaign = rules.known(digest)
    return f"{digest}  {state}  {campaign.campaign.name if campaign else ''}".rstrip()


def campaign_text(rules: SiteRules, digest: str) -> Iterator[str]:
    """Everything about a campaign known here, one sentence an item."""
    try:
        rules.approvals.campaign(digest)
    except CampaignErrors as errors:
        yield f"the file has {len(errors.problems)} mistakes and cannot be approved"
        return
    if (campaign := rules.known(digest)) is None:
        yield "the file kept here is not the one with this digest and cannot be approved"
        return
    yield f"Who asks: the coordinator pinned at this site, whose key has the fingerprint {rules.coordinator}."
    yield from campaign_sentences(campaign)
    decision = rules.decide(campaign, kind=DESCRIBE)
    if isinstance(decision, Refused):
        yield f"Your policy refuses it (rule {decision.rule}): {decision.sentence}."
        if decision.rule == "data-set":
            yield f"Data sets of your policy: {', '.join(rules.data_sets())} (fedage site approve --data-set)."
        return
    yield from _policy(rules, campaign, decision)
    yield from _patients(rules, campaign, decision)
    yield from _budget(rules, campaign, decision)


def _policy(rules: SiteRules, campaign: Campaign, allowed: Allowed) -> Iterator[str]:
    refused = {kind: rules.decide(campaign, kind=kind) for kind in (TRAIN, EVALUATE, ANALYSE)}
    yield f"Your policy allows it; nothing leaves with fewer than {allowed.minimum_count} patients behind it."
    for kind, decision in refused.items():
        if isinstance(decision, Refused):
            yield f"Your policy refuses its {KINDS[kind]} messages now (rule {decision.rule}): {decision.sentence}."


def _patients(rules: SiteRules, campaign: Campaign, allowed: Allowed) -> Iterator[str]:
    frozen = rules.snapshots.of(campaign.digest)
    if frozen is not None and rules.approvals.is_approved(campaign.digest):
        count = len(frozen.patients)
        yield f"Patients: {count} of data set {frozen.data_set}, frozen when you approved it."
    else:
        try:
            count = rules.count(campaign, allowed)
        except RequestRefused as refused:
            yield f"It finds no patients here (rule {refused.rule}): {refused.detail}."
            return
        yield f"Patients: {count} of data set {allowed.data_set_name} as the store is now."
        yield from similar_columns_text(rules, campaign)
    yield from _folds(campaign, count, minimum_count=max(allowed.minimum_count, campaign.cell_minimum))


def similar_columns_text(rules: SiteRules, campaign: Campaign, *, data_set: str | None = None) -> Iterator[str]:
    """What is withheld of a campaign for columns that nearly repeat those of earlier campaigns."""
    try:
        similar = rules.similar_columns(campaign, data_set=data_set)
    except (RequestRefused, Withheld) as refused:
        yield f"Whether its columns nearly repeat those of earlier campaigns is not known: {refused.detail}."
        return
    for name, (earlier, digest) in similar.items():
        yield (
            f"Column {name} differs for a few patients only from column {earlier} of campaign {digest[:16]}…, by which "
            "sums left before: the two together would tell of these few, so sums by it are withheld "
            "(fedage site approve --accept-similar-columns gives them all the same)."
        )


def _budget(rules: SiteRules, campaign: Campaign, allowed: Allowed) -> Iterator[str]:
    name, data_set = allowed.data_set_name, allowed.data_set
    if data_set.epsilon is None and campaign.privacy.mode != "sample":
        yield f"Data set {name} has no ε budget; the campaign charges none."
        return
    mechanisms = []
    if campaign.privacy.mode == "sample":
        patients_here = rules.count(campaign, allowed)
        trained = _trained_on(campaign, patients_here, minimum_count=max(allowed.minimum_count, campaign.cell_minimum))
        try:
            estimator = phases_known(campaign)
            times = times_of_a_model(campaign, estimator)
            mechanisms = [
                mechanism_of(campaign, estimator, patients=patients) for patients in trained if patients
            ] * times
            if patients_here and (validation := noise_of_validation(campaign, estimator, patients=patients_here)):
                mechanisms.extend(validation.together)
        except (NoPrivateTraining, ChargeRefused) as refused:
            yield f"Its privacy cannot be accounted for: {refused}."
    balance = rules.ledger.preview(name, mechanisms=mechanisms, budget=budget_of(data_set))
    limit = "no budget" if data_set.epsilon is None else f"its budget is {data_set.epsilon:g}"
    yield (
        f"ε of data set {name} at δ = {balance.budget.delta:g}: {balance.spent_epsilon - balance.charged_epsilon:.4g} "
        f"spent so far, {balance.spent_epsilon:.4g} after this campaign; {limit}."
    )


def _trained_on(campaign: Campaign, patients: int, *, minimum_count: int) -> list[int]:
    """How many of the patients each model is trained on, about."""
    validation = campaign.validation
    if validation.fractions is not None:
        return [round(patients * validation.fractions.train)]
    folds = validation.folds or 1
    used = folds_for(patients, 0, folds=folds, minimum_count=minimum_count)
    on_everybody = folds - used + validation.final_model
    return [patients * (used - 1) // used] * used + [patients] * on_everybody if used else []


def _folds(campaign: Campaign, patients: int, *, minimum_count: int) -> Iterator[str]:
    """In how many folds the site's patients are held out, where that is not all of them."""
    folds = campaign.validation.folds
    if campaign.estimator is None or folds is None or campaign.validates:
        return
    used = folds_for(patients, 0, folds=folds, minimum_count=minimum_count)
    if not used:
        yield (
            f"They are too few to train with {folds} folds: a site that trains holds out at least {minimum_count} "
            f"patients in {FEWEST_FOLDS} folds or more."
        )
    elif used < folds:
        at_most = "" if campaign.cohort.healthy == "all" else "at most "
        yield f"They are held out in {at_most}{used} of {folds} folds, and all who may train do so in the others."
