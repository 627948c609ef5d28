"""Tables of many small hospitals whose sums are hidden: the minimum count is of all together, and they are pooled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.compute.contribute import contributions
from fedage.common.analyses.base import Done, IterateRefused, NotComputable, run_locally
from fedage.common.analyses.plan import registered
from fedage.common.analyses.survival.total_grid import ENOUGH, TotalGrid
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import read_results
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, MemorySite

FILE = """
[campaign]
name = "tables"
purpose = "Tables of many small hospitals together"
seed = 1
[table]
age = "age"
[privacy]
minimum_count = {minimum}
secure_aggregation = {hidden}
[survival]
table_times_years = {times}
{curves_by}
[[survival.models]]
name = "m"
covariates = {covariates}
by_site = false
"""


def campaign(
    times: list[float], *covariates: str, hidden: bool = True, minimum: int = 10, curves_by: str = ""
) -> Campaign:
    by = f'curves_by = "{curves_by}"' if curves_by else ""
    text = FILE.format(
        times=times, hidden=str(hidden).lower(), minimum=minimum, curves_by=by, covariates=list(covariates or ["x"])
    )
    return parse_campaign(text.replace("'", '"'))


def rounded_up(time: FloatArray, times: list[float]) -> FloatArray:
    """Times at the table time that they are counted at; those beyond the last one as they are."""
    k = np.searchsorted(np.asarray(times) * (1 + 1e-12), time)
    return np.where(k < len(times), np.append(times, np.inf)[np.minimum(k, len(times))], time)


def apart(frame: pd.DataFrame, site: str) -> dict[str, Cohort]:
    return {
        str(name): Cohort({c: rows[c].to_numpy(float) for c in rows.columns if c != site})
        for name, rows in frame.groupby(site, observed=True)
    }


def drawn(sites: int, patients: int, *, seed: int = 0, times: list[float] | None = None) -> dict[str, Cohort]:
    """Hospitals with so few patients that none of them could tell a table."""
    rng, found = np.random.default_rng(seed), {}
    for number in range(sites):
        x = rng.normal(size=patients)
        time, censored = rng.exponential(4 * np.exp(-0.5 * x)), rng.uniform(0, 9, patients)
        followed = np.minimum(time, censored)
        found[f"s{number:02d}"] = Cohort(
            {
                "time_years": followed if times is None else rounded_up(followed, times),
                "event": (time <= censored).astype(float),
                "x": x,
                "is_male": (rng.random(patients) < 0.5).astype(float),
                "is_test": np.ones(patients),
                "healthy": np.ones(patients),
            }
        )
    return found


def pooled(sites: dict[str, Cohort]) -> dict[str, Cohort]:
    names = next(iter(sites.values())).columns
    return {"all": Cohort({name: np.concatenate([site[name] for site in sites.values()]) for name in names})}


def grid_of(made: Campaign, sites: dict[str, Cohort]) -> dict[str, object]:
    outcome = run_locally(registered(made)["table-grid"], sites)
    assert isinstance(outcome, Done), outcome
    return outcome.result


def must_hold(made: Campaign, sites: dict[str, Cohort], ends: list[float], *, minimum: int) -> None:
    """Every count of an interval is nobody or enough, all sites together."""
    everybody = pooled(sites)["all"]
    time, event = everybody["time_years"], everybody["event"] == 1
    for after, end in zip([-1.0, *ends], ends, strict=False):
        inside = (time > after) & (time <= end * (1 + 1e-12))
        for kind in (event, ~event):
            assert not 0 < np.count_nonzero(inside & kind) < minimum
    assert not 0 < np.count_nonzero(time > ends[-1]) < minimum


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sites", "patients"), [(40, 12), (20, 40), (6, 100)])
def test_every_count_is_nobody_or_enough_of_all_and_the_split_of_the_patients_changes_nothing(
    sites: int, patients: int, seed: int
) -> None:
    made, hospitals = campaign([0.5 * k for k in range(1, 15)]), drawn(sites, patients, seed=seed)
    found = grid_of(made, hospitals)
    must_hold(made, hospitals, found["table_times"], minimum=10)  # type: ignore[arg-type]
    assert found == grid_of(made, pooled(hospitals))
    steps = registered(made)
    assert run_locally(steps["kaplan-meier"], hospitals) == run_locally(steps["kaplan-meier"], pooled(hospitals))
    assert len(found["table_times"]) >= 3  # type: ignore[arg-type]


def test_bare_sums_of_the_same_hospitals_tell_nothing(tmp_path: Path) -> None:
    """What a site lets pass in a hidden sum, it withholds bare."""
    site = drawn(1, 12)["s00"]
    for hidden in (True, False):
        made = campaign([2.0, 4.0], hidden=hidden)
        step = registered(made)["table-grid"]
        (tmp_path / str(hidden)).mkdir()
        told = contributions(
            made, site, {"table-grid": step.first()}, folder=tmp_path / str(hidden), run="r", guard=True
        )
        assert ("table-grid" in told.sums) == hidden
        assert (told.withheld.get("table-grid", {}).get("rule") == "minimum-count") == (not hidden)


def test_intervals_are_halves_of_halves_and_no_others() -> None:
    grid = registered(campaign([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))["table-grid"]
    assert isinstance(grid, TotalGrid)
    first = grid.first()
    grid.check(first)
    for inside, allowed in (((3,), True), ((3, 1), True), ((1,), False), ((4,), False), ((3, 5, 2), False)):
        ends = first["ends"].copy()
        ends[list(inside)] = 1
        if allowed:
            grid.check({**first, "ends": ends})
        else:
            with pytest.raises(IterateRefused, match="halves of halves"):
                grid.check({**first, "ends": ends})
    with pytest.raises(IterateRefused, match="halves of halves"):
        grid.check({**first, "ends": np.zeros(8)})


def test_too_few_of_all_are_told_as_nothing() -> None:
    outcome = run_locally(registered(campaign([1.0, 2.0]))["table-grid"], drawn(3, 4))
    assert isinstance(outcome, NotComputable)
    assert "of all sites" in outcome.reason


def test_an_interval_is_split_only_where_enough_remain() -> None:
    """Of 19 with an event in an interval not even the halves are asked for."""
    for events, splits in ((2 * ENOUGH * 10, True), (ENOUGH * 10 - 1, False)):
        n = events + 60
        time = np.concatenate([np.linspace(0.1, 3.9, events), np.full(60, 9.0)])
        sites = {
            name: Cohort(
                {
                    "time_years": time[k::3],
                    "event": (np.arange(n) < events).astype(float)[k::3],
                    "x": np.zeros(n)[k::3],
                    "is_test": np.ones(n)[k::3],
                }
            )
            for k, name in enumerate("abc")
        }
        found = grid_of(campaign([1.0, 2.0, 3.0, 4.0]), sites)
        assert (len(found["table_times"]) > 1) == splits  # type: ignore[arg-type]


def real(name: str) -> pd.DataFrame:
    """A table of SurvSet. Imported here: it warns."""
    loader = pytest.importorskip("SurvSet.data").SurvLoader()
    frame: pd.DataFrame = loader.load_dataset(ds_name=name)["df"]
    return frame


REAL = {
    # 24 districts of 10 to 102 patients, in days; 6 institutions of 21 to 46, in years.
    "LeukSurv": (
        "fac_district",
        [0.05, 0.5, 0.75, 1.5, 2.0, 3.0, 4.0, 5.0, 8.0],
        ("num_age", "num_wbc", "num_tpi"),
        365.25,
    ),
    "d.oropha.rec": ("fac_inst", [2.0, 3.0], ("num_age", "num_cond", "num_tstage", "num_nstage"), 1.0),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REAL)
def test_the_tables_of_real_small_hospitals_are_those_of_their_patients_pooled(name: str) -> None:
    """Follow-up at the table times: curves, log-rank test and the model with one baseline are those of lifelines."""
    from lifelines import CoxPHFitter, KaplanMeierFitter

    site, times, covariates, per_year = REAL[name]
    frame = real(name)
    table = frame[[site, "event", *covariates]].assign(
        time_years=rounded_up(frame["time"].to_numpy(float) / per_year, times), is_test=1.0, healthy=1.0
    )
    made, hospitals = campaign(times, *covariates), apart(table, site)
    assert len(hospitals) == {"LeukSurv": 24, "d.oropha.rec": 6}[name]
    found = grid_of(made, hospitals)
    assert (found["exact"], found["table_times"]) == (True, times)
    followed = np.minimum(table["time_years"], times[-1])
    event = table["event"].where(table["time_years"] <= times[-1], 0)
    curve = run_locally(registered(made)["kaplan-meier"], hospitals)
    assert isinstance(curve, Done)
    theirs = KaplanMeierFitter().fit(followed, event).survival_function_at_times(times)
    np.testing.assert_allclose(curve.result["groups"][0]["survival"], theirs, rtol=1e-12)
    model = run_locally(registered(made)["cox:m"], hospitals)
    assert isinstance(model, Done)
    fitted = CoxPHFitter().fit(table[[*covariates]].assign(t=followed, e=event), "t", "e")
    ours = [found["coef"] for found in model.result["covariates"]]
    np.testing.assert_allclose(ours, fitted.params_, rtol=1e-5)
    # Bare, none of them could tell any table.
    bare = registered(campaign(times, *covariates, hidden=False))["table-grid"]
    counts = [found.smallest.count for s in hospitals.values() if (found := bare.local(s, bare.first())).smallest]
    assert sum(count >= 10 for count in counts) < len(hospitals)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REAL)
def test_they_are_so_through_masked_messages_too(name: str, tmp_path: Path) -> None:
    """Every hospital masks; the record is what the coordinator opened."""
    site, times, covariates, per_year = REAL[name]
    frame = real(name)
    table = frame[[site, "event", *covariates]].assign(
        time_years=rounded_up(frame["time"].to_numpy(float) / per_year, times),
        is_test=1.0,
        healthy=1.0,
        age_years=frame["num_age"].astype(float),
    )
    hospitals = apart(table, site)
    made = campaign(times, *covariates)
    members = [
        MemorySite(f"site-{number}", SiteCohort(cohort=cohort, samples=None), tmp_path / "sites")
        for number, cohort in hospitals.items()
    ]
    grid = InProcessGrid(members)
    place = Place(folder=tmp_path / "run", run="r1", environment="simulation", guard=True, sites_there=len(members))
    conduct(PollingGrid(grid, poll_s=0.01), made, place, key=None, admitted=grid.names)
    results = read_results(tmp_path / "run" / "results.json")
    steps = registered(made)
    for step in ("kaplan-meier", "cox:m"):
        expected = run_locally(steps[step], pooled(hospitals))
        assert isinstance(expected, Done)
        found = results.analyses[step].result
        assert found is not None, results.analyses[step].not_computed
        assert results.analyses[step].sites == tuple(sorted(member.name for member in members))
        key = "groups" if step == "kaplan-meier" else "covariates"
        for one, other in zip(found.model_dump()[key], expected.result[key], strict=True):
            for value in ("survival", "coef", "se"):
                if value in other:
                    np.testing.assert_allclose(one[value], other[value], rtol=1e-6)
