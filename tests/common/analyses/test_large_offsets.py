"""Covariates far from zero: what pooled patients give, to 1e-6, whatever their origin and unit."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from fedage.common.analyses.base import NotComputable, run_locally
from fedage.common.analyses.groups.group_difference import GroupDifference
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from fedage.common.statistics.cohort import Cohort

SCALES = {
    "mean 1e6, SD 1": (1e6, 1.0),
    "mean 1e9, SD 1": (1e9, 1.0),
    "mean −1e9, SD 0.01": (-1e9, 0.01),
    "a year of birth": (1950.0, 12.0),
    "a brain volume in mm³": (1.5e6, 1.2e5),
    "seconds since 1970": (1.7e9, 3e7),
    "mean 1e12, SD 1e-2": (1e12, 1e-2),
    "mean 3, SD 1e-9": (3.0, 1e-9),
}


def patients(offset, scale, *, n=400, seed=3):
    """A table with a covariate far from zero beside an ordinary one, 3 sites, times on a grid of ties."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), rng.normal(size=n)
    x = offset + scale * x
    died = rng.exponential(5 * np.exp(-0.5 * (x - offset) / scale - 0.3 * y))
    left = rng.uniform(0, 12, n)
    return pd.DataFrame(
        {
            "x": x, "y": y, "site": np.arange(n) % 3, "event": (died <= left).astype(float),
            "time_years": np.ceil(np.minimum(died, left) * 10) / 10,
        }
    )  # fmt: skip


def cohorts(table):
    return {
        f"s{site}": Cohort({c: rows[c].to_numpy(dtype=float) for c in ("x", "y", "event", "time_years")})
        for site, rows in table.groupby("site")
    }


def lifelines(table, offset, scale, *, strata):
    """The fit of the same floats, centred and scaled beforehand, which a survival package is then exact for."""
    centred = table.assign(x=(table.x - offset) / scale)
    used = centred if strata else centred.drop(columns="site")
    fit = CoxPHFitter().fit(
        used, "time_years", "event", strata=["site"] if strata else None, fit_options={"precision": 1e-12}
    )
    unit = np.array([scale, 1.0])
    return fit.params_[["x", "y"]].to_numpy() / unit, fit.standard_errors_[["x", "y"]].to_numpy() / unit


@pytest.mark.parametrize("model", ["by site", "pooled"])
@pytest.mark.parametrize("name", SCALES)
def test_hazard_ratios_and_errors_are_those_of_pooled_patients(tools, name, model):
    offset, scale = SCALES[name]
    table = patients(offset, scale)
    times = tuple(np.unique(table.time_years))
    asked = (
        CoxBySite("cox", ("x", "y"), subset=None)
        if model == "by site"
        else CoxPooled("cox", ("x", "y"), times, subset=None)
    )
    found = tools.result_of(asked, cohorts(table))
    coef, se = lifelines(table, offset, scale, strata=model == "by site")
    assert [item["coef"] for item in found["covariates"]] == pytest.approx(coef, rel=1e-6)
    assert [item["se"] for item in found["covariates"]] == pytest.approx(se, rel=1e-6)
    sds = table[["x", "y"]].std().to_numpy()
    sds[0] = ((table.x - offset) / scale).std() * scale
    assert [item["sd"] for item in found["covariates"]] == pytest.approx(sds, rel=1e-6)


def test_a_covariate_near_zero_takes_no_more_exchanges_than_before(tools):
    near, far = (
        tools.result_of(CoxBySite("cox", ("x", "y"), subset=None), cohorts(patients(offset, 1.0)))
        for offset in (0.0, 1e6)
    )
    assert far["exchanges"] == near["exchanges"] + 1


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1, -3e12])
@pytest.mark.parametrize("rounding", [0, 1])
def test_what_differs_by_rounding_alone_is_called_the_same(value, rounding):
    table = patients(0.0, 1.0)
    x = np.full(len(table), value)
    x[::2] = np.nextafter(x[::2], np.inf) if rounding and value else x[::2]
    outcome = run_locally(CoxBySite("cox", ("x", "y"), subset=None), cohorts(table.assign(x=x)))
    assert isinstance(outcome, NotComputable)
    assert outcome.reason == "x is the same for all patients; leave it out"


@pytest.mark.parametrize("name", SCALES)
def test_a_group_difference_is_that_of_pooled_least_squares(tools, name):
    offset, scale = SCALES[name]
    table = patients(offset, scale)
    rng = np.random.default_rng(1)
    z = (table.x - offset) / scale
    table["ill"] = (rng.random(len(table)) < 0.5).astype(float)
    table["gap_years"] = 2 * table.ill + 1.5 * z + rng.normal(0, 2, len(table))
    sites = {
        f"s{site}": Cohort({c: rows[c].to_numpy(dtype=float) for c in ("x", "ill", "gap_years")})
        for site, rows in table.groupby("site")
    }
    asked = GroupDifference("groups", "ill", equals=1.0, reference=0.0, covariates=("x",))
    found = tools.result_of(asked, sites)
    design = np.column_stack([table.ill, z, pd.get_dummies(table.site).to_numpy(dtype=float)])
    beta, rss, *_ = np.linalg.lstsq(design, table.gap_years.to_numpy(), rcond=None)
    error = np.sqrt(rss[0] / (len(table) - 5) * np.linalg.inv(design.T @ design)[0, 0])
    assert found["difference_years"] == pytest.approx(beta[0], rel=1e-6)
    assert found["se_years"] == pytest.approx(error, rel=1e-6)
