"""The discriminant of sites from sums, against the closed form on labelled rows, and totals that no sites have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedage.common.analyses.base import Again, Done, Outcome
from fedage.common.analyses.exact import NoSumOfPatients
from fedage.common.analyses.preparation.site_moments import likeliest
from fedage.common.analyses.preparation.table_preparation import TablePreparation
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray, Statistic
from tests.common.analyses.table_rows import COLUMNS, N, P, cohort, patients, result

SITES = ("a", "b", "c")
ANALYSIS = TablePreparation(COLUMNS, penalty=3.0, sites=SITES)


def at_sites(*, cuts: tuple[int, ...] = (30, 70)) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rows (n, p) with a shift of each site's own, ages (n,), the number of each row's site (n,)."""
    x, age = patients()
    number = np.searchsorted(np.asarray(cuts), np.arange(N), side="right")
    x = x + 1.5 * np.eye(P)[number]
    return x, age, number


def totals(analysis: TablePreparation, cohorts: dict[str, Cohort]) -> tuple[Statistic, dict[str, FloatArray], Outcome]:
    """The sum over the sites of the last exchange, its iterate, and what comes of it; each site sums as itself."""
    iterate = analysis.first()
    while True:
        total = Statistic.zero(analysis.layout(iterate))
        for site, rows in cohorts.items():
            total = total + replace(analysis, site=site).local(rows, iterate)
        outcome = analysis.combine(total, iterate)
        if not isinstance(outcome, Again):
            return total, dict(iterate), outcome
        iterate = outcome.iterate


def probed(x: FloatArray, age: FloatArray, number: FloatArray, order: str = "abc") -> Outcome:
    cohorts = {site: cohort(x[number == k], age[number == k]) for k, site in enumerate(SITES)}
    return totals(ANALYSIS, {site: cohorts[site] for site in order})[2]


def test_it_is_the_discriminant_of_the_pooled_rows_whatever_the_order_and_leaves_the_ridge_as_it_is() -> None:
    x, age, number = at_sites()
    model = result(probed(x, age, number))["model"]
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    means = np.stack([z[number == k].mean(axis=0) for k in range(3)])
    within = sum(np.outer(row, row) for row in z - means[number])
    directions = means @ np.linalg.inv((within + np.eye(P)) / N)
    np.testing.assert_allclose(model["site_directions"], directions, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model["site_constants"], -0.5 * np.sum(means * directions, axis=1), rtol=1e-8)
    again = result(probed(x, age, number, order="cab"))["model"]
    np.testing.assert_allclose(again["site_directions"], model["site_directions"], rtol=1e-9)
    alone = totals(replace(ANALYSIS, sites=()), {"all": cohort(x, age)})[2]
    np.testing.assert_allclose(model["coefficients"], result(alone)["model"]["coefficients"], rtol=1e-9)


def test_the_likeliest_site_is_the_nearest_mean_by_mahalanobis_distance() -> None:
    x, age, number = at_sites()
    model = result(probed(x, age, number))["model"]
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    means = np.stack([z[number == k].mean(axis=0) for k in range(3)])
    within = sum(np.outer(row, row) for row in z - means[number])
    inverse = np.linalg.inv((within + np.eye(P)) / N)
    away = [np.einsum("ij,jk,ik->i", z - mean, inverse, z - mean) for mean in means]
    assigned = likeliest(z, np.array(model["site_directions"]), np.array(model["site_constants"]))
    assert assigned.tolist() == (1 + np.argmin(away, axis=0)).tolist()
    assert np.mean(assigned == number + 1) > 0.7


def test_a_site_without_patients_is_never_the_likeliest_and_one_that_is_not_listed_has_no_row() -> None:
    x, age, number = at_sites()
    cohorts = {site: cohort(x[number == k], age[number == k]) for k, site in enumerate("ac")}
    model = result(totals(ANALYSIS, cohorts)[2])["model"]
    assert 2 not in likeliest(x, np.array(model["site_directions"]), np.array(model["site_constants"]))
    total, iterate, _ = totals(ANALYSIS, {"d": cohort(x, age)})
    assert not total["site_n"].any()
    with pytest.raises(NoSumOfPatients, match="patients of the sites"):
        ANALYSIS.check_total(total.vector, iterate)


def test_sites_alike_are_told_apart_no_better_than_by_chance() -> None:
    rng = np.random.default_rng(5)
    x, age = rng.normal(size=(3000, P)), rng.uniform(40, 80, 3000)
    number = np.arange(3000) % 3
    half = np.arange(3000) < 1500
    model = result(probed(x[half], age[half], number[half]))["model"]
    z = (x[~half] - np.array(model["means"])) / np.array(model["sds"])
    assigned = likeliest(z, np.array(model["site_directions"]), np.array(model["site_constants"]))
    assert abs(np.mean(assigned == number[~half] + 1) - 1 / 3) < 0.05


def test_columns_left_out_have_no_direction() -> None:
    x, age, number = at_sites()
    kept = [True] * (P - 1) + [False]
    smaller = ANALYSIS.reduced(kept)
    cohorts = {site: cohort(x[number == k], age[number == k]) for k, site in enumerate(SITES)}
    outcome = totals(smaller, cohorts)[2]
    assert isinstance(outcome, Done)
    directions = np.array(ANALYSIS.completed(outcome.result, kept)["model"]["site_directions"])
    assert directions.shape == (3, P)
    assert not directions[:, -1].any()
    assert directions[:, :-1].all()


def test_rows_of_sites_need_products() -> None:
    with pytest.raises(ValueError, match="need products"):
        TablePreparation(COLUMNS, products=False, sites=SITES)
