"""Regional residuals between several diagnoses: against regressions of all patients, over any split into sites."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedage.common.analyses.agreement import agreed
from fedage.common.analyses.base import Done, NotComputable, run_locally
from fedage.common.analyses.groups.regional_residuals import ANALYSIS, RegionalDifference
from fedage.common.analyses.groups.regional_result import RegionalResiduals
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.statistics.cohort import Cohort

REGIONS = ("a", "b", "c", "d")
MODELS = 3


def cohort(seed: int = 0, n: int = 240, sites: int = 3) -> tuple[Cohort, np.ndarray]:
    """Diagnosis 1 is higher in region a, 2 lower in b, in every model; sites differ by an offset of their own."""
    rng = np.random.default_rng(seed)
    diagnosis, site, age = rng.integers(0, 3, n).astype(float), rng.integers(0, sites, n), rng.uniform(50, 80, n)
    columns = {"diagnosis": diagnosis, "age_years": age, "is_test": np.ones(n), "is_male": (rng.random(n) < 0.5) + 0.0}
    for model in range(1, MODELS + 1):
        for region in REGIONS:
            r = 0.02 * age + 0.5 * site + rng.normal(size=n)
            r += 1.5 * (region == "a") * (diagnosis == 1) - 1.5 * (region == "b") * (diagnosis == 2)
            columns[f"residual:{model}:{region}"] = r
    columns["eigenvector:1"] = np.clip(0.6 + 0.05 * rng.normal(size=n), 0, 1)
    columns["eigenvector:2"] = rng.random(n) * 0.5
    return Cohort(columns), site


def analysis(**values) -> RegionalDifference:
    given = {
        "diagnoses": (1.0, 2.0),
        "reference": 0.0,
        "covariates": ("age_years",),
        "regions": REGIONS,
        "eigenvectors": (1, 2),
        "models": MODELS,
        **values,
    }
    return RegionalDifference("diagnosis", **given)


def found(made, sites):
    outcome = run_locally(made, sites)
    assert isinstance(outcome, Done), outcome
    return RegionalResiduals.model_validate(outcome.result)


def by_site(everybody: Cohort, site: np.ndarray) -> dict[str, Cohort]:
    return {str(one): everybody.where(site == one) for one in np.unique(site)}


def test_it_is_the_analysis_of_covariance_of_all_patients():
    everybody, site = cohort()
    result = found(analysis(), by_site(everybody, site))
    X = np.column_stack(
        [
            everybody["diagnosis"] == 1,
            everybody["diagnosis"] == 2,
            everybody["age_years"],
            *(site == s for s in range(3)),
        ]
    ).astype(float)
    df = len(X) - X.shape[1]
    for region in result.regions:
        ps, p1, differences = [], [], []
        for model in range(1, MODELS + 1):
            r = everybody[f"residual:{model}:{region.region}"]
            b, rss, *_ = np.linalg.lstsq(X, r, rcond=None)
            _, rss0, *_ = np.linalg.lstsq(X[:, 2:], r, rcond=None)
            ps.append(stats.f.sf((rss0[0] - rss[0]) / 2 / (rss[0] / df), 2, df))
            se = np.sqrt(rss[0] / df * np.linalg.inv(X.T @ X)[0, 0])
            p1.append(2 * stats.t.sf(abs(b[0] / se), df))
            differences.append(b[0])
        assert region.p == pytest.approx(np.median(ps), rel=1e-6)
        assert region.models_differ == sum(p < 0.05 / 4 for p in ps)
        assert region.diagnoses[0].difference_sd == pytest.approx(np.mean(differences), rel=1e-9)
        assert region.diagnoses[0].p == pytest.approx(np.median(p1), rel=1e-6)
    assert (result.df, result.sites, result.threshold) == (df, 3, 0.0125)
    a, b, c, _ = result.regions
    assert (a.diagnoses[0].models_higher, a.diagnoses[1].models_higher) == (3, 0)
    assert (b.diagnoses[1].models_lower, b.diagnoses[0].models_lower) == (3, 0)
    assert c.models_differ == 0


def test_one_diagnosis_and_no_covariate_is_one_way_anova():
    everybody, _ = cohort(sites=1)
    result = found(analysis(diagnoses=(1.0,), covariates=(), eigenvectors=()), {"all": everybody})
    values = everybody["residual:1:a"], everybody["residual:2:a"], everybody["residual:3:a"]
    ps = [stats.f_oneway(r[everybody["diagnosis"] == 0], r[everybody["diagnosis"] == 1]).pvalue for r in values]
    assert result.regions[0].p == pytest.approx(np.median(ps), rel=1e-6)
    assert result.regions[0].p == pytest.approx(result.regions[0].diagnoses[0].p, rel=1e-6)


def test_cutting_a_site_at_its_own_mean_moves_nothing_but_the_order_and_a_site_of_one_group_adds_nothing():
    everybody, site = cohort()
    sites = by_site(everybody, site)
    whole = found(analysis(), sites)
    lonely = everybody.where(everybody["diagnosis"] == 1)
    more = found(analysis(), {**sites, "lonely": lonely})
    assert more.one_group_only == lonely.n
    assert more.regions == whole.regions
    assert found(analysis(), dict(reversed(sites.items()))) == whole


def test_eigenvectors_are_kept_where_they_vary_little_between_patients():
    everybody, site = cohort()
    result = found(analysis(), by_site(everybody, site))
    of_1 = everybody["eigenvector:1"][everybody["diagnosis"] == 1]
    first = next(one for one in result.eigenvectors if (one.eigenvector, one.group) == (1, 1.0))
    assert first.mean == pytest.approx(of_1.mean())
    assert first.sd == pytest.approx(of_1.std(ddof=1))
    assert [one.is_steady for one in result.eigenvectors] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("few", [1, 4, 9])
def test_a_diagnosis_too_rare_at_a_site_is_left_out_there_and_costs_the_others_nothing(few):
    everybody, site = cohort()
    here, there = by_site(everybody, np.minimum(site, 1)).values()
    rare = np.flatnonzero(here["diagnosis"] == 2)[few:]
    here = here.where(~np.isin(np.arange(here.n), rare))
    made = analysis(minimum_count=10)
    result = found(made, {"here": here, "there": there})
    assert result.n[1] == np.count_nonzero(there["diagnosis"] == 2)
    assert result.n[0] == np.count_nonzero(everybody["diagnosis"] == 1)
    assert result.left_out == few  # told only where the guard lets it


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"diagnoses": (7.0,)}, "no site has enough patients"),
        ({"reference": 9.0}, "no site has enough patients"),
        ({"covariates": ("age_years", "twice")}, "cannot be told apart"),
    ],
)
def test_what_cannot_be_compared_says_why(values, says):
    everybody, site = cohort()
    everybody = everybody.with_columns(twice=2 * everybody["age_years"])
    outcome = run_locally(analysis(**values), by_site(everybody, site))
    assert isinstance(outcome, NotComputable)
    assert says in outcome.reason


FILE = """
[campaign]
name = "regions"
purpose = "Compare regional residuals between two diagnoses and controls"
seed = 1
[estimator]
name = "cortex-vnn"
[estimator.options]
features = ["a", "b", "c", "d", "e"]
exclude = ["e"]
models = 3
{residuals}
[table]
age = "age"
[training]
rounds = 1
[validation]
folds = 2
[analyses.regional-residuals]
column = "diagnosis"
diagnoses = [1, 2]
reference = 0
"""


@pytest.mark.parametrize("residuals", ["", "residuals = false", 'start = "random"'])
def test_a_file_that_keeps_no_residuals_is_told_so(residuals):
    with pytest.raises(CampaignErrors, match="residuals = true"):
        parse_campaign(FILE.format(residuals=residuals))


@pytest.mark.parametrize("share", [0.6, 0.9, 0.99])
def test_a_region_that_one_patient_dominates_is_left_out_at_all_sites(share):
    campaign = parse_campaign(FILE.format(residuals="residuals = true"))
    (step,) = ANALYSIS.steps(campaign, {})
    everybody, site = cohort()
    spiked = everybody["residual:2:c"] * 1.0
    rest = float((spiked[site == 0] ** 2).sum())
    spiked[np.flatnonzero(site == 0)[0]] = np.sqrt(share / (1 - share) * rest * 2)
    outcome = run_locally(step.analysis, by_site(everybody.with_columns(**{"residual:2:c": spiked}), site))
    assert isinstance(outcome, Done)
    result = RegionalResiduals.model_validate(outcome.result)
    assert result.withheld_columns == ("c",)
    assert [region.region for region in result.regions] == ["a", "b", "d"]
    assert result.threshold == pytest.approx(0.05 / 3)


def test_agreement_changes_nothing_where_every_region_passes():
    everybody, site = cohort()
    campaign = parse_campaign(FILE.format(residuals="residuals = true"))
    held = found(agreed(analysis(minimum_count=10), campaign), by_site(everybody, site))
    assert held.regions == found(analysis(), by_site(everybody, site)).regions


@pytest.mark.parametrize("diagnoses", ["[1, 1]", "[1, 0]", "[2, 1, 2.0]"])
def test_a_group_that_is_there_twice_is_named_before_a_run(diagnoses):
    text = FILE.format(residuals="residuals = true").replace("[1, 2]", diagnoses)
    with pytest.raises(CampaignErrors, match="must be different values"):
        parse_campaign(text)
