"""What sums of tables tell of single patients: nothing, whichever centre or features are asked about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedage.common.analyses.base import IterateRefused, run_locally
from fedage.common.analyses.preparation.table_preparation import TablePreparation
from fedage.common.analyses.preparation.table_sums import Moments, inner_folds, moments
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray, Statistic
from tests.common.analyses.table_rows import COLUMNS, N, P, closed_form, cohort, patients, place, result


def test_every_cell_obeys_the_minimum_count() -> None:
    x, age = patients()
    analysis = TablePreparation(COLUMNS, minimum_count=10)
    sums = {name: np.ones(P) for name in ("centre", "spread", "error")}
    for rows in (12, 19, 45, 90):
        site = cohort(x[:rows], age[:rows])
        for iterate in (analysis.first(), sums):
            smallest = analysis.local(site, iterate).smallest
            assert smallest is not None
            assert 10 <= smallest.count <= rows
    small = analysis.local(cohort(x[:6], age[:6]), sums).smallest
    assert small is not None
    assert small.count == 6


def test_those_held_out_of_a_fold_are_a_cell_too() -> None:
    x, age = patients()
    train = (np.arange(N) >= 4).astype(float)
    site = cohort(x, age, is_train=train)
    sums = {name: np.ones(P) for name in ("centre", "spread", "error")}
    for iterate in (TablePreparation(COLUMNS).first(), sums):
        alone = TablePreparation(COLUMNS, minimum_count=10).local(site, iterate).smallest
        folds = TablePreparation(COLUMNS, minimum_count=10, cross_fitted=True).local(site, iterate).smallest
        assert alone is not None
        assert folds is not None
        assert alone.count >= 10
        assert folds.count == 4


def test_whether_a_centre_is_refused_does_not_depend_on_the_last_patient_alone() -> None:
    """Bisecting for where refusals begin finds the same place wherever the farthest patient is within the group."""
    x, age = patients()
    farthest = int(np.argmax(x[:, 3]))
    x[farthest, 3] += 1.0
    analysis = TablePreparation(COLUMNS, penalty=1.0, minimum_count=10)
    edges = []
    for moved in (0.0, 0.2):
        other = x.copy()
        other[farthest, 3] += moved
        low, high = 0.0, 1e9
        for _ in range(60):
            centre = np.zeros(P)
            centre[3] = -(low + high) / 2
            try:
                analysis.local(cohort(other, age), {"centre": centre, "spread": np.ones(P), "error": np.ones(P)})
                low = -centre[3]
            except IterateRefused:
                high = -centre[3]
        edges.append(low)
    assert edges[0] == edges[1]


def test_a_feature_that_few_patients_have_tells_nothing_of_them() -> None:
    x, age = patients()
    x[1:, 2] = np.nan
    analysis = TablePreparation(COLUMNS, penalty=1.0, minimum_count=10)
    iterate = {"centre": np.zeros(P), "spread": np.ones(P), "error": np.ones(P)}
    found = moments(analysis.local(cohort(x, age), iterate), P, products=True)[0]
    assert found.u[2] == 0
    assert not found.uu[2].any()
    assert found.ut[2] == 0


def sums_at(site: Cohort, centre: FloatArray, **options: Any) -> tuple[Statistic, list[Moments]]:
    analysis = TablePreparation(COLUMNS, minimum_count=10, **options)
    found = analysis.local(site, {"centre": centre, "spread": np.ones(P), "error": np.ones(P)})
    return found, moments(found, P, products=True)


def told_apart(site: Cohort, j: int, **options: Any) -> list[tuple[float, FloatArray, float]]:
    """What shifting the centre of feature j by one tells of each inner fold: of those present, how many, Σu, and Σt."""
    here, there = np.zeros(P), np.zeros(P)
    there[j] = -1.0
    pairs = zip(sums_at(site, here, **options)[1], sums_at(site, there, **options)[1], strict=True)
    return [(b.u[j] - a.u[j], b.uu[j] - a.uu[j], b.ut[j] - a.ut[j]) for a, b in pairs]


def test_a_shifted_centre_tells_of_nobody_who_misses_a_value() -> None:
    """Of one patient without feature 3, Σ over all less Σ over those present would be her age and other features."""
    x, age = patients()
    x = x / x.std(axis=0)
    x[17, 3] = np.nan
    t = np.log(age)
    free = TablePreparation(COLUMNS, penalty=1.0)
    iterates = [{"centre": c * np.eye(P)[3], "spread": np.ones(P), "error": np.ones(P)} for c in (0.0, -1.0)]
    a, b = (moments(free.local(cohort(x, age), iterate), P, products=True)[0] for iterate in iterates)
    assert t.sum() - (b.ut[3] - a.ut[3]) == pytest.approx(t[17]), "without the guard that is what happens"

    ((n, u, sum_t),) = told_apart(cohort(x, age), 3, penalty=1.0)
    assert n == pytest.approx(N)
    assert sum_t == pytest.approx(t.sum())
    others = [0, 1, 2, 4, 5, 6]
    np.testing.assert_allclose(u[others], x[:, others].sum(axis=0), rtol=1e-9)
    statistic, _ = sums_at(cohort(x, age), np.zeros(P), penalty=1.0)
    assert statistic.scalar("stood_in") == 1


@pytest.mark.parametrize("third_misses", ["all of them and one more", "all of them, two of whom are one"])
def test_three_features_together_tell_of_nobody(third_misses: str) -> None:
    """Σ₃ − Σ₁ − Σ₂ of those who miss each would be a single patient, though all pairs have large groups only."""
    x, age = patients(4, 100)
    t, more = np.log(age), third_misses.endswith("more")
    first, second = np.arange(20), np.arange(20, 40) if more else np.arange(19, 40)
    third = np.arange(41) if more else np.arange(40)
    for j, rows in ((1, first), (2, second), (3, third)):
        x[rows, j] = np.nan
    (alone,) = (40,) if more else (19,)

    def missing(j: int, minimum_count: int) -> float:
        """Σt of those who miss feature j, from two centres."""
        analysis = TablePreparation(COLUMNS, penalty=1.0, minimum_count=minimum_count)
        sums = []
        for c in (0.0, -1.0):
            iterate = {"centre": c * np.eye(P)[j], "spread": np.ones(P), "error": np.ones(P)}
            sums.append(moments(analysis.local(cohort(x, age), iterate), P, products=True)[0].ut[j])
        return t.sum() - (sums[1] - sums[0])

    def combined(minimum_count: int) -> float:
        return abs(missing(3, minimum_count) - missing(1, minimum_count) - missing(2, minimum_count))

    assert combined(1) == pytest.approx(abs(t[alone])), "without the guard that is what happens"
    assert all(abs(combined(10) - abs(value)) > 1e-6 for value in t)
    told = {j: missing(j, 10) for j in (1, 2, 3)}
    assert sum(abs(value) > 1e-6 for value in told.values()) >= 1, "one feature filled is enough"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("cross_fitted", [False, True])
def test_every_group_that_shifted_centres_tell_apart_is_large_or_empty(
    seed: int, auto: bool, cross_fitted: bool
) -> None:
    """Any pattern of holes: of those who miss the same, so of every union of them too, by inner fold and held out."""
    rng = np.random.default_rng(seed)
    x, age = patients(seed, 200)
    holes = rng.random(x.shape) < np.array([0.0, 0.02, 0.3, 0.3, 0.5, 0.98, 0.1])
    holes[:, 3] |= holes[:, 2] & (rng.random(200) < 0.95)
    x[holes] = np.nan
    train = np.ones(200)
    train[rng.permutation(200)[:40]] = 0.0 if cross_fitted else 1.0
    site = cohort(x, age, is_train=train)
    options: dict[str, Any] = {"cross_fitted": cross_fitted, "penalty": "auto" if auto else 1.0}
    rows = np.flatnonzero(train == 1)
    folds = inner_folds(place(age)[rows], folds=5, minimum_count=10) if auto else np.zeros(rows.size, dtype=int)
    groups = [rows[folds == k] for k in range(folds.max() + 1)]
    # A feature is told of if its sums change with its centre, and filled if they change by everybody.
    shifts = [told_apart(site, j, **options) for j in range(P)]
    counts = np.array([[n for n, _, _ in of_one] for of_one in shifts])[:, : len(groups)]
    told = counts.sum(axis=1) > 0.5
    filled = told & np.all(np.isclose(counts, [g.size for g in groups]), axis=1)
    shown = np.isfinite(x) | filled
    assert told[0]
    assert not told[5]
    everywhere = groups if not cross_fitted else [*groups, np.flatnonzero(train == 0)]
    for group in everywhere:
        _, sizes = np.unique(shown[np.ix_(group, np.flatnonzero(told))], axis=0, return_counts=True)
        assert sizes.min() >= 10
    for k, group in enumerate(groups):
        for j in np.flatnonzero(told):
            assert shifts[j][k][0] == pytest.approx(np.count_nonzero(shown[group, j]))


def test_features_missing_in_many_patients_alike_stay_exact_under_the_guard() -> None:
    x, age = patients()
    x[:15, [1, 2]] = np.nan
    x[40:55, 4] = np.nan
    sites = {"a": cohort(x[:60], age[:60]), "b": cohort(x[60:], age[60:])}
    found = result(run_locally(TablePreparation(COLUMNS, penalty=2.0, minimum_count=10), sites))
    assert found["stood_in"] == 0
    filled = np.where(np.isnan(x), found["model"]["medians"], x)
    np.testing.assert_allclose(found["model"]["coefficients"], closed_form(filled, age, 2.0)[0], atol=1e-10)


def test_a_mean_that_stands_in_moves_the_model_little() -> None:
    x, age = patients()
    x[3, 0] = x[70, 5] = np.nan
    sites = {"a": cohort(x[:60], age[:60]), "b": cohort(x[60:], age[60:])}
    guarded, free = (
        result(run_locally(TablePreparation(COLUMNS, penalty=2.0, minimum_count=m), sites)) for m in (10, 1)
    )
    assert (guarded["stood_in"], free["stood_in"]) == (2, 0)
    np.testing.assert_allclose(guarded["model"]["coefficients"], free["model"]["coefficients"], atol=0.01)
