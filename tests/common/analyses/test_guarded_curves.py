"""Curves under the minimum count against the truth, in few repetitions; `bench_survival_tables.py` has many.

Allowed is the figure measured there over 500 repetitions plus three standard errors of the few repetitions here.
"""

from __future__ import annotations

import numpy as np
import pytest

from fedage.common.analyses.base import Done, NotComputable
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.cox_pooled import MOST_LEAVING, CoxPooled
from fedage.common.analyses.survival.kaplan_meier import KaplanMeier
from fedage.common.statistics.cohort import Cohort
from tests.bench.bench_survival_tables import BETA, GRIDS, SHAPES, SIZES, curve_of, hospitals, points, run_guarded

REPETITIONS = 40
FALLS = "Weibull .6"
"""A hazard that falls: too many leave in the first interval, so that a model with one baseline is refused."""


@pytest.mark.parametrize("hazard", SHAPES)
@pytest.mark.parametrize(("name", "most"), [("five of 200", 0.007), ("five of 1000", 0.002)])
def test_points_given_up_to_five_years_are_right(name: str, most: float, hazard: str) -> None:
    rng, shape = np.random.default_rng(7), SHAPES[hazard]
    found = [
        point
        for _ in range(REPETITIONS)
        for point in points(curve_of(hospitals(SIZES[name], shape, rng), GRIDS["half years"]), shape)
        if point[3] and point[0] <= 5
    ]
    _, error, covers, _ = np.array(found, dtype=float).T
    assert len(found) >= REPETITIONS  # at least one a curve
    assert abs(error.mean()) < most + 3 * error.std() / REPETITIONS**0.5
    assert covers.mean() > 0.93 - 3 * (0.05 * 0.95 / REPETITIONS) ** 0.5


@pytest.mark.parametrize("hazard", SHAPES)
@pytest.mark.parametrize("grid", ["1, 2, 3, 5, 8, 10", "half years"])
def test_no_point_of_five_hospitals_of_80_is_given(grid: str, hazard: str) -> None:
    rng, shape = np.random.default_rng(7), SHAPES[hazard]
    for _ in range(REPETITIONS):
        outcome = curve_of(hospitals(SIZES["five of 80"], shape, rng), GRIDS[grid])
        if isinstance(outcome, NotComputable):
            assert len(outcome.reason) > 40
            continue
        assert isinstance(outcome, Done)
        (group,) = outcome.result["groups"]
        assert len(group["refused"]) == len(outcome.result["table_times"])
        for value, why in zip(group["survival"], group["refused"], strict=True):
            assert (value is None) == bool(why)
        if len(group["survival"]) == 1:
            assert group["survival"] == [None]


@pytest.mark.parametrize("hazard", SHAPES)
def test_one_baseline_hazard_is_right_or_refused_and_strata_by_site_always_right(hazard: str) -> None:
    rng, fits, refused, by_site = np.random.default_rng(3), [], 0, []
    for name in ("five of 1000", "60 to 600"):
        for _ in range(12):
            sites = hospitals(SIZES[name], SHAPES[hazard], rng, beta=BETA)
            model = CoxPooled("cox", ("x",), GRIDS["half years"], subset=None, minimum_count=10)
            outcome = run_guarded(model, sites, minimum=10)
            if isinstance(outcome, NotComputable):
                refused += 1
                assert "by_site = true" in outcome.reason or "minimum count" in outcome.reason
            elif isinstance(outcome, Done):
                fits.append((outcome.result["covariates"][0]["coef"], outcome.result["covariates"][0]["se"]))
                assert "person-time" in outcome.result["likelihood"]
            stratified = run_guarded(CoxBySite("cox", ("x",), subset=None, time_grid_years=0.25), sites, minimum=10)
            assert isinstance(stratified, Done)
            by_site.append(stratified.result["covariates"][0]["coef"])
    assert refused >= 12
    assert np.mean(by_site) == pytest.approx(BETA, abs=0.03)
    assert bool(fits) == (hazard != FALLS)
    if fits:
        b, se = np.array(fits).T
        assert abs(b.mean() - BETA) < 0.010 + 3 * se.mean() / len(fits) ** 0.5
        assert np.mean(np.abs(b - BETA) < 1.96 * se) > 0.7


