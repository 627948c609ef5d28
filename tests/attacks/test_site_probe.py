"""The site probe as an oracle: rows of sites that part patients as the coordinator likes, and counts of single ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedage.common.analyses.base import LeftOutByFile
from fedage.common.analyses.evaluation.likely_site import SiteProbed
from fedage.common.analyses.exact import NoSumOfPatients
from fedage.common.campaign.fields import LIKELY_SITE
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray, Statistic
from tests.common.analyses.table_rows import cohort
from tests.common.analyses.test_site_moments import ANALYSIS, SITES, at_sites, totals

N, MINIMUM = 60, 10
PROBE = SiteProbed(SITES, "b", minimum_count=MINIMUM)


def everybody_assigned(numbers: FloatArray) -> Cohort:
    age = np.linspace(50, 80, len(numbers))
    some = np.ones(len(numbers))
    return Cohort(
        {"age_years": age, "predicted_years": age + 1, "is_test": some, "healthy": some, LIKELY_SITE: numbers}
    )


def answer(assigned: int) -> Statistic:
    """Of a site with so many of its patients assigned to it, the second."""
    return PROBE.local(everybody_assigned(np.where(np.arange(N) < assigned, 2.0, 3.0)), {})


def test_that_one_patient_or_a_few_are_assigned_apart_is_not_told() -> None:
    for few in range(MINIMUM):
        assert answer(few).vector.tolist() == answer(0).vector.tolist()
        assert answer(N - few).vector.tolist() == answer(N).vector.tolist()
    assert answer(0).vector.tolist() != answer(N).vector.tolist()
    assert (answer(30)["assigned_low"][1], answer(30)["assigned_high"][1]) == (30, 30)


def test_a_prediction_that_is_no_number_or_no_site_only_counts_as_another_site() -> None:
    numbers = np.full(N, 2.0)
    numbers[:20] = 10_000.0  # what no number is cut to
    assert PROBE.local(everybody_assigned(numbers), {})["assigned_low"].tolist() == [0, 40, 0]


def test_a_site_has_no_figure_of_other_sites_and_few_patients_are_a_small_cell() -> None:
    statistic = answer(30)
    for name in ("n", "assigned_low", "assigned_high"):
        assert statistic[name][[0, 2]].tolist() == [0, 0]
    few = PROBE.local(everybody_assigned(np.full(MINIMUM - 1, 2.0)), {})
    assert few.smallest is not None
    assert few.smallest.count == MINIMUM - 1
    with pytest.raises(LeftOutByFile, match="sites that train"):
        replace(PROBE, site="elsewhere").local(everybody_assigned(np.full(N, 2.0)), {})


def moved(total: Statistic, name: str, change: Callable[[FloatArray], FloatArray]) -> FloatArray:
    values = {field.name: total[field.name] for field in total.layout.fields}
    return total.layout.flatten({**values, name: change(values[name])})


def _swap(block: FloatArray) -> FloatArray:
    """Means far apart that add up to the same."""
    far = np.zeros_like(block)
    far[0], far[1] = 1e4, -1e4
    return block + far


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("site_u", _swap, "further apart"),
        ("site_u", lambda block: block + 1.0, "do not add up"),
        ("site_u", lambda block: 0 * block, "do not add up"),
        ("site_n", lambda block: block + np.eye(3)[0], "patients of the sites"),
        ("site_n", lambda block: block + np.array([0.5, -0.5, 0]), "patients of the sites"),
        ("site_n", lambda block: np.array([block.sum(), 0, 0]), "without patients"),
    ],
)
def test_rows_that_no_sites_of_the_total_have_make_no_probe(name: str, change, said: str) -> None:
    x, age, number = at_sites()
    cohorts = {site: cohort(x[number == k], age[number == k]) for k, site in enumerate(SITES)}
    total, iterate, _ = totals(ANALYSIS, cohorts)
    ANALYSIS.check_total(total.vector, iterate)
    with pytest.raises(NoSumOfPatients, match=said):
        ANALYSIS.check_total(moved(total, name, change), iterate)


def test_a_site_sends_nothing_that_it_does_not_send_for_the_age_probe() -> None:
    """Its row is the sum over its inner folds of what stands in the same statistic; all others are 0."""
    x, age, number = at_sites()
    cohorts = {site: cohort(x[number == k], age[number == k]) for k, site in enumerate(SITES)}
    _, iterate, _ = totals(ANALYSIS, cohorts)
    with_row = replace(ANALYSIS, site="b").local(cohorts["b"], iterate)
    without = replace(ANALYSIS, sites=()).local(cohorts["b"], iterate)
    assert with_row.vector[: without.vector.size].tolist() == without.vector.tolist()
    np.testing.assert_array_equal(with_row["site_u"][1], without["u"].sum(axis=0))
    assert with_row["site_n"].tolist() == [0, without["n"].sum(), 0]
    assert not with_row["site_u"][[0, 2]].any()
