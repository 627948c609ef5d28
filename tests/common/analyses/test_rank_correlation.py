"""Spearman's correlation within sites: scipy's at each, one number over all, and nothing that a coordinator brings."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from fedage.common.analyses.base import Done, IterateRefused, NotComputable, run_locally
from fedage.common.analyses.evaluation.rank_correlation import RankCorrelation, RanksWithinSites
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import InfluenceRule, require_sums
from fedage.common.toml.problems import CampaignErrors


def cohort(age, predicted) -> Cohort:
    return Cohort({"age_years": age, "predicted_years": predicted, "is_test": np.ones(len(age))})


def found(sites) -> RankCorrelation:
    outcome = run_locally(RanksWithinSites(), sites)
    assert isinstance(outcome, Done), outcome
    return RankCorrelation.model_validate(outcome.result)


@pytest.mark.parametrize("sd", [0.3, 2.0, 5.0])
@pytest.mark.parametrize("whole_years", [False, True])
def test_of_one_site_it_is_spearmans(sd, whole_years):
    rng = np.random.default_rng(5)
    age = rng.uniform(0, 18, 300)
    age = np.floor(age) + 0.5 if whole_years else age
    predicted = np.round(np.clip(age + rng.normal(0, sd, 300), 0, 130), 1)
    result = found({"one": cohort(age, predicted)})
    assert result.n == 300
    assert result.spearman == pytest.approx(spearmanr(age, predicted).statistic, abs=1e-12)


def test_of_several_sites_it_is_that_of_ranks_within_them():
    rng = np.random.default_rng(6)
    sites = {name: rng.uniform(low, low + 20, n) for name, low, n in (("a", 20, 40), ("b", 50, 90), ("c", 30, 25))}
    data = {name: (age, age + rng.normal(5, 6, age.size)) for name, age in sites.items()}
    r, s = (
        np.concatenate([(rankdata(pair[k]) - (len(pair[k]) + 1) / 2) / len(pair[k]) for pair in data.values()])
        for k in (0, 1)
    )
    result = found({name: cohort(*pair) for name, pair in data.items()})
    assert result.spearman == pytest.approx(float(np.corrcoef(r, s)[0, 1]), abs=1e-12)


@pytest.mark.parametrize(
    "iterate",
    [
        {"ranks": np.zeros((2, 100)), "off": np.zeros((2, 100))},
        {"ranks": np.linspace(0, 1, 100)},
        {"centre": np.zeros(1)},
        {"points": np.array([44.0, 44.1])},
    ],
)
def test_a_coordinator_brings_nothing(iterate):
    with pytest.raises(IterateRefused):
        RanksWithinSites().check(iterate)


def test_ranks_pass_the_influence_rule_at_ten_patients():
    rng = np.random.default_rng(8)
    for _ in range(50):
        age = rng.uniform(40, 80, 12)
        groups = RanksWithinSites().summed(cohort(age, age + rng.normal(0, 5, 12)), {})
        require_sums(groups, InfluenceRule(minimum_count=10, largest_share=0.5, patients_per_column=2.0))


def test_one_age_for_all_has_no_correlation():
    age = np.full(40, 5.0)
    assert isinstance(run_locally(RanksWithinSites(), {"one": cohort(age, age + np.linspace(0, 3, 40))}), NotComputable)


def test_bins_are_no_option():
    text = '[campaign]\nname = "c"\npurpose = "Correlate ranks"\nseed = 1\n[table]\nid = "id"\nage = "age"\n'
    text += 'predicted = "p"\n[analyses.rank-correlation]\n'
    parse_campaign(text)
    with pytest.raises(CampaignErrors, match="bins"):
        parse_campaign(text + "bins = 400\n")
