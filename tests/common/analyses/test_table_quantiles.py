"""Quartiles without anybody's value: groups that nobody stands alone in, and the zoom over them."""

from __future__ import annotations

import numpy as np
import pytest

from fedage.common.analyses._guarded_groups import CODES, Groups, decode, encode, guarded_groups, guarded_groups_of
from fedage.common.analyses.base import IterateRefused
from fedage.common.analyses.preparation import _table_quantiles as quantiles
from fedage.common.statistics.statistic import FloatArray, Statistic


def drive(sites: list[FloatArray], *, minimum_count: int) -> quantiles.Quartiles:
    iterate = quantiles.first_windows(sites[0].shape[1])
    while True:
        quantiles.check_windows(iterate, sites[0].shape[1])
        total = Statistic.zero(quantiles.layout(sites[0].shape[1]))
        for table in sites:
            total += quantiles.local(table.T, iterate, patients=len(table), minimum_count=minimum_count)
        following = quantiles.narrower(total, iterate)
        if following is None:
            return quantiles.quartiles(total, iterate)
        iterate = following


def test_codes_keep_order_and_come_back() -> None:
    values = np.array([-3e38, -2.5, -1e-30, 0.0, 1e-30, 0.1, 2.5, 7e4, 3e38])
    codes = encode(values)
    assert np.all(np.diff(codes) > 0)
    np.testing.assert_array_equal(decode(codes), values.astype(np.float32).astype(np.float64))
    assert encode(np.array([1e300]))[0] < CODES


def test_groups_by_hand() -> None:
    # Six values, groups of at least two. Between the second lowest (2) and the second highest (6) the roundest number
    # is 4; then nothing can be cut any more.
    groups = guarded_groups(np.array([7.0, 1.0, 5.0, 2.0, 3.0, 6.0]), minimum_count=2)
    assert groups.count.tolist() == [3, 3]
    assert decode(groups.mean).tolist() == [2.0, 6.0]
    assert decode(groups.end[:1]).tolist() == decode(groups.start[1:]).tolist() == [4.0]
    assert decode(groups.start[:1])[0] <= 1.0
    assert decode(groups.end[1:])[0] > 7.0


@pytest.mark.parametrize("minimum_count", [1, 3, 10])
@pytest.mark.parametrize("seed", range(5))
def test_columns_cut_together_are_cut_as_each_alone(seed: int, minimum_count: int) -> None:
    rng = np.random.default_rng(seed)
    columns = [
        rng.normal(size=37),
        np.round(rng.normal(size=20)),
        np.where(rng.random(64) < 0.2, np.nan, rng.normal(size=64) * 1e5),
        np.full(15, -3.0),
        np.full(9, np.nan),
        np.empty(0),
        rng.normal(size=minimum_count),
    ]
    together = guarded_groups_of(columns, minimum_count=minimum_count)
    for values, groups in zip(columns, together, strict=True):
        alone = guarded_groups(values, minimum_count=minimum_count)
        for name in ("start", "mean", "end", "count"):
            np.testing.assert_array_equal(getattr(groups, name), getattr(alone, name))
        points = np.sort(rng.integers(0, CODES, (1, 5, 9)))
        below = quantiles._below(points, [groups])[0]
        for curve, by in enumerate((groups.mean, groups.mean, groups.mean, groups.start, groups.end - 1)):
            np.testing.assert_array_equal(below[curve], groups.below(points[0, curve], by=by))


def test_no_columns_have_no_groups() -> None:
    assert guarded_groups_of([], minimum_count=3) == []
    assert isinstance(guarded_groups(np.full(4, np.nan), minimum_count=3), Groups)


