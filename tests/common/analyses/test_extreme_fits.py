"""Fits and curves at the edges of floats: exact halves, strong effects, tiny units, hazard ratios beyond a float."""

import numpy as np
import pytest
from lifelines import CoxPHFitter

from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.kaplan_meier import KaplanMeier
from fedage.common.statistics.cohort import Cohort


def follow_up(beta, *, unit=1.0, n=600, seed=2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    died, left = rng.exponential(5 * np.exp(-beta * x)), rng.uniform(0, 40, n)
    return {"x": x * unit, "time_years": np.minimum(died, left), "event": (died <= left).astype(float)}


def fitted(tools, columns):
    found = tools.result_of(CoxBySite("cox", ("x",), subset=None), {"a": Cohort(columns)})
    return found["covariates"][0]


@pytest.mark.parametrize(("patients", "before"), [(14, 3), (26, 5), (38, 9), (94, 23)])
def test_half_of_the_patients_is_the_median_whatever_rounding_leaves(tools, patients, before):
    """S after some deaths and as many again is ½ but for the last digit."""
    half = patients // 2
    time = np.repeat([1.0, 2.0, 3.0], [before, half - before, patients - half])
    cohort = Cohort({"time_years": time, "event": (time < 3).astype(float)})
    found = tools.result_of(KaplanMeier("km", (1.0, 2.0, 3.0), gap=None, subset=None), {"a": cohort})
    assert found["groups"][0]["survival"][1] == pytest.approx(0.5, abs=1e-15)
    assert found["groups"][0]["median_survival"] == 2.0


@pytest.mark.parametrize("beta", [2.6, 3.2, 3.6])
def test_a_strong_effect_that_converges_is_answered(tools, beta):
    import pandas as pd

    columns = follow_up(beta)
    fit = CoxPHFitter().fit(pd.DataFrame(columns), "time_years", "event", fit_options={"precision": 1e-12})
    item = fitted(tools, columns)
    assert item["coef"] == pytest.approx(fit.params_["x"], rel=1e-6)
    assert item["se"] == pytest.approx(fit.standard_errors_["x"], rel=1e-6)
    assert np.log(item["hazard_ratio_per_sd"]) > 2.3


@pytest.mark.parametrize("unit", [1e-7, 1e-12, 1e-30])
def test_a_tiny_unit_changes_nothing_but_the_unit(tools, unit):
    plain, small = fitted(tools, follow_up(0.5)), fitted(tools, follow_up(0.5, unit=unit))
    for key in ("z", "p", "hazard_ratio_per_sd"):
        assert small[key] == pytest.approx(plain[key], rel=1e-8)
    assert small["coef"] * unit == pytest.approx(plain["coef"], rel=1e-8)
    assert small["sd"] == pytest.approx(plain["sd"] * unit, rel=1e-8)


@pytest.mark.parametrize(("beta", "unit"), [(0.5, 1e-4), (-0.8, 1e-5), (1.5, 1e-9)])
def test_a_hazard_ratio_beyond_a_float_is_left_empty_and_not_clipped(tools, beta, unit):
    item = fitted(tools, follow_up(beta, unit=unit))
    assert abs(item["coef"]) > 700
    assert item["hazard_ratio"] is None
    assert item["hazard_ratio_per_sd"] == pytest.approx(np.exp(item["coef"] * item["sd"]), rel=1e-10)
