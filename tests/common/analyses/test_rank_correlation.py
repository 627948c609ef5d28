"""Spearman's correlation from binned ranks: the patients' own lies within the stated bound, however sites are cut."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from fedage.common.analyses.base import Done, IterateRefused, NotComputable, run_locally
from fedage.common.analyses.evaluation.rank_correlation import BinnedRanks, RankCorrelation
from fedage.common.statistics.cohort import Cohort


def cohort(age, predicted) -> Cohort:
    return Cohort({"age_years": age, "predicted_years": predicted, "is_test": np.ones(len(age))})


def ranks(*, bins=100, low=0.0, high=18.0, minimum_count=10) -> BinnedRanks:
    return BinnedRanks(tuple(np.linspace(low, high, bins + 1)[1:-1]), minimum_count=minimum_count)


def found(analysis, sites) -> RankCorrelation:
    outcome = run_locally(analysis, sites)
    assert isinstance(outcome, Done), outcome
    return RankCorrelation.model_validate(outcome.result)


@pytest.mark.parametrize("sd", [0.3, 2.0, 5.0])
@pytest.mark.parametrize("bins", [20, 100])
@pytest.mark.parametrize("whole_years", [False, True])
def test_the_true_correlation_is_within_the_bound(sd, bins, whole_years):
    rng = np.random.default_rng(5)
    age = rng.uniform(0, 18, 900) ** 1.2 / 18**0.2
    age = np.floor(age) + 0.5 if whole_years else age
    predicted = np.clip(age + rng.normal(0, sd, 900), 0, 130)
    sites = {str(k): cohort(age[k::3], predicted[k::3]) for k in range(3)}
    result = found(ranks(bins=bins), sites)
    true = spearmanr(age, predicted).statistic
    assert result.low <= true <= result.high
    assert result.error == pytest.approx(max(result.high - result.spearman, result.spearman - result.low))
    assert abs(result.spearman - true) < 3 / bins


def test_many_patients_and_bins_give_a_narrow_bound():
    rng = np.random.default_rng(6)
    age = rng.uniform(0, 18, 6000)
    result = found(ranks(), {"one": cohort(age, np.clip(age + rng.normal(0, 0.7, 6000), 0, 130))})
    assert result.error < 0.02


def test_two_sites_are_one_where_single_patients_may_be_shown():
    rng = np.random.default_rng(7)
    age = rng.uniform(0, 18, 200)
    predicted = age + rng.normal(0, 1, 200) + 3
    whole = found(ranks(minimum_count=1), {"one": cohort(age, predicted)})
    cut = found(ranks(minimum_count=1), {"a": cohort(age[:70], predicted[:70]), "b": cohort(age[70:], predicted[70:])})
    assert (cut.spearman, cut.error) == pytest.approx((whole.spearman, whole.error))


@pytest.mark.parametrize("bad", ["falling", "negative", "shape", "above"])
def test_ranks_that_are_none_are_refused(bad):
    analysis = ranks(bins=10)
    values = np.linspace(0, 1, 10)
    ranked = {"falling": values[::-1], "negative": values - 0.5, "shape": values[:-1], "above": values * 3}[bad]
    with pytest.raises(IterateRefused):
        analysis.check({"ranks": np.stack([ranked, ranked]), "off": np.zeros((2, 10))})


def test_one_age_for_all_has_no_correlation():
    age = np.full(40, 5.0)
    assert isinstance(run_locally(ranks(), {"one": cohort(age, age + np.linspace(0, 3, 40))}), NotComputable)
