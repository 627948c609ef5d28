"""Whether a message may be answered: the one place where the policy's rules are applied, in their order.

| rule | refused when |
|---|---|
| `policy-unreadable` | `policy.toml` has mistakes or cannot be read: nothing is allowed then |
| `coordinator` | the signer's fingerprint is not among `requests.coordinators` |
| `message-kind` | the kind is not among `requests.kinds` (keys of secure aggregation: nothing but offers is) |
| `estimator` | the campaign's estimator is not among `requests.estimators` |
| `exception` | the campaign needs something that is no sum and that `requests.exceptions` does not grant |
| `secure-aggregation` | the site requires it and the campaign does not use it |
| `data-set` | no data set of the site, or more than one, fits what the campaign asks |
| `privacy-mode` | the data set has an ε budget and the campaign trains on it without per-patient privacy |
| `hours` | work (anything but a describe or the opening of a sum) would begin outside `[hours]` |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fedage.client.consent.policy.hours import is_open
from fedage.client.consent.policy.types import DataSet, ExceptionName, KindName, Policy
from fedage.common.campaign import Campaign
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, SECURE, TRAIN

KINDS: dict[str, KindName] = {DESCRIBE: "describe", TRAIN: "train", EVALUATE: "evaluate", ANALYSE: "analyse"}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a message before anything is computed.

    Parameters
    ----------
    kind
        The protocol's message kind.
    coordinator
        SHA-256 of the public key that signed it, hexadecimal; None in a simulation.
    at
        Now, with a zone.
    estimator
        The campaign's; None for one without.
    modality
        Modalities the campaign reads, its own or its estimator's.
    trains, private
        Whether the campaign trains a model, and with privacy for every patient (`[privacy] mode = "sample"`).
    secure_aggregation
        Whether it hides a site's sums.
    minimum_count, largest_share, patients_per_column
        Its own.
    exceptions
        What it needs that is no sum.
    data_set
        The data set the administrator chose at approval; None if the campaign's modality tells.
    age_limits_years
        Youngest and oldest age of its cohort.
    """

    kind: str
    coordinator: str | None
    at: datetime
    estimator: str | None
    modality: tuple[str, ...]
    trains: bool
    private: bool
    secure_aggregation: bool
    minimum_count: int
    largest_share: float
    patients_per_column: float
    exceptions: tuple[ExceptionName, ...]
    data_set: str | None
    age_limits_years: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """A message may be answered, on these terms.

    Parameters
    ----------
    data_set_name, data_set
        Whose patients, and its filters and budget.
    minimum_count, patients_per_column
        The larger of the site's and the campaign's.
    largest_share
        The smaller of the site's and the campaign's.
    """

    data_set_name: str
    data_set: DataSet
    minimum_count: int
    largest_share: float
    patients_per_column: float


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A message is not answered. Both sides are told the rule and the sentence, which holds nothing of a patient."""

    rule: str
    sentence: str


def facts_of(
    campaign: Campaign,
    *,
    kind: str,
    coordinator: str | None,
    at: datetime,
    modality: tuple[str, ...] = (),
    exceptions: tuple[ExceptionName, ...] = (),
    data_set: str | None = None,
) -> Facts:
    """The facts of a message of an approved (or offered) campaign. `modality` is the estimator's own."""
    return Facts(
        kind=kind,
        coordinator=coordinator,
        at=at,
        estimator=campaign.estimator.name if campaign.estimator else None,
        modality=campaign.cohort.modality or modality,
        trains=campaign.estimator is not None and not campaign.validates,
        private=campaign.privacy.mode == "sample",
        secure_aggregation=campaign.privacy.secure_aggregation,
        minimum_count=campaign.privacy.minimum_count,
        largest_share=campaign.privacy.largest_share,
        patients_per_column=campaign.privacy.patients_per_column,
        exceptions=exceptions,
        data_set=data_set,
        age_limits_years=(campaign.cohort.age_min_years, campaign.cohort.age_max_years),
    )


def decide(policy: Policy, facts: Facts) -> Allowed | Refused:
    """Apply the policy. The first rule that refuses is the one named."""
    requests, kind = policy.requests, KINDS.get(facts.kind)
    if requests.coordinators and facts.coordinator not in requests.coordinators:
        return _no("coordinator", "this site's policy does not list the coordinator whose key signed the message")
    answers_sums = bool(set(requests.kinds) - {"describe"})
    if not answers_sums if facts.kind == SECURE else kind not in requests.kinds:
        return _no("message-kind", f"this site answers {_list(requests.kinds)} messages only")
    if facts.estimator is not None and requests.estimators and facts.estimator not in requests.estimators:
        return _no("estimator", f"this site allows the estimators {_list(requests.estimators)}")
    missing = sorted(set(facts.exceptions) - set(requests.exceptions))
    if missing:
        return _no("exception", f"this site does not let out what is no sum: {_list(missing)}")
    if policy.disclosure.secure_aggregation == "required" and not facts.secure_aggregation:
        return _no("secure-aggregation", "this site answers only campaigns with privacy.secure_aggregation = true")
    step = policy.disclosure.age_step_years
    if step and any(limit % step for limit in facts.age_limits_years):
        return _no(
            "age-limits",
            f"this site takes cohort.age_min_years and age_max_years in whole multiples of {step:g} years only",
        )
    chosen = _data_set(policy, facts)
    if isinstance(chosen, Refused):
        return chosen
    trains_here = facts.trains and "train" in requests.kinds
    if chosen.data_set.epsilon is not None and trains_here and not facts.private:
        return _no(
            "privacy-mode", 'the data set has an ε budget: this site trains on it only with privacy.mode = "sample"'
        )
    if kind not in (None, "describe") and policy.hours is not None and not is_open(policy.hours, facts.at):
        return _no("hours", f"outside this site's hours (time zone {policy.hours.time_zone}); send it again later")
    return chosen


def _data_set(policy: Policy, facts: Facts) -> Allowed | Refused:
    fitting = {name for name, data_set in policy.data_sets.items() if _fits(data_set, facts.modality)}
    if facts.data_set is not None:
        fitting &= {facts.data_set}
    if not fitting:
        return _no("data-set", "this site has no data set for what the campaign asks")
    if len(fitting) > 1:
        return _no("data-set", "more than one data set of this site fits; its administrator chooses one at approval")
    name = fitting.pop()
    return Allowed(
        data_set_name=name,
        data_set=policy.data_sets[name],
        minimum_count=max(policy.disclosure.minimum_count, facts.minimum_count),
        largest_share=min(policy.disclosure.largest_share, facts.largest_share),
        patients_per_column=max(policy.disclosure.patients_per_column, facts.patients_per_column),
    )


def _fits(data_set: DataSet, modality: tuple[str, ...]) -> bool:
    return not data_set.modality or not modality or bool(set(data_set.modality) & set(modality))


def _no(rule: str, sentence: str) -> Refused:
    return Refused(rule=rule, sentence=sentence)


def _list(words: Sequence[str]) -> str:
    return ", ".join(words)
