"""Which patient is trained on, validated on and reported on: columns of the cohort, from its keyed place in [0, 1).

With `validation.fractions` a patient has one part for good. With `validation.folds` every patient is held out of one of
the k models, `fold` says which; what is reported is computed on everybody, from the model each was held out of. A site
with few patients holds them out of some of the models only (`dealing`), and all of them train the others.

Some sums are over a part's healthy patients and some over the whole part. Where fewer than the minimum count are not
healthy, the difference would be about those few: they are in no sum at all, and `set_aside` says who they are. The same
holds for the few who lack a value that one analysis of the file needs and another does not (`same_patients`).
"""

from __future__ import annotations

import numpy as np

from fedage.client.cohort.selection.fold_assignment import (
    FEWEST_FOLDS,
    NO_FOLD,
    assign_folds,
    split_uniform_by_fold,
    used_folds,
)
from fedage.client.cohort.selection.split import split
from fedage.common.analyses.preparation.table_preparation import INNER_PLACE
from fedage.common.analyses.same_patients import few_apart, sets_summed
from fedage.common.campaign import Campaign
from fedage.common.campaign.types import Fractions
from fedage.common.protocol.messages import RequestRefused
from fedage.common.statistics.cohort import INCOMPLETE, SET_ASIDE, Cohort
from fedage.common.statistics.statistic import FloatArray

PARTS = ("train", "validation", "test")
_GOLDEN = 0x9E3779B97F4A7C15


def with_parts(cohort: Cohort, split_uniform: FloatArray, campaign: Campaign) -> Cohort:
    """The cohort with `healthy`, `fold` and the parts of a campaign without folds (or of all its folds together)."""
    cohort = cohort.with_columns(healthy=_healthy(cohort, campaign))
    validation = campaign.validation
    minimum_count = campaign.cell_minimum
    nobody, everybody = np.zeros(cohort.n, dtype=bool), np.ones(cohort.n, dtype=bool)
    if campaign.estimator is None:
        few_not_healthy = nobody
        if campaign.cohort.train_on == "healthy":
            few_not_healthy = _few_who_are_not_healthy(everybody, cohort, minimum_count=minimum_count)
        few_incomplete = _few_incomplete(cohort.with_columns(is_test=1.0 - few_not_healthy), campaign)
        inside = (~few_not_healthy & ~few_incomplete).astype(np.float64)
        return cohort.with_columns(
            is_train=np.zeros(cohort.n),
            is_validation=inside,
            is_test=inside,
            **_set_aside_columns(few_not_healthy, few_incomplete),
        )
    if validation.folds is not None:
        few_not_healthy = _few_who_are_not_healthy(everybody, cohort, minimum_count=minimum_count)
        few_incomplete = _few_incomplete(cohort.with_columns(is_test=1.0 - few_not_healthy), campaign)
        fold = assign_folds(
            split_uniform,
            cohort["healthy"],
            folds=validation.folds,
            minimum_count=minimum_count,
            seed=campaign.campaign.seed,
            in_no_fold=few_not_healthy | few_incomplete,
            trains=_may_train(cohort, campaign),
        )
        columns = {
            "fold": fold,
            **_set_aside_columns(few_not_healthy, few_incomplete),
            INNER_PLACE: _derived_uniform(split_uniform, 0),
        }
        return parts_for_all_folds(cohort.with_columns(**columns), campaign)
    train, held_out, test = split(
        split_uniform, validation.fractions or Fractions(train=0.7, validation=0.15, test=0.15)
    )
    if campaign.validates:  # nobody is trained on, so they are reported on
        train, test = nobody, train | test
    may_train = _may_train(cohort, campaign)
    few_not_healthy = nobody.copy()
    for part in (held_out, test):
        few_not_healthy |= _few_who_are_not_healthy(part, cohort, minimum_count=minimum_count)
    cohort = cohort.with_columns(
        is_train=(train & may_train).astype(np.float64),
        is_validation=(held_out & ~few_not_healthy).astype(np.float64),
        is_test=(test & ~few_not_healthy).astype(np.float64),
        **{INNER_PLACE: _derived_uniform(split_uniform, 0)},
    )
    few_incomplete = _few_incomplete(cohort, campaign)
    places = {name: np.where(few_incomplete, 0.0, cohort[name]) for name in ("is_train", "is_validation", "is_test")}
    return cohort.with_columns(**places, **_set_aside_columns(few_not_healthy, few_incomplete))


