"""How many folds a site uses, and which: large ones all, small ones as many as hold out the minimum count."""

from __future__ import annotations

import numpy as np
import pytest

from fedage.client.cohort.selection.fold_assignment import (
    NO_FOLD,
    assign_folds,
    folds_for,
    round_robin_folds,
    split_uniform_by_fold,
    used_folds,
)
from fedage.common.statistics.statistic import FloatArray


def site(healthy: int, others: int = 0, *, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Places and who is healthy, in no order."""
    rng = np.random.default_rng(seed)
    told = rng.permutation(np.concatenate([np.ones(healthy), np.zeros(others)]))
    return rng.random(healthy + others), told


def deal_of(
    unit: FloatArray,
    healthy: FloatArray,
    *,
    folds: int = 5,
    minimum: int = 10,
    seed: int = 1,
    only_healthy: bool = False,
) -> FloatArray:
    nobody = np.zeros(unit.size, dtype=bool)
    trains = healthy == 1 if only_healthy else ~nobody
    return assign_folds(unit, healthy, folds=folds, minimum_count=minimum, seed=seed, in_no_fold=nobody, trains=trains)


@pytest.mark.parametrize(
    ("healthy", "others", "used"),
    [
        (24, 0, 2),
        (39, 0, 3),
        (49, 0, 4),
        (50, 0, 5),
        (1000, 0, 5),
        (20, 0, 2),
        (19, 0, 0),
        (0, 24, 2),
        (15, 15, 3),
        (12, 12, 2),
        (9, 9, 0),
        (5, 40, 4),
        (30, 12, 3),
        (0, 0, 0),
    ],
)
def test_how_many_folds_a_site_uses_at_a_minimum_of_ten(healthy: int, others: int, used: int) -> None:
    assert folds_for(healthy, others, folds=5, minimum_count=10) == used


@pytest.mark.parametrize("folds", [2, 3, 5, 10, 20])
@pytest.mark.parametrize("minimum", [1, 3, 10])
def test_a_large_site_is_dealt_as_ever(folds: int, minimum: int) -> None:
    for healthy, others in ((folds * minimum, 0), (folds * minimum + 3, 7), (7, folds * minimum), (400, 11)):
        unit, told = site(healthy, others, seed=folds)
        order = np.lexsort((unit, told != 1))
        before = np.empty(unit.size)
        before[order] = np.arange(unit.size) % folds
        assert np.array_equal(deal_of(unit, told, folds=folds, minimum=minimum), before)


@pytest.mark.parametrize("only_healthy", [False, True])
@pytest.mark.parametrize(
    ("healthy", "others", "folds", "minimum"),
    [(24, 0, 5, 10), (24, 30, 5, 10), (49, 13, 5, 10), (20, 100, 10, 10), (31, 0, 20, 7), (9, 8, 6, 3), (37, 11, 8, 5)],
)
def test_each_fold_of_a_small_site_holds_out_the_minimum_or_nobody(
    healthy: int, others: int, folds: int, minimum: int, only_healthy: bool
) -> None:
    for seed in range(20):
        unit, told = site(healthy, others, seed=seed)
        fold = deal_of(unit, told, folds=folds, minimum=minimum, seed=seed, only_healthy=only_healthy)
        used = used_folds(fold)
        assert set(used.tolist()) <= set(range(folds))
        trains = told == 1 if only_healthy else np.ones(told.size, dtype=bool)
        if np.count_nonzero(trains) >= folds * minimum:
            assert used.size == folds
            continue
        assert used.size >= 2
        for number in used:
            inside = fold == number
            assert np.count_nonzero(inside & trains) >= minimum
            for group in (told == 1, told != 1):
                assert (count := int(np.count_nonzero(inside & group))) == 0 or count >= minimum


def test_the_healthy_and_the_others_are_mixed_where_only_both_are_enough_for_two_folds() -> None:
    unit, told = site(15, 15)
    fold = deal_of(unit, told)
    assert [int(np.count_nonzero(fold == number)) for number in used_folds(fold)] == [10, 10, 10]
    assert [int(np.count_nonzero((fold == number) & (told == 1))) for number in used_folds(fold)] == [5, 5, 5]
    assert used_folds(deal_of(unit, told, only_healthy=True)).size == 5, "no two folds of healthy ones: as before"


def test_those_in_no_fold_are_not_counted_and_take_no_place() -> None:
    unit, told = site(24, 9)
    few = told != 1
    fold = assign_folds(unit, told, folds=5, minimum_count=10, seed=1, in_no_fold=few, trains=np.ones(33, dtype=bool))
    assert np.all(fold[few] == NO_FOLD)
    assert [int(np.count_nonzero(fold == number)) for number in used_folds(fold)] == [12, 12]
    unit, told = site(46, 5)  # 51 would be enough for five folds
    fold = assign_folds(
        unit, told, folds=5, minimum_count=10, seed=1, in_no_fold=told != 1, trains=np.ones(51, dtype=bool)
    )
    assert [int(np.count_nonzero(fold == number)) for number in used_folds(fold)] == [12, 12, 11, 11]


def test_a_site_that_is_too_small_for_two_folds_is_dealt_as_ever() -> None:
    for healthy, others in ((19, 0), (9, 10), (3, 0), (1, 0), (0, 0)):
        unit, told = site(healthy, others)
        assert np.array_equal(deal_of(unit, told), round_robin_folds(unit, told, 5))


def test_small_sites_do_not_all_use_the_same_folds_and_stay_with_their_own() -> None:
    times, kept = np.zeros(5), []
    for seed in range(400):
        unit, told = site(24, seed=seed)
        fold = deal_of(unit, told)
        times[used_folds(fold)] += 1
        kept.append(fold)
        order = np.random.default_rng(seed).permutation(unit.size)
        assert np.array_equal(deal_of(unit[order], told[order]), fold[order]), "whatever the order of the rows"
    assert times.sum() == 800
    # 400 sites draw 2 of 5: each fold is used by 160, SD √(400 · 0.4 · 0.6) = 9.8.
    assert np.all(np.abs(times - 160) < 40), times
    again = [deal_of(*site(24, seed=seed)) for seed in range(400)]
    assert all(np.array_equal(one, other) for one, other in zip(kept, again, strict=True))
    others = [deal_of(*site(24, seed=seed), seed=2) for seed in range(400)]
    assert 20 < sum(np.array_equal(one, other) for one, other in zip(kept, others, strict=True)) < 80, "one in ten"


def test_the_draw_is_what_it_was_in_earlier_releases() -> None:
    """A campaign that is running must not deal its patients anew after an update."""
    fold = deal_of(np.arange(24) / 24, np.ones(24))
    assert (used_folds(fold).tolist(), fold[:4].tolist()) == ([1, 2], [1, 2, 1, 2])


def test_places_by_fold_keep_a_fold_together_and_folds_apart() -> None:
    fold = np.array([3.0, 1.0, 3.0, 7.0, NO_FOLD, 1.0])
    place = split_uniform_by_fold(fold)
    assert np.all((place >= 0) & (place < 1))
    assert [place[1], place[0], place[3]] == sorted({place[1], place[0], place[3]})
    assert (place[0], place[1]) == (place[2], place[5])
    for inner in (3, 5, 20):
        numbers = np.minimum((place * inner).astype(int), inner - 1)
        assert len({int(numbers[row]) for row in (0, 1, 3)}) == 3
    assert split_uniform_by_fold(np.full(3, NO_FOLD)).size == 3
