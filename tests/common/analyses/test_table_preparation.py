"""Ridge regression from sums, against the closed form on all patients together and against itself on any cut."""

from __future__ import annotations

import numpy as np
import pytest

from fedage.common.analyses.base import Done, IterateRefused, NotComputable, run_locally
from fedage.common.analyses.preparation import _ridge
from fedage.common.analyses.preparation.age_scale import AgeScale
from fedage.common.analyses.preparation.table_preparation import TablePreparation
from fedage.common.analyses.preparation.table_sums import inner_folds, moments
from fedage.common.statistics.statistic import FloatArray
from tests.common.analyses.table_rows import COLUMNS, N, P, closed_form, cohort, patients, place, result


@pytest.mark.parametrize("minimum_count", [1, 10])
def test_any_cut_of_the_sites_gives_the_pooled_closed_form(minimum_count: int) -> None:
    x, age = patients()
    analysis = TablePreparation(COLUMNS, penalty=3.0, minimum_count=minimum_count)
    expected, intercept = closed_form(x, age, 3.0)
    for cuts in ([], [20], [12, 30, 61]):
        parts = np.split(np.arange(N), cuts)
        sites = {f"s{k}": cohort(x[rows], age[rows]) for k, rows in enumerate(parts)}
        found = result(run_locally(analysis, sites))
        model = found["model"]
        np.testing.assert_allclose(model["coefficients"], expected, atol=1e-10)
        assert model["intercept"] == pytest.approx(intercept, abs=1e-12)
        np.testing.assert_allclose(model["means"], x.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(model["sds"], x.std(axis=0), rtol=1e-9)
        assert (found["n"], found["left_out"], found["penalty_from"]) == (N, 0, "campaign")


def test_missing_values_are_the_federated_median() -> None:
    x, age = patients()
    x[:25, 2] = np.nan
    sites = {"a": cohort(x[:50], age[:50]), "b": cohort(x[50:], age[50:])}
    model = result(run_locally(TablePreparation(COLUMNS, penalty=1.0), sites))["model"]
    median = np.nanmedian(x[:, 2])
    assert model["medians"][2] == pytest.approx(median, rel=1e-6)
    filled = np.where(np.isnan(x), model["medians"], x)
    np.testing.assert_allclose(model["coefficients"], closed_form(filled, age, 1.0)[0], atol=1e-10)


def test_only_the_subset_the_healthy_and_usable_ages_count() -> None:
    x, age = patients()
    train = (np.arange(N) % 3 > 0).astype(float)
    healthy = (np.arange(N) % 4 > 0).astype(float)
    ages = age.copy()
    ages[4] = np.nan  # in the subset and not healthy
    ages[5], ages[7] = 340.0, np.nan  # in it
    sites = {"a": cohort(x, ages, is_train=train, healthy=healthy)}
    found = result(run_locally(TablePreparation(COLUMNS, penalty=2.0, healthy_only=True), sites))
    kept = (train == 1) & (healthy == 1)
    kept[[5, 7]] = False
    np.testing.assert_allclose(found["model"]["coefficients"], closed_form(x[kept], age[kept], 2.0)[0], atol=1e-10)
    assert (found["n"], found["left_out"]) == (kept.sum(), 2)


def test_auto_is_cross_validation_on_the_rows() -> None:
    """The mean squared error of every penalty, from sums, is that of fitting and predicting patient by patient."""
    x, age = patients()
    t = np.log(age)
    analysis = TablePreparation(COLUMNS, folds=3)
    found = result(run_locally(analysis, {"a": cohort(x, age)}))
    fold = inner_folds(place(age), folds=3, minimum_count=1)
    for penalty, rmse in found["cross_validation"][::10]:
        errors = np.zeros(N)
        for k in range(3):
            inside = fold != k
            beta, mean = closed_form(x[inside], age[inside], penalty)
            z = (x[~inside] - x[inside].mean(axis=0)) / x[inside].std(axis=0)
            errors[~inside] = t[~inside] - mean - z @ beta
        assert rmse == pytest.approx(float(np.sqrt(np.mean(errors**2))), rel=1e-9)
    curve = dict(found["cross_validation"])
    best = min(curve.values())
    assert found["penalty"] == max(
        penalty for penalty, rmse in curve.items() if rmse <= (1 + 0.25 / np.sqrt(2 * N)) * best
    )
    np.testing.assert_allclose(found["model"]["coefficients"], closed_form(x, age, found["penalty"])[0], atol=1e-9)


def test_inner_folds_are_never_small() -> None:
    rng = np.random.default_rng(0)
    for n in range(120):
        fold = inner_folds(rng.random(n), folds=5, minimum_count=10)
        counts = np.bincount(fold, minlength=5)
        assert counts.sum() == n
        assert counts[counts > 0].min(initial=n) >= min(n, 10)
        assert (counts > 0).any() == (n > 0)


def test_inner_folds_by_hand() -> None:
    # By tenths: two, three, none, four, one. The one goes to the two, who are the fewest of the others.
    where = np.array([0.0, 0.1, 0.2, 0.3, 0.35, 0.6, 0.7, 0.75, 0.79, 0.99])
    assert inner_folds(where, folds=5, minimum_count=2).tolist() == [0, 0, 1, 1, 1, 3, 3, 3, 3, 0]
    assert inner_folds(where, folds=5, minimum_count=1).tolist() == [0, 0, 1, 1, 1, 3, 3, 3, 3, 4]
    assert set(inner_folds(where, folds=5, minimum_count=6).tolist()) == {1}


def test_one_more_patient_and_another_order_change_nobody_elses_inner_fold() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        where = rng.random(100)
        fold = inner_folds(where, folds=5, minimum_count=5)
        more = inner_folds(np.concatenate([[rng.random()], where]), folds=5, minimum_count=5)
        assert np.array_equal(more[1:], fold)
        order = rng.permutation(100)
        assert np.array_equal(inner_folds(where[order], folds=5, minimum_count=5), fold[order])


@pytest.mark.parametrize("seed", range(3))
def test_auto_federated_is_auto_pooled(seed: int) -> None:
    """Three unlike sites with holes; the pooled oracle is plain numpy on all rows, with the same inner folds."""
    x, age = patients(seed, 240)
    rng = np.random.default_rng(seed)
    site = np.repeat([0, 1, 2], [40, 80, 120])
    x += 5.0 * site[:, None] * x.std(axis=0) * rng.random(P)
    x[rng.random(x.shape) < 0.05] = np.nan
    found = result(
        run_locally(TablePreparation(COLUMNS), {f"s{k}": cohort(x[site == k], age[site == k]) for k in range(3)})
    )
    model = found["model"]
    either_side = [np.nanquantile(x, 0.5, axis=0, method=side) for side in ("lower", "higher")]
    assert np.all((model["medians"] >= either_side[0] * (1 - 1e-6)) & (model["medians"] <= either_side[1] * (1 + 1e-6)))
    filled, t = np.where(np.isnan(x), model["medians"], x), np.log(age)
    fold = np.minimum((place(age) * 5).astype(int), 4)
    curve = {}
    for penalty in _ridge.PENALTIES:
        errors = np.zeros(len(age))
        for k in range(5):
            inside = fold != k
            beta, mean = closed_form(filled[inside], age[inside], penalty)
            z = (filled[~inside] - filled[inside].mean(axis=0)) / filled[inside].std(axis=0)
            errors[~inside] = t[~inside] - mean - z @ beta
        curve[penalty] = float(np.sqrt(np.mean(errors**2)))
    assert [penalty for penalty, _ in found["cross_validation"]] == list(curve)
    np.testing.assert_allclose([rmse for _, rmse in found["cross_validation"]], list(curve.values()), rtol=1e-8)
    chosen = max(k for k, rmse in curve.items() if rmse <= (1 + 0.25 / np.sqrt(2 * len(age))) * min(curve.values()))
    assert (found["penalty"], found["penalty_from"], found["stood_in"]) == (chosen, "inner-folds", 0)
    beta, mean = closed_form(filled, age, chosen)
    np.testing.assert_allclose(model["coefficients"], beta, atol=1e-8)
    assert model["intercept"] == pytest.approx(mean, abs=1e-10)


@pytest.mark.parametrize("rank", [1, 3, 40, 87])
def test_a_centre_and_spread_cut_nobody_off(rank: int) -> None:
    """Cut off at ±10⁶ spreads, the sums at two centres either side of one patient would give the value."""
    x, age = patients()
    ordered = np.sort(x[:, 3])
    spread = np.ones(P)
    spread[3] = 1e-9 * (ordered[-1] - ordered[0])
    analysis = TablePreparation(COLUMNS, penalty=1.0, minimum_count=10)
    for edge in ordered[rank - 1 : rank + 1]:
        centre = np.zeros(P)
        centre[3] = edge - 1e6 * spread[3]
        with pytest.raises(IterateRefused, match="feature 4"):
            analysis.local(cohort(x, age), {"centre": centre, "spread": spread, "error": spread})


def test_answered_sums_are_affine_in_the_centre() -> None:
    x, age = patients()
    analysis = TablePreparation(COLUMNS, penalty=1.0, minimum_count=10)

    def sums(shift: float) -> FloatArray:
        iterate = {"centre": np.full(P, shift), "spread": np.ones(P), "error": np.ones(P)}
        return moments(analysis.local(cohort(x, age), iterate), P, products=True)[0].u

    np.testing.assert_allclose(sums(0.0) - sums(30.0), np.full(P, 30.0 * N), rtol=1e-9)


def test_constant_and_unknown_features_are_unused() -> None:
    x, age = patients()
    x[:, 1], x[:, 4] = 3.0, np.nan
    found = result(run_locally(TablePreparation(COLUMNS, penalty=1.0), {"a": cohort(x, age)}))
    assert found["unused"] == ["feature:f1", "feature:f4"]
    rest = [0, 2, 3, 5, 6]
    coefficients = np.array(found["model"]["coefficients"])
    np.testing.assert_allclose(coefficients[rest], closed_form(x[:, rest], age, 1.0)[0], atol=1e-10)
    assert np.all(coefficients[[1, 4]] == 0)


def test_without_products_there_are_means_and_no_ridge() -> None:
    x, age = patients()
    found = result(run_locally(TablePreparation(COLUMNS, products=False), {"a": cohort(x, age)}))
    np.testing.assert_allclose(found["model"]["sds"], x.std(axis=0), rtol=1e-9)
    assert found["model"]["coefficients"] == []
    assert "penalty" not in found


def test_too_few_patients_or_no_feature_say_so() -> None:
    x, age = patients()
    few = run_locally(TablePreparation(COLUMNS, penalty=1.0), {"a": cohort(x[:2], age[:2])})
    assert isinstance(few, NotComputable)
    assert "at least 3" in few.reason
    none = run_locally(TablePreparation(COLUMNS), {"a": cohort(np.full((N, P), np.nan), age)})
    assert isinstance(none, NotComputable)
    one_group = run_locally(TablePreparation(COLUMNS, minimum_count=60), {"a": cohort(x, age)})
    assert isinstance(one_group, Done)
    assert (one_group.result["penalty"], one_group.result["penalty_from"]) == (float(P), "too-few-patients")


def test_too_many_features_are_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match="2000"):
        TablePreparation(tuple(f"feature:{j}" for j in range(2001)))


