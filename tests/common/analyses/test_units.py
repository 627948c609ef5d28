"""A unit is a matter of writing: no analysis leaves anybody out, or finds something else, because a number is large."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from fedage.common.analyses.base import Done, NotComputable, run_locally
from fedage.common.analyses.groups.group_difference import GroupDifference
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from fedage.common.statistics.cohort import Cohort, UnusableColumn

UNITS = [1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e9]


def hospital(rng, n):
    volume = rng.normal(1.2e6, 1.1e5, n)  # a brain in mm³
    age = rng.uniform(40, 80, n)
    male = rng.integers(0, 2, n).astype(float)
    time = rng.exponential(8 * np.exp(-0.03 * (age - 60) + (volume - 1.2e6) / 2e5))
    ill = np.where(rng.random(n) < 0.4, 1.0, 0.0)
    gap = 2.2 * ill + (volume - 1.2e6) / 1e5 + rng.normal(0, 3, n)
    return Cohort(
        {
            "volume": volume,
            "age_years": age,
            "is_male": male,
            "time_years": np.ceil(np.minimum(time, 12) * 4) / 4,
            "event": (time <= 12).astype(float),
            "ill": ill,
            "gap_years": gap,
            "is_test": np.ones(n),
        }
    )


@pytest.fixture(scope="module")
def sites():
    rng = np.random.default_rng(11)
    return {name: hospital(rng, n) for name, n in (("a", 120), ("b", 180), ("c", 90))}


def in_unit(sites, unit):
    """Every volume in another unit; 1 is mm³."""
    return {name: cohort.with_columns(volume=cohort["volume"] * unit) for name, cohort in sites.items()}


def frame(sites):
    columns = ("volume", "age_years", "time_years", "event")
    tables = [pd.DataFrame({name: cohort[name] for name in columns}).assign(site=k) for k, cohort in sites.items()]
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("unit", UNITS)
def test_cox_by_site_is_lifelines_in_every_unit(sites, unit):
    outcome = run_locally(CoxBySite("c", ("volume", "age_years"), subset=None), in_unit(sites, unit))
    assert isinstance(outcome, Done)
    # lifelines stops at an absolute precision, so that it is asked in one unit and its slope carried over.
    table = frame(sites).assign(volume=lambda t: (t.volume - 1.2e6) / 1e5)
    fit = CoxPHFitter().fit(table, "time_years", "event", strata="site", fit_options={"precision": 1e-12})
    volume, age = outcome.result["covariates"]
    assert outcome.result["n"] == 390
    assert outcome.result["left_out"] == 0
    assert volume["coef"] * 1e5 * unit == pytest.approx(fit.params_["volume"], rel=1e-6)
    assert volume["se"] * 1e5 * unit == pytest.approx(fit.standard_errors_["volume"], rel=1e-6)
    assert age["coef"] == pytest.approx(fit.params_["age_years"], rel=1e-6)
    assert volume["sd"] / unit == pytest.approx(frame(sites).volume.std(), rel=1e-9)


@pytest.mark.parametrize("unit", UNITS)
def test_the_group_difference_is_the_same_in_every_unit(sites, unit):
    analysis = GroupDifference("g", "ill", equals=1.0, reference=0.0, covariates=("volume", "age_years"))
    plain, other = (run_locally(analysis, in_unit(sites, u)) for u in (1.0, unit))
    assert other.result["n_group"] + other.result["n_reference"] == 390
    assert other.result["difference_years"] == pytest.approx(plain.result["difference_years"], rel=1e-9)
    assert other.result["se_years"] == pytest.approx(plain.result["se_years"], rel=1e-9)
    assert abs(other.result["difference_years"] - 2.2) < 1


def test_the_group_difference_holds_a_large_covariate_fixed_as_least_squares_does(sites):
    analysis = GroupDifference("g", "ill", equals=1.0, reference=0.0, covariates=("volume",))
    found = run_locally(analysis, in_unit(sites, 1.5)).result
    ill, volume, gap = (np.concatenate([c[k] for c in sites.values()]) for k in ("ill", "volume", "gap_years"))
    site = np.repeat(np.arange(3), [c.n for c in sites.values()])
    x = np.column_stack([ill, volume / 1e5, *(site == k for k in range(3))]).astype(float)
    assert found["difference_years"] == pytest.approx(np.linalg.lstsq(x, gap, rcond=None)[0][0], rel=1e-9)


@pytest.mark.parametrize("value", [1e19, -3e20, 1e300])
def test_a_value_beyond_every_bound_refuses_and_selects_nobody(sites, value):
    cohort = sites["a"]
    volume = cohort["volume"].copy()
    volume[3] = value
    broken = cohort.with_columns(volume=volume)
    models = (
        CoxBySite("c", ("volume",), subset=None),
        CoxPooled("c", ("volume",), (2.0, 6.0, 12.0), subset=None),
        GroupDifference("g", "ill", equals=1.0, reference=0.0, covariates=("volume",)),
    )
    for model in models:
        with pytest.raises(UnusableColumn, match=r"'volume' has a value beyond ±1e\+18") as refused:
            model.local(broken, {})
        assert repr(value) not in str(refused.value)


def test_a_tiny_sd_is_not_called_constant_and_a_constant_is(sites):
    tiny = {name: c.with_columns(volume=1e-7 * (c["volume"] - 1.2e6) / 1e5) for name, c in sites.items()}
    outcome = run_locally(CoxBySite("c", ("volume",), subset=None), tiny)
    assert isinstance(outcome, Done)
    (found,) = outcome.result["covariates"]
    assert found["sd"] < 1.2e-7
    assert found["hazard_ratio"] is None  # e^(coef) per unit is beyond a float, and no e^700 stands in for it
    assert found["ci95"] == [None, None]
    assert 0.3 < found["hazard_ratio_per_sd"] < 0.9
    for constant in (0.0, 1.4e6, 1e-7, 0.1):
        same = {name: c.with_columns(volume=np.full(c.n, constant)) for name, c in sites.items()}
        outcome = run_locally(CoxBySite("c", ("volume",), subset=None), same)
        assert isinstance(outcome, NotComputable)
        assert "volume is the same for all patients" in outcome.reason
        compared = run_locally(
            GroupDifference("g", "ill", equals=1.0, reference=0.0, covariates=("volume",)), same
        ).result
        assert "volume does not vary inside any site" in compared["not_adjusted"]


def test_a_convergent_fit_of_three_and_a_half_per_sd_is_found():
    rng = np.random.default_rng(2)
    x = rng.normal(size=3000)
    time = rng.exponential(size=3000) * np.exp(-3.5 * x)
    cohort = Cohort({"x": x, "time_years": time, "event": np.ones(3000)})
    outcome = run_locally(CoxBySite("c", ("x",), subset=None), {"a": cohort})
    (found,) = outcome.result["covariates"]
    fit = CoxPHFitter().fit(pd.DataFrame({"x": x, "t": time, "e": 1}), "t", "e")
    assert found["coef"] == pytest.approx(fit.params_["x"], abs=1e-5)


@pytest.mark.parametrize("codes", [(1.0, 2.0), (0.0, 2.0), (-1.0, 1.0), (0.0, 1.0, 9.0), (0.5, 1.0)])
@pytest.mark.parametrize("kind", ["by-site", "pooled"])
def test_an_event_coded_otherwise_is_refused_with_the_mapping(sites, codes, kind):
    cohort = sites["a"]
    event = np.resize(np.asarray(codes), cohort.n)
    model = (
        CoxBySite("c", ("age_years",), subset=None)
        if kind == "by-site"
        else CoxPooled("c", ("age_years",), (2.0, 6.0, 12.0), subset=None)
    )
    with pytest.raises(UnusableColumn, match=r"other values than 1 \(event\) and 0 \(censored\).*values = "):
        model.local(cohort.with_columns(event=event), {})


def test_an_unknown_event_is_missing_and_no_code():
    cohort = Cohort(
        {"x": np.arange(6.0), "time_years": np.arange(1.0, 7), "event": np.array([1, 0, np.nan, 1, 0, 1.0])}
    )
    statistic = CoxBySite("c", ("x",), subset=None).local(cohort, {})
    assert (statistic.scalar("n"), statistic.scalar("events"), statistic.scalar("left_out")) == (5, 3, 1)


def test_an_odd_code_outside_of_the_analysed_part_refuses_too(sites):
    """Else whether a site refuses would tell of the one patient with the code whether they are in the part."""
    cohort = sites["a"]
    event, part = cohort["event"].copy(), np.ones(cohort.n)
    event[0], part[0] = 2.0, 0.0
    with pytest.raises(UnusableColumn):
        CoxBySite("c", ("age_years",)).local(cohort.with_columns(event=event, is_test=part), {})