def test_the_share_that_may_leave_is_what_decides() -> None:
    """A hazard that changes inside long intervals is refused, whatever the number of patients."""
    rng = np.random.default_rng(0)
    sites = hospitals((20000,) * 2, SHAPES["Weibull 2"], rng, beta=BETA)
    for times, computed in (((3.0, 6.0, 9.0), False), (tuple(k / 4 for k in range(1, 30)), True)):
        outcome = run_guarded(CoxPooled("cox", ("x",), times, subset=None, minimum_count=10), sites, minimum=10)
        assert isinstance(outcome, Done) == computed
        if isinstance(outcome, Done):
            assert outcome.result["covariates"][0]["coef"] == pytest.approx(BETA, abs=0.03)
            assert outcome.result["follow_up_ends_years"] <= times[-1]
    assert 0 < MOST_LEAVING < 0.5


@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
@pytest.mark.parametrize("smallest", [0, 60, 120, 200])
@pytest.mark.parametrize("asked", [(0.5, 1.0, 1.5, 2.0, 2.5, 3.0), (1.0, 2.0, 3.0), tuple(k / 4 for k in range(1, 13))])
def test_67_dialysis_centres_are_not_drawn_too_high(asked: tuple[float, ...], smallest: int) -> None:
    """A real table, in whole months: what is told of the centres that can tell encloses their exact curve."""
    # Imported here: it warns.
    from SurvSet.data import SurvLoader

    frame = SurvLoader().load_dataset(ds_name="Dialysis")["df"]
    sites = {
        str(name): Cohort({"time_years": rows["time"].to_numpy(float) / 12, "event": rows["event"].to_numpy(float)})
        for name, rows in frame.groupby("fac_center", observed=True)
    }
    assert len(sites) == 67
    grid = KaplanMeier("k", asked, gap=None, subset=None, minimum_count=10).preceding
    answers = {name: grid.local(site, grid.first()).smallest for name, site in sites.items() if site.n >= smallest}
    there = {name: sites[name] for name, cell in answers.items() if cell is not None and cell.count >= 10}
    outcome = curve_of(there, asked)
    assert isinstance(outcome, Done) == (smallest == 200)
    if isinstance(outcome, NotComputable):
        assert "survival.curves_from_patients" in outcome.reason
        return
    assert isinstance(outcome, Done)
    (group,) = outcome.result["groups"]
    exact = curve_of(there, tuple(k / 12 for k in range(1, 61)), minimum=1)
    assert isinstance(exact, Done)
    for at, t in enumerate(outcome.result["table_times"]):
        true = exact.result["groups"][0]["survival"][round(12 * t) - 1]
        assert group["bound_low"][at] - 1e-9 <= true <= group["bound_high"][at] + 1e-9
        if group["survival"][at] is not None:
            assert group["ci95_low"][at] <= true <= group["ci95_high"][at]


def test_the_curve_is_exact_where_no_minimum_groups_it() -> None:
    sites = hospitals(SIZES["five of 80"], 1.0, np.random.default_rng(0))
    times = tuple(sorted(float(t) for site in sites.values() for t in site["time_years"]))
    found = curve_of(sites, times, minimum=1)
    assert isinstance(found, Done)
    (group,) = found.result["groups"]
    assert found.result["merged_table_times"] == 0
    assert group["bound_low"] == pytest.approx(group["bound_high"], abs=1e-12)
    assert isinstance(run_guarded(KaplanMeier("k", times, gap=None, subset=None), sites, minimum=1), Done)
