"""Survival without any model: lung cancer patients by hospital, against lifelines on the same rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.datasets import load_lung
from lifelines.statistics import logrank_test

from fedage.common.analyses.survival import results as survival_results
from fedage.common.analyses.survival.results import CoxResult
from fedage.common.errors import FedAgeError
from tests.deploy.simulating import Simulated, as_csv, simulated

ABOUT = """
[campaign]
name = "lung"
purpose = "Survival with lung cancer by age and sex"
seed = 1

[table]
id = "subject"
age = "age"
sex = "sex"
"""
MODELS = """
[[survival.models]]
name = "by-site"
covariates = ["age", "sex"]

[[survival.models]]
name = "pooled"
covariates = ["age", "sex"]
by_site = false
"""


@pytest.fixture(scope="module")
def lung() -> pd.DataFrame:
    frame = load_lung()
    frame.insert(0, "subject", range(1, len(frame) + 1))
    # In hundreds of days, which pass as years: a hazard ratio has no unit of time.
    return frame.assign(time=frame.time / 100)


def exact_text(lung: pd.DataFrame) -> str:
    """A grid of one day rounds nothing, and every distinct time is a table time."""
    times = [float(time) for time in sorted(lung.time.unique())]
    return f"""{ABOUT}
[simulation]
guard = false

[privacy]
minimum_count = 1

[survival]
time = "time"
event = "status"
time_grid_years = 0.01
table_times_years = {times}
curves_by = "is_male"
{MODELS}"""


@pytest.fixture(scope="module")
def exact(lung: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    folder = tmp_path_factory.mktemp("lung")
    return simulated(folder, exact_text(lung), data=as_csv(lung, folder / "lung.csv"), site_column="inst")


def model(done: Simulated, name: str) -> CoxResult:
    assert survival_results.survival(done.results) is not None
    return next(found for found in survival_results.survival(done.results).cox if found.model == name)


def test_the_row_without_a_hospital_is_said(exact: Simulated) -> None:
    assert "1 row names no site in column 'inst', set aside" in exact.said
    assert sum(site.patients or 0 for site in exact.results.sites) == 227
    assert {"1", "33"} <= {site.name for site in exact.results.sites}


def test_stratified_by_hospital_is_lifelines(exact: Simulated) -> None:
    found = model(exact, "by-site")
    assert [c.coef for c in found.covariates] == pytest.approx([0.0192049, -0.4923516], abs=2e-7)
    assert found.log_likelihood == pytest.approx(-323.5007078, abs=1e-7)
    assert len(found.sites) == 18


def test_one_baseline_for_all_is_lifelines_on_the_same_rows(exact: Simulated, lung: pd.DataFrame) -> None:
    rows = lung.dropna(subset="inst")[["time", "status", "age", "sex"]]
    oracle = CoxPHFitter().fit(rows, "time", "status", fit_options={"precision": 1e-12})
    found = model(exact, "pooled")
    assert found.merged_table_times == 0  # type: ignore[attr-defined]
    assert [c.coef for c in found.covariates] == pytest.approx(oracle.params_.tolist(), abs=1e-6)
    assert [c.se for c in found.covariates] == pytest.approx(oracle.standard_errors_.tolist(), abs=1e-6)
    assert found.log_likelihood == pytest.approx(oracle.log_likelihood_, abs=1e-6)


def test_curves_by_sex_are_lifelines(exact: Simulated, lung: pd.DataFrame) -> None:
    rows = lung.dropna(subset="inst")
    found = survival_results.survival(exact.results).kaplan_meier if survival_results.survival(exact.results) else None
    assert found is not None
    assert found.log_rank is not None
    assert [group.name for group in found.groups] == ["female", "male"]
    for group, sex in zip(found.groups, (2, 1), strict=True):
        of_sex = rows[rows.sex == sex]
        oracle = KaplanMeierFitter().fit(of_sex.time, of_sex.status)
        assert group.n == len(of_sex)
        assert group.median_survival == oracle.median_survival_time_
        known = [np.nan if value is None else value for value in group.survival]
        followed = np.asarray(found.table_times) <= of_sex.time.max()
        assert np.asarray(known)[followed] == pytest.approx(
            oracle.survival_function_at_times(np.asarray(found.table_times)[followed]).to_numpy(), abs=1e-12
        )
    men, women = rows[rows.sex == 1], rows[rows.sex == 2]
    oracle = logrank_test(men.time, women.time, men.status, women.status)
    assert found.log_rank.chi2 == pytest.approx(oracle.test_statistic, abs=1e-9)


def test_all_rows_are_the_published_numbers(lung: pd.DataFrame, tmp_path: Path) -> None:
    """With a hospital for the one row that has none: how patients are spread does not matter to a pooled model."""
    everybody = lung.assign(inst=lung.inst.fillna(99))
    done = simulated(tmp_path, exact_text(lung), data=as_csv(everybody, tmp_path / "lung.csv"), site_column="inst")
    found = model(done, "pooled")
    assert [c.coef for c in found.covariates] == pytest.approx([0.0170453, -0.5132185], abs=1e-7)
    assert found.log_likelihood == pytest.approx(-742.8482458, abs=1e-7)
    curves = survival_results.survival(done.results).kaplan_meier if survival_results.survival(done.results) else None
    assert curves is not None
    assert curves.log_rank is not None
    assert [group.median_survival for group in curves.groups] == [4.26, 2.7]
    assert curves.log_rank.chi2 == pytest.approx(10.3267420, abs=1e-6)


def test_without_a_gap_or_groups_there_is_one_curve(lung: pd.DataFrame, tmp_path: Path) -> None:
    times = [float(time) for time in sorted(lung.time.unique())]
    text = f"""{ABOUT}
