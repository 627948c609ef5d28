"""Columns held against all that ever left: as strict as within one file, and no unrelated column counts by chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedage.common.statistics._recent import Recent
from fedage.common.statistics.influence_beside import nearly_repeats
from fedage.common.statistics.influence_earlier import differs_for_few, near_pairs, nearly_repeats_earlier
from fedage.common.statistics.influence_few import centred_at_mean, few_make_up
from fedage.common.statistics.statistic import FloatArray

MINIMUM = 10
Made = Callable[[np.random.Generator, int], FloatArray]
COLUMNS: dict[str, Made] = {
    "normal": lambda rng, n: rng.normal(50, 10, n),
    "whole numbers": lambda rng, n: rng.integers(0, 6, n).astype(float),
    "mostly zero": lambda rng, n: np.where(rng.random(n) < 0.85, 0.0, rng.exponential(3, n)),
    "mostly zero, else whole": lambda rng, n: np.where(rng.random(n) < 0.8, 0.0, rng.integers(1, 4, n)),
    "two values": lambda rng, n: (rng.random(n) < 0.4).astype(float),
    "a rare value": lambda rng, n: (rng.permutation(n) < 12).astype(float),
    "skewed": lambda rng, n: rng.lognormal(0, 2, n),
    "times cut off": lambda rng, n: np.minimum(rng.exponential(6, n), rng.uniform(0.5, 10, n).round(1)),
}


def second(rng: np.random.Generator, column: FloatArray, *, differ: int, slope: float, noise: float) -> FloatArray:
    sd = column.std()
    values = slope * column + noise * sd * rng.normal(size=column.size)
    values[rng.choice(column.size, differ, replace=False)] += 3 * abs(slope) * sd * rng.uniform(0.5, 2, differ)
    return values


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("n", [60, 150, 400])
def test_the_quick_look_misses_none_of_the_pairs_that_count_within_a_file(name: str, n: int) -> None:
    found = 0
    for differ in (1, 3, 7, MINIMUM, 15):
        for slope, noise in ((1.0, 0.0), (-2.5, 0.0), (1.0, 1e-4)):
            rng = np.random.default_rng(differ)
            a = COLUMNS[name](rng, n)
            b = second(rng, a, differ=differ, slope=slope, noise=noise)
            alone = few_make_up(centred_at_mean(np.column_stack([a, b])), minimum_count=MINIMUM)
            if alone.any() and (noise or differ >= MINIMUM):
                continue  # made up by few whatever it is held against: such a column is judged by itself
            within = nearly_repeats(b[:, None], a[:, None], minimum_count=MINIMUM)
            assert nearly_repeats_earlier(b[:, None], a[:, None], minimum_count=MINIMUM) == within
            found += int(within[0])
    assert found >= 6  # those of one, three and seven patients, with noise or without


@pytest.mark.parametrize("n", [12, 16, 20, 24, 30, 60])
@pytest.mark.parametrize("one", COLUMNS)
def test_unrelated_columns_of_few_patients_hardly_ever_count(n: int, one: str) -> None:
    times = 30
    for other in ("normal", "two values", "whole numbers", "mostly zero, else whole"):
        counted = 0
        for seed in range(times):
            rng = np.random.default_rng(seed)
            counted += differs_for_few(COLUMNS[one](rng, n), COLUMNS[other](rng, n), minimum_count=MINIMUM)
        assert counted <= 0.1 * times, other


@pytest.mark.parametrize("n", [20, 24, 30])
@pytest.mark.parametrize("differ", [1, 2])
@pytest.mark.parametrize("name", ["normal", "skewed", "half"])
def test_one_and_two_of_few_patients_are_found(n: int, differ: int, name: str) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        if name == "half":
            a = (rng.permutation(n) < n // 2).astype(float)
            b = np.where(np.arange(n) < differ, 1 - a, a)
        else:
            a = COLUMNS[name](rng, n)
            b = second(rng, a, differ=differ, slope=1.0, noise=0.0)
        assert differs_for_few(b, a, minimum_count=MINIMUM)


@pytest.mark.parametrize("missing", ["of the first", "of the second", "of both"])
def test_only_patients_of_whom_both_are_known_are_compared(missing: str) -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(0, 1, 200)
    b = np.where(np.arange(200) == 150, a + 1, a)
    gone = np.arange(200) < 40
    a = np.where(gone & (missing != "of the second"), np.nan, a)
    b = np.where((gone if missing == "of the second" else np.roll(gone, 20)) & (missing != "of the first"), np.nan, b)
    assert nearly_repeats_earlier(b[:, None], a[:, None], minimum_count=MINIMUM).tolist() == [True]
    b[150] = np.nan
    # Where nobody else misses the later one alone, that one patient does: a mean stands in for the value.
    found = nearly_repeats_earlier(b[:, None], a[:, None], minimum_count=MINIMUM).tolist()
    assert found == [missing == "of the first"]
    a[150] = np.nan
    assert nearly_repeats_earlier(b[:, None], a[:, None], minimum_count=MINIMUM).tolist() == [False]


def test_a_large_table_is_compared_with_itself_and_one_changed_value_found() -> None:
    rng = np.random.default_rng(2)
    before = rng.normal(size=(400, 1)) + rng.normal(size=(400, 300))
    before[:, 200:] = before[:, 200:] > 1
    after = before.copy()
    after[7, [3, 150]] += 1
    after[7, 250] = 1 - after[7, 250]
    found = nearly_repeats_earlier(after, before, minimum_count=MINIMUM)
    assert np.flatnonzero(found).tolist() == [3, 150, 250]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("minimum_count", [1, 2, 3])
@pytest.mark.parametrize("columns", [0, 1, 2])
def test_parts_of_two_patients_are_compared_too(n: int, minimum_count: int, columns: int) -> None:
    """A minimum count of 2 lets them be one; of two patients there are no three on a line."""
    x, y = np.arange(n * columns, dtype=np.float64).reshape(n, columns), np.arange(n, dtype=np.float64)[:, None] ** 2
    assert near_pairs(x, y, minimum_count=minimum_count).shape[1] == 2
    assert nearly_repeats_earlier(x, y, minimum_count=minimum_count).shape == (columns,)


@pytest.mark.parametrize(
    ("change", "minimum_count", "expected"),
    [
        (lambda y: y, MINIMUM, True),
        (lambda y: y, 3, False),  # five patients are not a few then
        (lambda y: -y, MINIMUM, True),
        (lambda y: np.arange(y.size) * 1.0, MINIMUM, False),  # equal
        (lambda y: np.concatenate([[np.nan], y[1:]]), MINIMUM, True),
        (lambda y: np.where(np.arange(y.size) < 5, np.inf, y), MINIMUM, True),  # missing in the other sum
        (lambda y: np.where(np.arange(y.size) < 5, np.nan, y), MINIMUM, False),  # in no other sum
    ],
)
def test_what_was_found_of_other_columns_or_another_minimum_is_not_the_answer(
    change: Callable[[FloatArray], FloatArray], minimum_count: int, expected: bool
) -> None:
    x = np.arange(200.0)
    y = x + np.where(x < 5, 37.0 + x**2, 0.0)
    assert differs_for_few(x, change(y), minimum_count=minimum_count) is expected
    assert differs_for_few(x, change(y), minimum_count=minimum_count) is expected


def test_answers_are_kept_for_so_many_pairs_only() -> None:
    answers, computed = Recent[int](most=5), list[int]()
    for number in (*range(8), 3, 7, 0):
        answers.of(str(number).encode(), lambda number=number: computed.append(number) or number)
    assert computed == [*range(8), 0]
