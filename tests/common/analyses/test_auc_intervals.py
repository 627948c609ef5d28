import numpy as np
import pytest

from fedage.common.analyses.base import Done, run_locally
from fedage.common.analyses.groups import _roc
from fedage.common.analyses.groups.group_difference import GroupDifference
from fedage.common.statistics.cohort import Cohort


def slow_delong(group, reference):
    """AUC and its variance, pair by pair, as DeLong, DeLong and Clarke-Pearson (1988) write it."""
    won = np.array([[(x > y) + 0.5 * (x == y) for y in reference] for x in group])
    return won.mean(), won.mean(axis=1).var(ddof=1) / len(group) + won.mean(axis=0).var(ddof=1) / len(reference)


def hospital(rng, n, *, apart, level=0.0, ill=0.5, skewed=False, rounded=False):
    label = np.where(np.arange(n) < round(ill * n), 1.0, -1.0)
    noise = rng.exponential(3, n) if skewed else rng.normal(0, 3, n)
    gap = level + apart * (label == 1) + noise
    return Cohort({"ill": label, "gap_years": np.round(gap) if rounded else gap})


def compared(sites, *, minimum=1):
    asked = GroupDifference("groups", "ill", equals=1.0, reference=-1.0, covariates=(), minimum_count=minimum)
    outcome = run_locally(asked, sites)
    assert isinstance(outcome, Done)
    return outcome.result


def by_label(cohort, label):
    return cohort["gap_years"][cohort["ill"] == label]


VARIANTS = {
    "apart": {"apart": 3.0},
    "the same": {"apart": 0.0},
    "unequal, skewed": {"apart": 2.0, "ill": 0.2, "skewed": True},
    "many ties": {"apart": 1.0, "rounded": True},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_of_pairs_of_one_site_the_variance_is_delongs(name):
    rng = np.random.default_rng(5)
    sites = {f"s{k}": hospital(rng, n, level=4.0 * k, **VARIANTS[name]) for k, n in enumerate((40, 90, 60))}
    found = compared(sites, minimum=5)
    pairs, auc, variance = np.array(
        [
            (by_label(c, 1).size * by_label(c, -1).size, *slow_delong(by_label(c, 1), by_label(c, -1)))
            for c in sites.values()
        ]
    ).T
    pooled = pairs @ auc / pairs.sum()
    standard_error = np.sqrt(pairs**2 @ variance) / pairs.sum()
    assert found["auc_within_sites"] == pytest.approx(pooled, rel=1e-12)
    logit, half = np.log(pooled / (1 - pooled)), 1.959963984540054 * standard_error / (pooled * (1 - pooled))
    ends = 1 / (1 + np.exp(-logit + half)), 1 / (1 + np.exp(-logit - half))
    assert found["auc_within_sites_ci95"] == pytest.approx(ends, rel=1e-9)


@pytest.mark.parametrize("name", VARIANTS)
def test_of_all_pairs_the_interval_is_that_of_the_pooled_patients(name):
    rng = np.random.default_rng(6)
    sites = {f"s{k}": hospital(rng, n, level=1.0 * k, **VARIANTS[name]) for k, n in enumerate((400, 900, 600))}
    auc, variance = slow_delong(*(np.concatenate([by_label(c, g) for c in sites.values()]) for g in (1, -1)))
    width = np.ptp(_roc.interval(auc, variance))
    found = compared(sites)
    assert np.ptp(found["auc_ci95"]) == pytest.approx(width, rel=0.01)
    assert found["auc_ci95"][0] < auc < found["auc_ci95"][1]


@pytest.mark.parametrize("name", VARIANTS)
def test_an_auc_that_is_given_under_a_minimum_count_has_the_interval_of_the_pooled_patients(name):
    rng = np.random.default_rng(6)
    sites = {f"s{k}": hospital(rng, n, level=1.0 * k, **VARIANTS[name]) for k, n in enumerate((5000, 9000, 7000))}
    ill, well = (np.concatenate([by_label(c, g) for c in sites.values()]) for g in (1, -1))
    found = compared(sites, minimum=10)
    if name == "many ties":  # each value is alone in many joined cells, of which a site tells only the ends
        assert "more than its 95 % interval" in found["auc_refused"]
        return
    auc = _roc.pairs_won(ill, well) / (ill.size * well.size)
    assert found["auc"] == pytest.approx(auc, abs=0.004)
    assert found["auc_ci95"] == pytest.approx(_roc.interval(auc, _roc.variance_of_pairs(ill, well)), abs=0.004)


@pytest.mark.parametrize("apart", [0.5, 3.0, 6.0])
def test_the_standard_error_is_the_bootstraps(apart):
    rng = np.random.default_rng(7)
    ill, well = rng.normal(apart, 3, 150), rng.normal(0, 3, 100)
    again = [_roc.pairs_won(rng.choice(ill, 150), rng.choice(well, 100)) / 15_000 for _ in range(1500)]
    assert np.sqrt(_roc.variance_of_pairs(ill, well)) == pytest.approx(np.std(again), rel=0.08)


@pytest.mark.parametrize(("m", "n", "apart"), [(30, 60, 1.0), (100, 40, 3.0), (40, 40, 5.0)])
def test_intervals_cover_the_truth_as_often_as_they_say(m, n, apart):
    from scipy.stats import norm

    rng, truth, covered = np.random.default_rng(8), norm.cdf(apart / (3 * np.sqrt(2))), 0
    for _ in range(1000):
        ill, well = rng.normal(apart, 3, m), rng.normal(0, 3, n)
        low, high = _roc.interval(_roc.pairs_won(ill, well) / (m * n), _roc.variance_of_pairs(ill, well))
        covered += low <= truth <= high
    assert 0.93 <= covered / 1000 <= 0.975


@pytest.mark.parametrize("name", VARIANTS)
def test_an_auc_that_joined_cells_leave_open_is_refused_with_its_reason(name):
    rng = np.random.default_rng(9)
    sites = {f"s{k}": hospital(rng, 60, level=2.0 * k, **VARIANTS[name]) for k in range(4)}
    found = compared(sites, minimum=10)
    assert found["auc_high"] - found["auc_low"] > 0.2
    assert found["auc"] is found["auc_ci95"] is found["auc_error"] is found["roc"] is None
    assert f"({found['auc_low']:.3f} to {found['auc_high']:.3f}), more than its 95 % interval" in found["auc_refused"]
    assert found["auc_within_sites"] is not None
    assert found["auc_within_sites_ci95"] is not None
    exact = compared(sites)
    assert exact["auc_refused"] == ""
    assert found["auc_low"] <= exact["auc"] <= found["auc_high"]


def test_an_auc_without_overlap_or_with_one_patient_has_no_interval():
    apart = Cohort({"ill": np.repeat([1.0, -1.0], 20), "gap_years": np.repeat([9.0, 1.0], 20) + np.arange(40) / 100})
    found = compared({"a": apart})
    assert found["auc"] == found["auc_within_sites"] == 1
    assert found["auc_ci95"] is found["auc_within_sites_ci95"] is None
    assert found["auc_refused"] == ""
    lonely = Cohort({"ill": np.array([1.0, -1, -1, -1]), "gap_years": np.array([2.0, 1, 3, 0])})
    assert compared({"a": lonely})["auc_within_sites_ci95"] is None
