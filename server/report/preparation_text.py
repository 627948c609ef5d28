"""How a model on tables was made, from what its preparation recorded, in sentences."""

from __future__ import annotations

from fedage.common.presentation.wording import listed
from fedage.server.record.results import Preparation, Results

_NAMED = 12
"""Unused features named in a sentence; the record has them all."""
_PENALTY_FROM = {
    "campaign": "as the campaign file gives it",
    "inner-folds": "by cross-validation over inner folds of the training patients, from sums too",
    "too-few-patients": "the number of features, because inner folds for cross-validation would be too small",
}


def sentences(results: Results) -> list[str]:
    """What the sites' sums gave the model; nothing for a model that needs no preparation."""
    prepared = results.preparation
    if not prepared:
        return []
    exact = results.solved_exactly
    return [
        *_solution(results),
        *_penalty(prepared),
        _medians(prepared),
        *_means_that_stand_in(prepared, exact=exact),
        _unused(prepared),
        *_withheld(prepared),
    ]


def unused_anywhere(prepared: tuple[Preparation, ...]) -> list[str]:
    """The features that are not used in some fold, in the table's order."""
    return list(dict.fromkeys(name for item in prepared for name in item.unused))


def _solution(results: Results) -> list[str]:
    if not results.solved_exactly:
        starts = any(item.penalty is not None for item in results.preparation)
        return (
            ["Training starts from a ridge regression that is solved exactly from the sites' sums."] if starts else []
        )
    each = ", once for each fold" if len(results.preparation) > 1 else ""
    but = ", but for the means that stand in," if any(item.stood_in for item in results.preparation) else ""
    return [
        f"The model is solved exactly from the sites' sums of products{each}, not trained in rounds: with these "
        f"medians and this penalty{but} it is the model that the pooled patients would give."
    ]


def _penalty(prepared: tuple[Preparation, ...]) -> list[str]:
    known = [item for item in prepared if item.penalty is not None]
    if not known:
        return []
    values = [f"{item.penalty:g}" for item in known]
    shown = values[0] if len(set(values)) == 1 else f"{', '.join(values)} by fold"
    sources = list(dict.fromkeys(_PENALTY_FROM.get(item.penalty_from, item.penalty_from) for item in known))
    return [f"The penalty λ of the ridge regression is {shown}: {listed(sources)}."]


def _medians(prepared: tuple[Preparation, ...]) -> str:
    said = (
        "Missing values are replaced by medians of all sites, which come from counts of patients in groups of values, "
        "so that each is only known to lie in an interval"
    )
    errors = [item.median_error_in_sd for item in prepared if len(item.median_error_in_sd) == 2]
    largest, middle = (max((pair[k] or 0.0 for pair in errors), default=None) for k in (0, 1))
    if largest is None or middle is None:
        return f"{said}."
    return (
        f"{said}: ±{largest:.2g} standard deviations of the feature at most, and ±{middle:.2g} or less for half of the "
        "features."
    )


def stand_ins(results: Results) -> list[str]:
    """What a reader of the terminal has to know too: where means stand in for medians."""
    if not results.preparation:
        return []
    return _means_that_stand_in(results.preparation, exact=results.solved_exactly)


def _means_that_stand_in(prepared: tuple[Preparation, ...], *, exact: bool) -> list[str]:
    """Where a site may not leave its missing values to the median of all, in the fold with most of it."""
    most = max(prepared, key=lambda item: item.stood_in)
    if not most.stood_in:
        return []
    one, up_to = most.stood_in == 1, "up to " if len(prepared) > 1 else ""
    sites = f" of {most.features} features at {len(most.sites)} sites" if most.features and most.sites else ""
    differs = ", and the model differs by that from the pooled one" if exact else ""
    return [
        f"Instead, a site's own mean of the feature stands in for its missing values in {up_to}{most.stood_in} "
        f"case{'' if one else 's'}{sites} (one feature at one site is a case): fewer patients than the minimum count "
        f"have the same values missing, so that they must not be told apart{differs}."
    ]


def _unused(prepared: tuple[Preparation, ...]) -> str:
    names, features = unused_anywhere(prepared), prepared[0].features
    if not names:
        return f"All {features} features are used." if features else "Every feature is used."
    shown = listed(names) if len(names) <= _NAMED else f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
    some = " in some folds" if any(set(item.unused) != set(names) for item in prepared) else ""
    of = f" of {features}" if features else ""
    alone = len(names) == 1
    return (
        f"{len(names)}{of} features {'is' if alone else 'are'} not used{some}: {shown}. Either all training patients "
        "have one value, or no site has enough patients with a value to tell its median."
    )


def _withheld(prepared: tuple[Preparation, ...]) -> list[str]:
    folds: dict[str, list[str]] = {}
    for item in prepared:
        for site in item.withheld:
            folds.setdefault(site, []).append("" if item.fold is None else str(item.fold))
    if not folds:
        return []
    columns = [
        site if times == [""] else f"{site} (fold{'' if len(times) == 1 else 's'} {', '.join(times)})"
        for site, times in folds.items()
    ]
    return [f"Not among those who made the model, because they withheld their sums: {listed(columns)}."]