def parts_for_fold(cohort: Cohort, campaign: Campaign, fold: int) -> Cohort:
    """The parts while the model of one fold is made: trained without that fold, validated on it.

    Attack: the final model, made on everybody, is held against the folds' models. Rule: it is made of the same patients
    as the folds' models together, and its inner folds are the folds, so that each of its sums is one of theirs, or
    what theirs give by adding and subtracting: whole folds, of the minimum count at least.
    """
    if campaign.validation.folds is None:
        return cohort
    is_final = fold == campaign.final_fold
    out = held_out(cohort, campaign, fold)
    by_fold = is_final or held_out_in(cohort, campaign) < campaign.validation.folds
    inner = split_uniform_by_fold(cohort["fold"]) if by_fold else _derived_uniform(cohort[INNER_PLACE], fold + 1)
    trains = ~out & _may_train(cohort, campaign) & (cohort["fold"] != NO_FOLD) & (not campaign.validates)
    return cohort.with_columns(
        is_train=trains.astype(np.float64),
        is_validation=out.astype(np.float64),
        is_test=out.astype(np.float64),
        **{INNER_PLACE: inner},
    )


def parts_for_all_folds(cohort: Cohort, campaign: Campaign) -> Cohort:
    """The parts once every fold has a model: everybody has been held out once."""
    if campaign.validation.folds is None:
        return cohort
    everybody = (cohort["fold"] != NO_FOLD).astype(np.float64)
    return cohort.with_columns(is_train=np.zeros(cohort.n), is_validation=everybody, is_test=everybody)


def count_set_aside(cohort: Cohort) -> dict[str, int]:
    """How many patients are in no sum, by reason: the few of a part who are not healthy, or who lack a value."""
    not_healthy, incomplete = (cohort.columns.get(name, np.zeros(cohort.n)) == 1 for name in (SET_ASIDE, INCOMPLETE))
    return {
        "too-few-not-healthy": int(np.count_nonzero(not_healthy)),
        "too-few-incomplete": int(np.count_nonzero(incomplete & ~not_healthy)),
    }


def held_out(cohort: Cohort, campaign: Campaign, fold: int) -> np.ndarray:
    """Whom a model (of a fold) may be judged by: everybody it was not, or could not be, trained on, (n,) bool."""
    if campaign.validation.folds is None:
        return np.asarray(cohort["is_train"] != 1)
    if fold == campaign.final_fold:
        return np.asarray((cohort["fold"] != NO_FOLD) & campaign.validates)
    return np.asarray(cohort["fold"] == fold)


def check_fold(campaign: Campaign, fold: int, *, all_folds_allowed: bool) -> None:
    """Refuse a fold that the campaign file does not have, or has for sites of the other role.

    Raises
    ------
    RequestRefused
        Rule `fold`.
    """
    count, final = campaign.validation.folds if campaign.estimator else None, campaign.final_fold
    allowed = {0} if count is None else {*range(count), *({count} if all_folds_allowed else ())}
    if final is not None and count is not None:
        # Whoever only validates judges the final model where there is one, and no other: one model, one question.
        allowed = {final, *(allowed - {*range(count)} if campaign.validates else allowed)}
    if fold not in allowed:
        folds = f"0 to {max(allowed)}" if final is None else ", ".join(map(str, sorted(allowed)))
        raise RequestRefused("fold", f"this request may be for the folds {folds} only")


def held_out_in(cohort: Cohort, campaign: Campaign) -> int:
    """In how many folds the site holds patients out; 0 in a campaign without folds."""
    return used_folds(cohort["fold"]).size if campaign.validation.folds and campaign.estimator else 0


