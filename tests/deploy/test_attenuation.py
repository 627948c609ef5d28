import numpy as np
import pytest

from fedage.common.analyses.base import Done, NotComputable, run_locally
from fedage.common.analyses.bias.bias_line import correct_cole, correct_de_lange
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.statistics.cohort import Cohort
from fedage.deploy.demo.attenuation import Attenuation


def result_of(analysis, sites):
    outcome = run_locally(analysis, sites)
    assert isinstance(outcome, Done)
    return outcome.result


def hospital(rng, n, *, youngest=40.0, oldest=85.0, slope=0.72, noise=2.0, hazard_ratio=1.05):
    """Patients whose biological age is read with noise, on a line with `slope`, and corrected by that line."""
    age, gap = rng.uniform(youngest, oldest, n), rng.normal(0, 6, n)
    predicted = 16 + slope * (age + gap) + rng.normal(0, noise, n)
    time = rng.exponential(1 / (0.02 * np.exp(np.log(hazard_ratio) * gap + 0.05 * (age - 60))))
    censored = rng.uniform(5, 25, n)
    return Cohort(
        {
            "age_years": age,
            "true_gap_years": gap,
            "gap_years": correct_de_lange(predicted, age, slope=slope, intercept=16.0) - age,
            "cole_gap_years": correct_cole(predicted, slope=slope, intercept=16.0) - age,
            "time_years": np.minimum(time, censored),
            "event": (time <= censored).astype(float),
            "is_test": np.ones(n),
        }
    )


def test_a_perfect_reader_whose_line_has_slope_072():
    rng = np.random.default_rng(0)
    found = result_of(Attenuation(1.05), {"a": hospital(rng, 500, noise=0.0)})
    # The de Lange gap is 0.72 of the true one, so a year of it stands for 1/0.72; Cole's is the true one.
    assert found["attenuation"] == pytest.approx({"gap_years": 1 / 0.72, "cole_gap_years": 1}, rel=1e-9)
    assert found["expected_hazard_ratio"]["gap_years"] == pytest.approx(1.0701, abs=1e-4)
    assert found["expected_hazard_ratio"]["true_gap_years"] == 1.05
    assert found["correlation_given_age"]["gap_years"] == pytest.approx(1, rel=1e-12)


def test_attenuation_is_the_coefficient_of_least_squares_within_sites():
    rng = np.random.default_rng(1)
    sites = {"a": hospital(rng, 60), "b": hospital(rng, 90, youngest=60, slope=0.5), "c": hospital(rng, 1)}
    found = result_of(Attenuation(1.05), sites)
    for column in ("gap_years", "cole_gap_years"):
        dummies = np.concatenate([np.tile(np.eye(3)[k], (site.n, 1)) for k, site in enumerate(sites.values())])
        design = np.concatenate([site.matrix((column, "age_years")) for site in sites.values()])
        truth = np.concatenate([site["true_gap_years"] for site in sites.values()])
        coef = np.linalg.lstsq(np.column_stack([design, dummies]), truth, rcond=None)[0][0]
        assert found["attenuation"][column] == pytest.approx(coef, rel=1e-9)
        assert found["expected_hazard_ratio"][column] == pytest.approx(1.05**coef, rel=1e-9)
        assert 0 < found["correlation_given_age"][column] < 1


def test_cox_covers_the_planted_ratio_on_the_true_gap_and_the_attenuated_one_on_the_estimate():
    rng = np.random.default_rng(2)
    sites = {"a": hospital(rng, 1500), "b": hospital(rng, 1500, youngest=55), "c": hospital(rng, 1500, oldest=70)}
    aims = result_of(Attenuation(1.05), sites)["expected_hazard_ratio"]
    for column, aim in aims.items():
        first = result_of(CoxBySite("cox:t", (column, "age_years")), sites)["covariates"][0]
        assert first["ci95"][0] < aim < first["ci95"][1]
    # The two estimated gaps' aims differ by more than an interval, so that the test can tell them apart.
    assert first["name"] == "cole_gap_years"
    assert aims["gap_years"] > first["ci95"][1]


@pytest.mark.parametrize("n", [0, 3])
def test_too_few(n):
    outcome = run_locally(Attenuation(1.05), {"a": hospital(np.random.default_rng(0), n)})
    assert isinstance(outcome, NotComputable)


def test_a_gap_that_does_not_vary_has_no_attenuation():
    cohort = hospital(np.random.default_rng(0), 30)
    flat = cohort.with_columns(gap_years=np.zeros(30), true_gap_years=np.where(np.arange(30) == 4, np.nan, 1.5))
    found = result_of(Attenuation(1.05), {"a": flat})
    assert found["attenuation"] == found["correlation_given_age"] == {}
    assert found["expected_hazard_ratio"] == {"true_gap_years": 1.05}
    assert (found["n"], found["left_out"]) == (29, 1)


def test_bounds_and_cell():
    extreme = np.array([130.0, -130.0, 130.0, -130.0])
    cohort = hospital(np.random.default_rng(0), 4).with_columns(
        true_gap_years=extreme, gap_years=extreme, cole_gap_years=-extreme, age_years=np.array([0.0, 130.0, 0.0, 130.0])
    )
    statistic = Attenuation(1.05).local(cohort, {})
    lower, upper = Attenuation(1.05).layout({}).bounds()
    assert np.all((lower <= statistic.vector) & (statistic.vector <= upper))
    assert statistic.smallest.count == 4
