"""A policy in sentences, for whoever has to sign for it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from fedage.client.consent.policy.types import ALL_KINDS, WEEKDAYS, DataSet, Hours, Policy

_KIND_WORDS = {
    "describe": "say how many patients it has",
    "train": "train models",
    "evaluate": "evaluate models",
    "analyse": "compute the sums of analyses",
}
_EXCEPTION_WORDS = {
    "single-site-models": "models trained at this site alone",
    "robust-median": "single model updates, for a robust median over sites",
}


def policy_text(policy: Policy) -> list[str]:
    """What the site allows, one sentence an item."""
    return [*_requests(policy), *_disclosure(policy), _hours(policy.hours), *_data_sets(policy.data_sets)]


def _requests(policy: Policy) -> Iterator[str]:
    requests = policy.requests
    if requests.coordinators:
        yield f"Only these coordinators may ask: {', '.join(f'{one[:16]}…' for one in requests.coordinators)}."
    else:
        yield "Only the coordinator pinned when the site was made may ask."
    allowed = [kind for kind in ALL_KINDS if kind in requests.kinds]
    sentence = f"For an approved campaign the site will {_and([_KIND_WORDS[kind] for kind in allowed])}"
    denied = [kind for kind in ALL_KINDS if kind not in requests.kinds]
    yield f"{sentence}; it will not {_or([_KIND_WORDS[kind] for kind in denied])}." if denied else f"{sentence}."
    if requests.estimators:
        yield f"It runs the estimators {_and(list(requests.estimators))} only."
    else:
        yield "It runs any installed estimator."
    if policy.approval.mode == "manual":
        yield "A person approves each campaign file."
    else:
        but = "" if policy.approval.bundles == "automatic" else ", but for those that validate a model made elsewhere"
        yield f"Every campaign file that this policy allows is approved without a person{but}."
    for exception in requests.exceptions:
        yield f"Although it is no sum over patients, this may leave: {_EXCEPTION_WORDS[exception]}."
    if not requests.exceptions:
        yield "Nothing leaves that is not a sum over patients or a model update."
    count = requests.runs_per_campaign
    yield (
        f"It answers {count} run{'' if count == 1 else 's'} of each campaign file, and one model a round of each; of "
        f"all files on one data set at most {requests.runs} runs."
    )
    yield (
        f"It approves at most {requests.campaigns} campaign files, over at most {requests.cohorts} different cohorts, "
        "refused ones counted."
    )
    if step := policy.disclosure.age_step_years:
        yield f"Age limits of cohorts are whole multiples of {step:g} years."


def _disclosure(policy: Policy) -> Iterator[str]:
    count = policy.disclosure.minimum_count
    if count > 1:
        yield f"A number with fewer than {count} patients behind it never leaves; a campaign may ask for more."
    else:
        yield "The site sets no minimum count: numbers about a single patient leave if a campaign asks for no minimum."
    share, ratio = policy.disclosure.largest_share, policy.disclosure.patients_per_column
    if count > 1 and share < 1:
        yield (
            f"A column is in no sum of products if fewer than {count} patients differ in it, or if one patient makes "
            f"up more than {100 * share:g} % of a sum; sites agree beforehand which columns those are."
        )
    elif count > 1:
        yield (
            f"A column is in no sum of products if fewer than {count} patients differ in it; one patient may make up "
            "nearly all of a sum."
        )
    if ratio > 0:
        yield f"Products of columns leave only with at least {ratio:g} patients for each column."
    else:
        yield (
            "Products of columns leave however few the patients are: those of fewer patients than columns may be "
            "solved for the patients."
        )
    if policy.disclosure.secure_aggregation == "required":
        yield "Campaigns must use secure aggregation, so that a coordinator does not see this site's own sums."
    else:
        yield "Campaigns may do without secure aggregation; the coordinator then sees this site's own sums."
    if policy.disclosure.may_be_left_out:
        yield (
            "With secure aggregation the other sites may go on without this one once it has left; its own sums then "
            "follow by subtraction."
        )
    else:
        yield (
            "With secure aggregation nothing is opened over the other sites alone once sums of the same kind were "
            "opened with this one: a campaign waits for it, or ends."
        )
    if policy.disclosure.tells_own_results:
        yield "It tells its own results beside hidden sums where a campaign asks for results by site."


def _hours(hours: Hours | None) -> str:
    if hours is None:
        return "Work may begin at any time."
    shown = [
        f"{day.capitalize()} {_and(list(hours.windows(number)))}"
        for number, day in enumerate(WEEKDAYS)
        if hours.windows(number)
    ]
    return (
        f"Work may begin only in these hours ({hours.time_zone}): {'; '.join(shown)}. "
        "What has begun is finished; a campaign may be offered at any time."
    )


def _data_sets(data_sets: dict[str, DataSet]) -> Iterator[str]:
    for name, data_set in data_sets.items():
        modality = f"{_or(list(data_set.modality))} images" if data_set.modality else "all images"
        makers = f" by {_or(list(data_set.manufacturer))}" if data_set.manufacturer else ""
        yield (
            f"Data set {name}: {modality}{makers} of patients aged {data_set.age_min_years:g} to "
            f"{data_set.age_max_years:g} years; {_budget(data_set)}."
        )
    for (first, one), (second, other) in combinations(data_sets.items(), 2):
        if one.epsilon is not None or other.epsilon is not None:
            yield (
                f"A patient may be in both {first} and {second}: ε is counted in each by itself, and such a patient's "
                "is what both together spend."
            )


def _budget(data_set: DataSet) -> str:
    if data_set.epsilon is None or data_set.delta is None:
        return (
            "no ε budget, so models may be trained on it without differential privacy, and records of the patients "
            "trained on can be worked out from the updates (an ε budget bounds that)"
        )
    return (
        f"models may be trained on it only with differential privacy, ε = {data_set.epsilon:g} at δ = "
        f"{data_set.delta:g} for all campaigns together; evaluation and analyses are outside of it"
    )


def _and(words: list[str]) -> str:
    return _joined(words, "and")


def _or(words: list[str]) -> str:
    return _joined(words, "or")


def _joined(words: list[str], last: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