def test_iterates_of_the_sums_are_checked() -> None:
    analysis = TablePreparation(COLUMNS)
    good = {name: np.ones(P) for name in ("centre", "spread", "error")}
    analysis.check(good)
    for wrong in ({**good, "spread": -np.ones(P)}, {**good, "centre": np.full(P, np.inf)}, {"centre": np.ones(P)}):
        with pytest.raises(IterateRefused):
            analysis.check(wrong)


def test_moments_come_back_from_the_flat_vector() -> None:
    x, age = patients()
    analysis = TablePreparation(COLUMNS, folds=2)
    iterate = {"centre": np.zeros(P), "spread": np.ones(P), "error": np.zeros(P)}
    first, second = moments(analysis.local(cohort(x, age), iterate), P, products=True)
    np.testing.assert_allclose((first + second).uu, x.T @ x, rtol=1e-12)
    assert first.n + second.n == N


def test_scale_of_age_by_hand() -> None:
    scale = AgeScale("log", 2.0)
    np.testing.assert_allclose(scale.from_years(np.array([0.0, 8.0])), np.log([2.0, 10.0]))
    np.testing.assert_allclose(scale.to_years(np.log([2.0, 10.0])), [0.0, 8.0], atol=1e-12)
    assert scale.to_years(np.array([50.0]))[0] == pytest.approx(130.0)
    assert AgeScale("log", -5.0).usable(np.array([5.0, 5.02, 131.0, np.nan])).tolist() == [False, True, False, False]
    assert AgeScale("linear").usable(np.array([0.0, -1.0])).tolist() == [True, False]


def test_penalties_are_a_fixed_grid() -> None:
    assert _ridge.PENALTIES[0] == 1.0
    assert _ridge.PENALTIES[-1] == 1e5
    assert len(_ridge.PENALTIES) == 41