@pytest.mark.parametrize("minimum_count", [1, 2, 10])
@pytest.mark.parametrize("kind", ["normal", "ties", "zeros", "both signs"])
def test_no_group_is_small_and_all_patients_are_inside(kind: str, minimum_count: int) -> None:
    rng = np.random.default_rng(3)
    values = {
        "normal": rng.normal(2.5, 0.2, 103),
        "ties": rng.integers(0, 4, 103).astype(float),
        "zeros": np.where(rng.random(103) < 0.9, 0.0, rng.random(103)),
        "both signs": rng.normal(0, 1e-3, 103),
    }[kind]
    groups = guarded_groups(values, minimum_count=minimum_count)
    assert groups.n == 103
    assert groups.count.min() >= minimum_count
    assert np.all(groups.start[1:] >= groups.end[:-1])
    codes = np.sort(encode(values))
    where = np.repeat(np.arange(groups.count.size), groups.count)
    assert np.all((codes >= groups.start[where]) & (codes < groups.end[where]))


def test_a_small_group_of_missing_patients_is_not_told() -> None:
    values = np.arange(40.0)
    holes = values.copy()
    holes[:3] = np.nan
    assert guarded_groups(holes, minimum_count=10).n == 40
    holes[:12] = np.nan
    assert guarded_groups(holes, minimum_count=10).n == 28
    holes[:31] = np.nan
    assert guarded_groups(holes, minimum_count=10).n == 0


def test_the_statistic_names_its_smallest_group() -> None:
    table = np.random.default_rng(0).normal(size=(57, 3))
    statistic = quantiles.local(table.T, quantiles.first_windows(3), patients=57, minimum_count=10)
    assert statistic.smallest is not None
    assert statistic.smallest.count == min(guarded_groups(c, minimum_count=10).count.min() for c in table.T)
    assert statistic.smallest.count >= 10


def test_without_a_guard_medians_are_exact_and_no_cut_matters() -> None:
    rng = np.random.default_rng(1)
    table = np.column_stack([rng.normal(2.5, 0.2, 81), rng.lognormal(8, 1, 81), rng.normal(0, 1e-4, 81)])
    table[::7, 1] = np.nan
    whole = drive([table], minimum_count=1)
    parted = drive([table[:5], table[40:], table[5:40]], minimum_count=1)
    np.testing.assert_array_equal(whole.median, parted.median)
    np.testing.assert_array_equal(whole.spread, parted.spread)
    np.testing.assert_allclose(whole.median, np.nanmedian(table, axis=0), rtol=1e-6)
    lower, upper = np.nanquantile(table, [0.25, 0.75], axis=0, method="averaged_inverted_cdf")
    np.testing.assert_allclose(whole.spread, (upper - lower) / 1.3489795, rtol=1e-3)


def test_the_guarded_median_is_near_and_its_stated_error_holds() -> None:
    rng = np.random.default_rng(2)
    sites = [rng.normal(2.5 + shift, 0.2, (n, 20)) for shift, n in ((0.0, 12), (0.1, 63), (-0.1, 30), (0.05, 45))]
    found = drive(sites, minimum_count=10)
    everybody = np.concatenate(sites)
    true, sd = np.median(everybody, axis=0), everybody.std(axis=0)
    assert np.max(np.abs(found.median - true) / sd) < 0.3
    assert np.all((found.least_median <= true) & (true <= found.greatest_median))


def test_a_feature_nobody_has_is_unknown() -> None:
    table = np.full((30, 2), np.nan)
    table[:, 0] = np.arange(30.0)
    found = drive([table], minimum_count=5)
    assert np.isnan(found.median[1])
    assert np.isfinite(found.median[0])


@pytest.mark.parametrize("change", [{"low": -1.0}, {"high": 0.0}, {"low": 0.5}, {"high": 2.0**33}, {"low": np.nan}])
def test_windows_that_are_none_are_refused(change: dict[str, float]) -> None:
    iterate = dict(quantiles.first_windows(2))
    for name, value in change.items():
        iterate[name] = np.full_like(iterate[name], value)
    with pytest.raises(IterateRefused):
        quantiles.check_windows(iterate, 2)
