"""The influence rule by itself, against figures worked out by hand and slow sums."""

from __future__ import annotations

import numpy as np
import pytest

from fedage.common.analyses.survival._cox_contributions import contributions_at
from fedage.common.analyses.survival._partial_likelihood import of_strata
from fedage.common.statistics.influence import (
    Group,
    InfluenceRefused,
    InfluenceRule,
    differing,
    largest_shares,
    passing,
    require_sums,
)
from fedage.common.statistics.influence_few import few_make_up_pairs

RULE = InfluenceRule(minimum_count=3, largest_share=0.5, patients_per_column=2.0)


def group(*columns: list[float], always: list[float] | None = None, **more) -> Group:
    x = np.array(columns, dtype=np.float64).T
    fixed = np.empty((len(x), 0)) if always is None else np.array(always, dtype=np.float64)[:, None]
    return Group(of="the patients", columns=x, always=fixed, names_always=("age",) * fixed.shape[1], **more)


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([0, 0, 0, 1], 1),
        ([0, 0, 1, 1], 2),
        ([5, 5, 5], 0),
        ([1, 2, 3], 3),
        ([1, 1, 2, np.nan], 1),
        ([np.nan, np.nan], 0),
        ([7], 1),
    ],
)
def test_who_differs_from_the_most_frequent_value(values, count):
    assert differing(np.array(values, dtype=np.float64)) == count


def test_shares_are_of_absolute_contributions():
    a, b = np.array([[1.0], [-1.0], [4.0]]), np.array([[1.0], [1.0], [-1.0]])
    # Signed, the sum is −4 and the third patient all of it; of absolute contributions she is 4 of 6.
    assert largest_shares(a, b, limit=0.66).tolist() == [[True]]
    assert largest_shares(a, b, limit=0.67).tolist() == [[False]]


@pytest.mark.parametrize("n", [7, 60, 500])
def test_shares_against_a_slow_sum(n):
    rng = np.random.default_rng(n)
    a, b = rng.standard_t(2, (n, 6)), rng.standard_t(1.5, (n, 5))
    slow = np.abs(a[:, :, None] * b[:, None, :])
    expected = slow.max(axis=0) > 0.3 * slow.sum(axis=0)
    np.testing.assert_array_equal(largest_shares(a, b, limit=0.3), expected)


def test_a_constant_column_tells_of_nobody_and_passes():
    rng = np.random.default_rng(0)
    assert passing([group(rng.normal(size=12).tolist(), [0.1] * 12)], RULE).tolist() == [True, True]


def test_fewer_columns_never_break_a_rule_that_held():
    rng = np.random.default_rng(1)
    for _ in range(50):
        x = rng.integers(0, 2, (14, 5)).astype(np.float64)
        x[:, 4] = rng.standard_t(2, 14)
        one = Group(of="the patients", columns=x, always=np.empty((14, 0)))
        try:
            ok = passing([one], RULE)
        except InfluenceRefused:
            continue
        for left_out in np.flatnonzero(ok):
            kept = np.setdiff1d(np.flatnonzero(ok), [left_out])
            assert passing([Group(of="", columns=x[:, kept], always=np.empty((14, 0)))], RULE).all()


def test_exact_copies_are_one_column_and_pass():
    x = np.random.default_rng(2).normal(size=30).tolist()
    assert passing([group(x, x, [2 * value + 1 for value in x])], RULE).all()


def test_a_site_too_small_for_two_values_leaves_instead_of_the_column():
    with pytest.raises(InfluenceRefused, match="too few for the columns"):
        passing([group([0, 0, 0, 0, 1])], RULE)
    assert passing([group([0, 0, 0, 0, 0, 1])], RULE).tolist() == [False]


def test_what_is_in_every_sum_must_pass():
    with pytest.raises(InfluenceRefused, match="sums of age"):
        passing([group([0, 1, 0, 1, 0, 1, 0, 1], always=[60, 60, 60, 60, 60, 60, 60, 20])], RULE)
    gap, none = np.array([[0.0]] * 11 + [[9.0]]), np.empty((12, 0))
    with pytest.raises(InfluenceRefused, match="sums of gap"):
        require_sums([Group(of="the patients", columns=none, always=gap, names_always=("gap",))], RULE)


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("strata", [True, False])
@pytest.mark.parametrize("far", [0.0, 0.4, 2.0])
def test_contributions_add_up_to_gradient_and_information(ties, strata, far):
    rng = np.random.default_rng(3)
    n = 80
    x, event = rng.normal(size=(n, 3)), rng.uniform(size=n) < 0.6
    time = np.ceil(rng.exponential(3, n) * 2) / 2 if ties else rng.exponential(3, n)
    stratum = rng.integers(0, 2, (n, 1)).astype(np.float64) if strata else np.empty((n, 0))
    beta = far * np.array([1.0, -0.5, 0.2])
    found = contributions_at(x, time, event, stratum, x @ beta)
    whole = of_strata(x, time, event, stratum, beta, ties="breslow")
    assert found.weight.sum() == pytest.approx(np.count_nonzero(event), rel=1e-12)
    np.testing.assert_allclose(found.gradient.sum(axis=0), whole.gradient, atol=1e-10)
    np.testing.assert_allclose(found.information.sum(axis=0), whole.information, atol=1e-10)


@pytest.mark.parametrize(("n", "seed"), [(12, 0), (25, 1), (60, 2)])
def test_pairs_of_one_table_are_found_as_those_of_two_equal_tables(n: int, seed: int) -> None:
    """Each pair of a table's own columns is looked at once; nothing else may differ."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1)) + 0.05 * rng.normal(size=(n, 12))
    x[:, 6:9] = 3 * x[:, :3] - 2
    x[:2, 6:9] += rng.normal(size=(2, 3))
    x -= x.mean(axis=0)
    once = few_make_up_pairs(x, x, minimum_count=3)
    assert once[:3, 6:9].diagonal().all()
    np.testing.assert_array_equal(once, few_make_up_pairs(x, x.copy(), minimum_count=3))
