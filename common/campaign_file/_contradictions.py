"""What two keys of a campaign file say against each other. Each rule sees only values that are right by themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from fedage.common.campaign_file._private import privacy_contradictions
from fedage.common.campaign_file._sound import ValidValues
from fedage.common.campaign_file._sound import default_words as _default
from fedage.common.campaign_file._validating import bundle_alone, has_bundle, repeated, validating_sites
from fedage.common.toml.problems import Problem
from fedage.common.toml.words import show

FRACTIONS_TOLERANCE = 1e-9
STRATA_OF_POOLED_MODELS = ("healthy", "is_male")
"""Columns whose values are known before any patient is looked at."""
NOT_HELD_FIXED = ("gap_years", "raw_gap_years", "cole_gap_years", "predicted_years", "corrected_years")
"""What a comparison of gaps cannot adjust for."""


def contradictions(sound: ValidValues) -> Iterator[Problem]:
    """Every contradiction between the keys of a file."""
    for rule in _RULES:
        yield from rule(sound)


def _sites(sound: ValidValues) -> Iterator[Problem]:
    sites = sound["campaign.sites"]
    quorum = sound["training.quorum"] if sound.has("training") else None
    if not sites:
        return
    yield from repeated("campaign.sites", sites, "list every site once")
    validating = set((sound["validation.sites"] if sound.has("validation") else None) or ())
    listed = len({site for site in sites if site is not None} - validating)
    if quorum is not None and not sound.wrong("campaign.sites") and quorum > listed:
        train = " that train" if validating else ""
        yield Problem(
            "training.quorum",
            f"training.quorum = {quorum}{_default(sound, 'training.quorum')}: must be ≤ {listed}, the number of sites "
            f"in campaign.sites{train}; set training.quorum to at most {listed}, or list more sites",
        )


def _ages(sound: ValidValues) -> Iterator[Problem]:
    youngest, oldest = sound["cohort.age_min_years"], sound["cohort.age_max_years"]
    if youngest is not None and oldest is not None and youngest >= oldest:
        yield Problem(
            "cohort.age_min_years",
            f"cohort.age_min_years = {youngest:g}: must be < cohort.age_max_years = {oldest:g}"
            f"{_default(sound, 'cohort.age_max_years')}; swap or change one of them",
        )


def _validation(sound: ValidValues) -> Iterator[Problem]:
    if not sound.has("validation"):
        return
    has_fractions = sound.given("validation.fractions") or sound.wrong("validation.fractions")
    has_folds = sound.given("validation.folds") or sound.wrong("validation.folds")
    if has_fractions and has_folds:
        yield Problem(
            "validation", "[validation] has both fractions and folds: one of them is allowed; remove the other"
        )
    if not has_fractions and not has_folds and not sound.wrong("validation") and not has_bundle(sound):
        yield Problem(
            "validation",
            "[validation] has neither fractions nor folds: one of them is needed; add "
            "[validation.fractions] with train, validation and test, or leave [validation] out for 0.7, 0.15 and 0.15",
        )
    parts = [sound[f"validation.fractions.{part}"] for part in ("train", "validation", "test")]
    if any(part is None for part in parts):
        return
    total = math.fsum(parts)
    if abs(total - 1) > FRACTIONS_TOLERANCE:
        yield Problem(
            "validation.fractions",
            f"validation.fractions = {' + '.join(f'{part:g}' for part in parts)}: must sum to 1, not {total:.10g}; "
            "change train, validation or test",
        )
    for part, value in zip(("train", "validation", "test"), parts, strict=True):
        if value == 0 and sound.has("training"):
            purpose = {"train": "train on", "validation": "fit the bias line on", "test": "report on"}[part]
            yield Problem(
                f"validation.fractions.{part}",
                f"validation.fractions.{part} = 0: must be > 0 in a campaign with [training], else there is nobody to "
                f"{purpose}; set it to e.g. 0.15",
            )


def _folds(sound: ValidValues) -> Iterator[Problem]:
    if has_bundle(sound):
        return  # the line for all is the bundle's
    if sound["validation.folds"] is not None and sound.has("validation") and sound["bias.scope"] == "pooled":
        yield Problem(
            "bias.scope",
            'bias.scope = "pooled": not possible with validation.folds, where each fold is corrected by a line fitted '
            'without it at its own site; use bias.scope = "site", or [validation.fractions]',
        )


def _norms(sound: ValidValues) -> Iterator[Problem]:
    """A path is no shorter than one of its steps."""
    if not sound.has("training"):
        return
    step, path = sound["training.max_step_norm"], sound["training.max_path_norm"]
    if step is not None and path is not None and path < step:
        yield Problem(
            "training.max_path_norm",
            f"training.max_path_norm = {path:g}: must be ≥ training.max_step_norm = {step:g}, one of the steps it is "
            "the sum of; raise it, lower max_step_norm, or leave max_path_norm out",
        )


_OF_STRATEGY = {
    "local_norms": ("fedbn",),
    "proximal": ("fedprox",),
    "server_learning_rate": ("fedavgm", "fedadam"),
    "server_momentum": ("fedavgm",),
    "server_beta_1": ("fedadam",),
    "server_beta_2": ("fedadam",),
    "server_tau": ("fedadam",),
}


def _chosen_round(sound: ValidValues) -> Iterator[Problem]:
    """A round is chosen by patients who do not judge the model, and whose errors are told."""
    chosen = [key for key in ("patience_rounds", "keep") if sound[f"training.{key}"] not in (None, "last")]
    for key in chosen:
        named = f"training.{key} = {show(sound[f'training.{key}'])}"
        if sound["validation.folds"] is not None and not sound["validation.fractions"]:
            yield Problem(
                f"training.{key}",
                f"{named}: not possible with validation.folds, as those held out of a fold would choose the round "
                "of the model that they judge; use [validation.fractions], or leave it out",
            )
        if (mode := sound["privacy.mode"]) in ("sample", "client"):
            yield Problem(
                f"training.{key}",
                f'{named}: not possible with privacy.mode = "{mode}", in which a round\'s error has noise or is not '
                "told; leave it out",
            )


def _strategy(sound: ValidValues) -> Iterator[Problem]:
    """A key of one strategy has no effect in another."""
    strategy = sound["training.strategy"]
    for key, strategies in _OF_STRATEGY.items():
        if strategy is not None and sound.given(f"training.{key}") and strategy not in strategies:
            yield Problem(
                f"training.{key}",
                f"training.{key} = {show(sound[f'training.{key}'])}: has no effect with training.strategy = "
                f'"{strategy}"; leave it out, or use {" or ".join(strategies)}',
            )
    mode = sound["privacy.mode"]
    if strategy in _NOT_PRIVATE and (mode == "sample" or (mode == "client" and strategy == "scaffold")):
        yield Problem(
            "training.strategy",
            f'training.strategy = "{strategy}": not possible with privacy.mode = "{mode}", {_NOT_PRIVATE[strategy]}; '
            'use "fedavg"',
        )
    if strategy == "scaffold":
        yield from _control_variates(sound)
    elif strategy == "fedbn":
        yield from _norms_that_stay(sound)


_NOT_PRIVATE = {
    "fedprox": "whose updates have no such term",
    "scaffold": "as control variates made of updates with noise are noise, and those made without are not covered",
    "fedbn": "as no patient's gradient can be clipped alone where the batch normalises",
}


def _control_variates(sound: ValidValues) -> Iterator[Problem]:
    optimiser = sound["training.optimiser"]
    if optimiser is not None and optimiser != "sgd":
        yield Problem(
            "training.optimiser",
            f'training.optimiser = "{optimiser}"{_default(sound, "training.optimiser")}: must be "sgd" with '
            'training.strategy = "scaffold", whose control variates are mean gradients; plain steps are taken',
        )
    if sound["privacy.secure_aggregation"]:
        yield Problem(
            "training.strategy",
            'training.strategy = "scaffold": not possible with privacy.secure_aggregation, as control variates follow '
            'from each site\'s own update and its number of steps, which are hidden; use "fedprox"',
        )


def _norms_that_stay(sound: ValidValues) -> Iterator[Problem]:
    """A model without batch normalisation of its own predicts at no other site, unless that can compute its own."""
    if sound["training.keep"] == "best":
        yield Problem(
            "training.keep",
            'training.keep = "best": not possible with training.strategy = "fedbn", as each site has its own batch '
            "normalisation of its last round only; leave it out",
        )
    for key in ("sites", "final_model"):
        if sound[f"validation.{key}"] and sound["training.local_norms"] != "statistics":
            yield Problem(
                f"validation.{key}",
                f"validation.{key} = {show(sound[f'validation.{key}'])}: not possible with training.strategy = "
                '"fedbn": the model predicts only where it was trained (batch normalisation stays there); remove it, '
                'or add training.local_norms = "statistics"',
            )


def _survival_columns(sound: ValidValues) -> Iterator[Problem]:
    if not sound.has("survival"):
        return
    time, event = sound["survival.time"], sound["survival.event"]
    if time is not None and time == event:
        yield Problem(
            "survival.event",
            f"survival.event = {show(event)}: must not be the column of survival.time; name the column with 1 and 0",
        )
    strata = sound["survival.strata"] or ()
    yield from repeated("survival.strata", strata, "list every column once")
    names = []
    for position, model in enumerate(sound["survival.models"] or (), start=1):
        if model is None:
            continue
        key = f"survival.models[{position}]"
        names.append(model.get("name"))
        covariates = [column for column in model.get("covariates", ()) if column is not None]
        yield from repeated(f"{key}.covariates", covariates, "list every covariate once")
        for column in dict.fromkeys(covariates):
            if column in (time, event):
                role = "time" if column == time else "event"
                yield Problem(
                    f"{key}.covariates",
                    f"{key}.covariates = {show(covariates)}: must not contain {show(column)}, the column of "
                    f"survival.{role}; remove it",
                )
            if column in strata:
                yield Problem(
                    f"{key}.covariates",
                    f"{key}.covariates = {show(covariates)}: must not contain {show(column)}, which survival.strata "
                    "stratifies on; keep it in one place",
                )
    yield from repeated("survival.models", names, "give every model its own name", what="name")


def _survival_times(sound: ValidValues) -> Iterator[Problem]:
    if not sound.has("survival") or not sound.given("survival.table_times_years"):
        return
    key, times = "survival.table_times_years", sound["survival.table_times_years"]
    if None not in times and any(later <= earlier for earlier, later in pairwise(times)):
        yield Problem(key, f"{key} = {show(times)}: must increase; sort the times and remove repeated ones")
    if times and sound["survival.time_grid_years"] == 0:
        yield Problem(
            key,
            f"{key} = {show(times)}: not allowed with survival.time_grid_years = 0, which keeps exact times at the "
            "site; remove the times, or set survival.time_grid_years to e.g. 0.25",
        )


def _pooled_models(sound: ValidValues) -> Iterator[Problem]:
    """A Cox model with one baseline for all sites needs tables from the sites, of strata whose values are known."""
    if not sound.has("survival"):
        return
    times, strata = sound["survival.table_times_years"], sound["survival.strata"] or ()
    unknown = [column for column in strata if column is not None and column not in STRATA_OF_POOLED_MODELS]
    for position, model in enumerate(sound["survival.models"] or (), start=1):
        if model is None or model.get("by_site", True) is not False:
            continue
        key = f"survival.models[{position}].by_site"
        if times is not None and not times:
            yield Problem(
                key,
                f"{key} = false: needs survival.table_times_years, the times at which tables may leave a site, and "
                "it is empty; list times, e.g. [1, 2, 5], or set by_site = true",
            )
        if unknown:
            yield Problem(
                key,
                f"{key} = false: not possible with survival.strata = {show(strata)}, of which only "
                f"{' and '.join(STRATA_OF_POOLED_MODELS)} have values known beforehand; set by_site = true, or remove "
                f"{', '.join(unknown)}",
            )


def _sexes(sound: ValidValues) -> Iterator[Problem]:
    if not sound.has("table") or sound["table.female"] is None or sound["table.male"] != sound["table.female"]:
        return
    yield Problem(
        "table.female",
        f"table.female = {sound['table.female']:g}: must not be table.male{_default(sound, 'table.male')}; give the "
        "column's two codes",
    )


def _groups(sound: ValidValues) -> Iterator[Problem]:
    if not sound.has("groups"):
        return
    column, equals, reference = (sound[f"groups.{key}"] for key in ("column", "equals", "reference"))
    if equals is not None and equals == reference:
        yield Problem(
            "groups.reference",
            f"groups.reference = {reference:g}: must not be groups.equals, or there is one group only; give the value "
            "of the group to compare with",
        )
    covariates = [covariate for covariate in sound["groups.covariates"] or () if covariate is not None]
    yield from repeated("groups.covariates", covariates, "list every covariate once")
    for covariate in dict.fromkeys(covariates):
        if covariate == column or covariate in NOT_HELD_FIXED:
            why = "the column that tells the groups" if covariate == column else "which is the gap or a part of it"
            yield Problem(
                "groups.covariates",
                f"groups.covariates = {show(covariates)}: must not contain {show(covariate)}, {why}; remove it",
            )


def _healthy(sound: ValidValues) -> Iterator[Problem]:
    """Without an estimator the healthy matter to ages that the tables predict, and where an analysis names them."""
    if sound.has("estimator") or sound.wrong("table"):
        return
    predicted, train_on = sound["table.predicted"] is not None, sound["cohort.train_on"]
    if train_on == "healthy" and not predicted:
        yield Problem(
            "cohort.train_on",
            'cohort.train_on = "healthy": must be "all" in a campaign without [estimator] and without table.predicted, '
            "where no model is trained and no predicted age is judged; remove it, or name the column of predicted ages "
            "in table.predicted",
        )
    elif sound.given("cohort.healthy") and sound["cohort.healthy"] != "all" and train_on == "all":
        if "healthy" in _named_columns(sound) or sound.wrong("survival") or sound.wrong("groups"):
            return
        judged = 'set cohort.train_on = "healthy" to judge predicted ages on them, ' if predicted else ""
        yield Problem(
            "cohort.healthy",
            "[cohort.healthy] has no effect in this campaign: without [estimator] no bias line is fitted, and no "
            f'analysis names "healthy"; {judged}name "healthy" in [survival] or [groups], or remove [cohort.healthy]',
        )


def _named_columns(sound: ValidValues) -> set[Any]:
    """The columns that the file's analyses name."""
    named = {sound["survival.curves_by"], *(sound["survival.strata"] or ())} if sound.has("survival") else set()
    for model in (sound["survival.models"] or ()) if sound.has("survival") else ():
        named |= set((model or {}).get("covariates", ()))
    if sound.has("groups"):
        named |= {sound["groups.column"], *(sound["groups.covariates"] or ())}
    return named


_RULES: tuple[Callable[[ValidValues], Iterator[Problem]], ...] = (
    _sites,
    _ages,
    _validation,
    bundle_alone,
    validating_sites,
    _folds,
    _norms,
    _chosen_round,
    _strategy,
    privacy_contradictions,
    _survival_columns,
    _survival_times,
    _pooled_models,
    _sexes,
    _groups,
    _healthy,
)
