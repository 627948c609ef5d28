"""Follow-up times of 0: patients who leave at once, in every analysis what lifelines makes of them."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter

from fedage.common.analyses.base import NotComputable, run_locally
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from fedage.common.analyses.survival.follow_up import with_start
from fedage.common.analyses.survival.kaplan_meier import KaplanMeier
from fedage.common.analyses.survival.table_grid import TableGrid
from fedage.common.statistics.cohort import Cohort

COVARIATES = ("age", "sex")
ZEROS = {
    "a death": ([3], 1.0),
    "a censored patient": ([3], 0.0),
    "several deaths": ([0, 5, 9, 11], 1.0),
    "several censored": ([0, 5, 9, 11, 60], 0.0),
    "both": ([0, 5, 9, 11, 60, 61, 62], None),
    "nobody": ([], None),
}


@pytest.fixture
def leaving(lung):
    """The lung table with whole months, in which these rows leave at 0."""

    def made(kind):
        rows, event = ZEROS[kind]
        frame = lung.dropna().reset_index(drop=True).assign(time=lambda x: np.ceil(x["time"] / 30))
        frame["event"] = frame.pop("status")
        frame.loc[rows, "time"] = 0.0
        if event is not None:
            frame.loc[rows, "event"] = event
        return frame

    return made


def fitted(frame: pd.DataFrame, **options) -> pd.Series:
    fitter = CoxPHFitter()
    columns = [*COVARIATES, "time", "event", *options.get("strata", ())]
    fitter.fit(frame[columns], "time", "event", fit_options={"precision": 1e-12}, **options)
    return fitter.params_


def times_of(frame: pd.DataFrame) -> tuple[float, ...]:
    """What a file names: every distinct time above 0; the plan adds 0."""
    return with_start(tuple(float(time) for time in np.unique(frame["time"]) if time > 0))


def coefficients(result) -> list[float]:
    return [one["coef"] for one in result["covariates"]]


@pytest.mark.parametrize("kind", ZEROS)
def test_one_baseline_hazard(leaving, tools, kind):
    frame = leaving(kind)
    model = CoxPooled("c", COVARIATES, times_of(frame), time="time", event="event", subset=None)
    result = tools.result_of(model, tools.cut(frame, 3, 7))
    assert result["likelihood"].startswith("risk sets at the exact times")
    assert coefficients(result) == pytest.approx(list(fitted(frame)), abs=1e-6)
    assert result["events"] == frame["event"].sum()
    assert (0.0 in result["table_times"]) is (kind != "nobody")
    assert result["merged_table_times"] == 0


@pytest.mark.parametrize("kind", ZEROS)
def test_stratified_by_site(leaving, tools, kind):
    frame = leaving(kind)
    frame["site"] = np.arange(len(frame)) % 3
    sites = {f"s{k}": tools.cohort_of(rows) for k, rows in frame.groupby("site")}
    model = CoxBySite("c", COVARIATES, time="time", event="event", subset=None)
    expected = fitted(frame, strata=["site"])
    assert coefficients(tools.result_of(model, sites)) == pytest.approx(list(expected), abs=1e-6)


@pytest.mark.parametrize("kind", ZEROS)
def test_curves(leaving, tools, kind):
    frame = leaving(kind)
    times = times_of(frame)
    result = tools.result_of(
        KaplanMeier("k", times, gap=None, time="time", event="event", subset=None), tools.cut(frame, 3, 7)
    )
    at_zero = kind != "nobody"
    assert result["table_times"] == list(times if at_zero else times[1:]) == result["asked_times"]
    assert result["merged_table_times"] == 0
    published = KaplanMeierFitter().fit(frame["time"], frame["event"]).predict(result["table_times"])
    assert result["groups"][0]["survival"] == pytest.approx(list(published), abs=1e-6)


def test_deaths_at_zero_before_grouped_times():
    """Where times lie between table times, who dies at 0 still dies among everybody."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=2000)
    frame = pd.DataFrame({"x": x, "time": rng.exponential(5 / np.exp(0.7 * x)) + 1e-3, "event": 1.0})
    frame.loc[np.argsort(x)[:60], "time"] = 0.0
    model = CoxPooled("c", ("x",), with_start(tuple(np.arange(1, 600) / 20)), time="time", subset=None)
    result = run_locally(model, {"a": Cohort({name: frame[name].to_numpy() for name in frame})}).result
    assert "person-time" in result["likelihood"]
    cut_off = frame.assign(event=(frame["time"] <= result["follow_up_ends_years"]).astype(float))
    expected = CoxPHFitter().fit(cut_off, "time", "event").params_["x"]
    without = CoxPHFitter().fit(cut_off[cut_off["time"] > 0], "time", "event").params_["x"]
    assert coefficients(result) == pytest.approx([expected], abs=0.005)
    assert abs(without - expected) > 0.1


@pytest.mark.parametrize(("few", "first"), [(0, 0), (4, 1), (12, 0)])
def test_few_at_zero_are_told_with_those_after_them(few, first):
    """A cell of time 0 is a cell like any other: fewer patients than the minimum do not show."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"time": rng.uniform(0.1, 9.9, 800), "event": (rng.random(800) < 0.5).astype(float)})
    frame.loc[: few - 1, ["time", "event"]] = 0.0, 1.0
    cohort = Cohort({name: frame[name].to_numpy() for name in frame})
    grid = TableGrid("g", with_start((2.0, 4.0, 6.0, 8.0)), time="time", subset=None, minimum_count=10)
    ends = run_locally(grid, {"a": cohort}).result["ends"]
    assert ends == list(range(first, 5))
    curve = run_locally(
        KaplanMeier("k", grid.times, gap=None, time="time", subset=None, minimum_count=10, grid=grid), {"a": cohort}
    ).result
    assert curve["table_times"] == ([0.0] if few == 12 else []) + [2.0, 4.0, 6.0, 8.0]


def test_a_site_too_small_for_any_interval_is_told_so():
    """Nobody leaves at 0, so that every site could tell that; a site with nothing else to tell has no part."""
    cohort = Cohort({"time": np.linspace(0.5, 9.5, 12), "event": np.array([1.0, 0.0] * 6)})
    grid = TableGrid("g", with_start((2.0, 4.0)), time="time", subset=None, minimum_count=10)
    outcome = run_locally(grid, {"a": cohort})
    assert isinstance(outcome, NotComputable)
    assert "no table time" in outcome.reason or "no patient" in outcome.reason
    statistic = grid.local(cohort, grid.first())
    assert statistic.smallest is not None
    assert statistic.smallest.count < 10