def why_no_training(cohort: Cohort, campaign: Campaign, *, minimum_count: int) -> str:
    """Why the site's patients train none of a campaign's models, because they are too few for folds; else empty."""
    if not held_out_in(cohort, campaign):
        return ""
    counts = [held_out_of_training(cohort, campaign, int(fold)) for fold in used_folds(cohort["fold"])]
    if min((count for count in counts if count), default=minimum_count) >= minimum_count:
        return ""
    return (
        f"fewer than {FEWEST_FOLDS} × {minimum_count} patients who may train: a site that trains holds out at least "
        f"{minimum_count} of them in {FEWEST_FOLDS} folds or more"
    )


def held_out_of_training(cohort: Cohort, campaign: Campaign, fold: int) -> int:
    """How many patients a fold's training leaves out who train the other folds' models: theirs by subtraction."""
    if campaign.validation.folds is None:
        return 0
    return int(np.count_nonzero((cohort["fold"] == fold) & _may_train(cohort, campaign)))


def part_sizes(cohort: Cohort, campaign: Campaign) -> dict[str, int]:
    """How many patients each part, or each fold, has; of those trained on and of folds only who may be trained on."""
    if campaign.estimator is None:
        return {"test": int(cohort["is_test"].sum())}
    if campaign.validation.folds is not None:
        # The rounds' validation tells how many of a fold are trained on elsewhere; the others of it may be few.
        may_train = _may_train(cohort, campaign)
        folds = range(campaign.validation.folds)
        return {f"fold {fold + 1}": int(np.count_nonzero((cohort["fold"] == fold) & may_train)) for fold in folds}
    return {part: int(cohort[f"is_{part}"].sum()) for part in PARTS}


def _set_aside_columns(few: np.ndarray, lacking: np.ndarray) -> dict[str, FloatArray]:
    """Columns (n,) that say who is in no sum, and why."""
    return {SET_ASIDE: few.astype(np.float64), INCOMPLETE: lacking.astype(np.float64)}


def _few_incomplete(cohort: Cohort, campaign: Campaign) -> np.ndarray:
    """Whom (n,) sums of some analyses would tell apart from sums of others; nobody of those set aside before.

    Those who are ill in other parts are compared with the test patients' reference, so they may be among them.
    """
    if campaign.cell_minimum == 1:
        return np.zeros(cohort.n, dtype=bool)
    return few_apart(sets_summed(campaign, cohort), minimum=campaign.cell_minimum)


def _derived_uniform(split_uniform: FloatArray, number: int) -> FloatArray:
    """Places (n,) in [0, 1) from other places, as good as independent of them: the finaliser of SplitMix64."""
    bits = np.ascontiguousarray(split_uniform, dtype=np.float64).view(np.uint64) + np.uint64(
        (number + 1) * _GOLDEN % 2**64
    )
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    derived: FloatArray = ((bits ^ (bits >> np.uint64(31))) >> np.uint64(11)) / 2.0**53
    return derived


def _few_who_are_not_healthy(part: np.ndarray, cohort: Cohort, *, minimum_count: int) -> np.ndarray:
    """Whom of a part (n,) sums over the healthy would tell apart from sums over all; nobody if they are enough."""
    others = np.asarray(part & (cohort["healthy"] != 1))
    return others if np.count_nonzero(others) < minimum_count else np.zeros(cohort.n, dtype=bool)


def _may_train(cohort: Cohort, campaign: Campaign) -> np.ndarray:
    """Mask (n,) of the patients who may be trained on."""
    if campaign.cohort.train_on == "healthy":
        return np.asarray(cohort["healthy"] == 1)
    return np.ones(cohort.n, dtype=bool)


def _healthy(cohort: Cohort, campaign: Campaign) -> FloatArray:
    """1 for who counts as healthy, 0 for the others and for those of whom it is not known."""
    healthy = campaign.cohort.healthy
    if healthy == "all":
        return np.ones(cohort.n)
    values = cohort.columns.get(healthy.column, np.full(cohort.n, np.nan))
    return np.asarray(values == healthy.equals, dtype=np.float64)