[simulation]
guard = false
[privacy]
minimum_count = 1
[survival]
time = "time"
event = "status"
table_times_years = {times}
time_grid_years = 0.01
"""
    done = simulated(tmp_path, text, data=as_csv(lung.assign(inst=1), tmp_path / "lung.csv"), site_column="inst")
    curves = survival_results.survival(done.results).kaplan_meier if survival_results.survival(done.results) else None
    assert curves is not None
    assert [(group.name, group.median_survival) for group in curves.groups] == [("all patients", 3.1)]


GUARDED = """
[privacy]
minimum_count = {minimum}
[survival]
time = "time"
event = "status"
time_grid_years = 0.3
table_times_years = [1.8, 3.6, 7.2]
"""


def test_with_the_guard_on_the_result_says_who_withheld_what_and_why(lung: pd.DataFrame, tmp_path: Path) -> None:
    """Two patients with, or without, an event are too few for three: those hospitals leave, and the rest is exact."""
    text = f"{ABOUT}{GUARDED.format(minimum=3)}{MODELS}"
    done = simulated(tmp_path, text, data=as_csv(lung, tmp_path / "lung.csv"), site_column="inst")
    rows = lung.dropna(subset="inst")
    counts = rows.groupby(rows.inst.astype(int)).status.agg(["size", "sum"])
    small = {str(site) for site in counts.index[counts["size"] < 3]}
    without = counts["size"] - counts["sum"]
    few = {str(site) for site in counts.index[without.isin([1, 2]) | counts["sum"].isin([1, 2])]} - small
    # Of fewer than six there are no three of either sex, so the site is too small for the model, not sex for the site.
    too_few_for_sex = {str(site) for site in counts.index[counts["size"] < 6]} - small - few
    assert too_few_for_sex
    assert small
    assert few
    by_name = {site.name: site for site in done.results.sites}
    assert {name for name, site in by_name.items() if site.status == "refused"} == small
    assert all("fewer than 3 patients in the cohort" in by_name[name].reason for name in small)
    for name in set(by_name) - small:
        withheld = {item.step: item.reason for item in by_name[name].withheld}
        assert ("cox:by-site" in withheld) == (name in few | too_few_for_sex)
        if name in too_few_for_sex:
            assert withheld.pop("cox:by-site").startswith("influence: the patients followed are too few")
        withheld.pop("cox:pooled", None)  # its tables need as many men and women of the dead and of the others
        assert all(
            reason.startswith("minimum-count: fewer than 3 patients in the cell") for reason in withheld.values()
        )
    found = model(done, "by-site")
    assert set(found.sites) == set(by_name) - small - few - too_few_for_sex
    kept = rows[rows.inst.astype(int).astype(str).isin(found.sites)][["time", "status", "age", "sex", "inst"]]
    kept = kept.assign(time=np.ceil(kept.time / 0.3 - 1e-9) * 0.3)
    oracle = CoxPHFitter().fit(kept, "time", "status", strata="inst", fit_options={"precision": 1e-12})
    assert [c.coef for c in found.covariates] == pytest.approx(oracle.params_.tolist(), abs=1e-6)


def test_with_ten_nobody_may_contribute_and_that_is_the_reason_given(lung: pd.DataFrame, tmp_path: Path) -> None:
    text = f"{ABOUT}{GUARDED.format(minimum=10)}{MODELS}"
    done = simulated(tmp_path, text, data=as_csv(lung, tmp_path / "lung.csv"), site_column="inst")
    assert model(done, "by-site").not_computed == "every site withheld its contribution"
    told = [site for site in done.results.sites if site.status == "took part"]
    assert len(told) == 9
    for site in told:
        assert {item.step: item.reason for item in site.withheld}["cox:by-site"].endswith("'patients without an event'")
    assert done.results.run.guard
    assert "every site withheld" in (done.folder / "report.html").read_text()


def test_no_event_at_all_is_said(lung: pd.DataFrame, tmp_path: Path) -> None:
    text = f"""{ABOUT}
[simulation]
guard = false
[privacy]
minimum_count = 1
[survival]
time = "time"
event = "status"
time_grid_years = 0.01
table_times_years = [5]
{MODELS}"""
    done = simulated(tmp_path, text, data=as_csv(lung.assign(status=0), tmp_path / "lung.csv"), site_column="inst")
    for name in ("by-site", "pooled"):
        assert "no event at all among 227 patients" in model(done, name).not_computed


def test_events_coded_1_and_2_are_not_taken_for_1_and_0(lung: pd.DataFrame, tmp_path: Path) -> None:
    text = f"""{ABOUT}
[survival]
time = "time"
event = "status"
"""
    coded = lung.assign(status=lung.status + 1, inst="all")
    with pytest.raises(FedAgeError, match=r"column 'status' holds other values than 1 \(event\) and 0 \(censored\)"):
        simulated(tmp_path, text, data=as_csv(coded, tmp_path / "lung.csv"), site_column="inst")


def test_an_analysis_on_predictions_of_others_needs_the_gap_column(lung: pd.DataFrame, tmp_path: Path) -> None:
    text = f"""{ABOUT}
[survival]
time = "time"
event = "status"
[[survival.models]]
name = "gap"
covariates = ["gap_years", "age_years"]
"""
    with pytest.raises(FedAgeError, match=r"has no column 'gap_years' .*predicted ages in table.predicted"):
        simulated(tmp_path, text, data=as_csv(lung, tmp_path / "lung.csv"), site_column="inst")
