"""`fedage simulate --check-pooled`: every figure of a run against lifelines and numpy on one table of all patients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.common import estimators
from fedage.common.campaign import Campaign
from fedage.common.estimators.table_ridge import TableRidge
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.deploy.pooled import check, models
from fedage.server.record.results import PooledCheck, PooledFigure, Results, read_results
from tests.deploy.simulating import simulated

CAMPAIGN = """
[campaign]
name = "checked"
purpose = "Hold a run with everything in it against one table of all patients"
seed = 7

[estimator]
name = "table-ridge"
[estimator.options]
features = ["x*"]

[table]
id = "who"
age = "age"
sex = "sex"

[cohort]
train_on = "healthy"
[cohort.healthy]
column = "ill"
equals = 0

[validation]
folds = 3

[privacy]
minimum_count = 3
patients_per_column = 0

[groups]
column = "ill"
equals = 1
reference = 0

[survival]
table_times_years = [1, 2, 3, 4, 5]
time_grid_years = 0.1

[[survival.models]]
name = "gap"
covariates = ["gap_years", "age_years"]

[[survival.models]]
name = "one-baseline"
covariates = ["gap_years", "age_years"]
by_site = false
"""
PATIENTS, SITES = 360, 3
STEPS = {"evaluation:test", "evaluation:test-corrected", "bias", "cox:gap", "groups:gap", "groups:raw-gap"}


def write_table(path: Path) -> Path:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(PATIENTS, 6))
    ill = rng.random(PATIENTS) < 0.4
    age = np.exp(3.9 + 0.15 * x[:, 0] - 0.1 * x[:, 1] + 0.05 * rng.normal(size=PATIENTS))
    x[:, 0] += 0.3 * ill
    time = rng.exponential(6.0, PATIENTS) * np.exp(-0.3 * x[:, 0])
    leaves = rng.uniform(0.5, 8.0, PATIENTS)
    frame = pd.DataFrame(x, columns=[f"x{k}" for k in range(6)]).assign(
        who=[f"p{k}" for k in range(PATIENTS)],
        site=[f"s{k % SITES}" for k in range(PATIENTS)],
        age=age,
        sex=np.arange(PATIENTS) % 2,
        ill=ill.astype(int),
        time_years=np.minimum(time, leaves),
        event=(time <= leaves).astype(int),
    )
    frame.loc[20:22, "time_years"] = np.nan
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results, PooledCheck]:
    """A run, its record, and the check of a record whose figures were altered after the run."""
    folder = tmp_path_factory.mktemp("checked")
    run = simulated(folder, CAMPAIGN, data=write_table(folder / "table.csv"), site_column="site")
    campaign = load_campaign(run.folder / "campaign.toml")
    check.record_check(run.job, campaign)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(estimators._REGISTERED, "renamed", (__name__, "Renamed"))
        altered = check.check_pooled(run.job, renamed(campaign), with_faults(run.results))
    return run.folder, read_results(run.folder / "results.json"), altered


class Renamed(TableRidge):
    """The same phase in an estimator of another name."""

    name = "renamed"


def renamed(campaign: Campaign) -> Campaign:
    assert campaign.estimator is not None
    return campaign.model_copy(update={"estimator": campaign.estimator.model_copy(update={"name": "renamed"})})


def with_faults(results: Results) -> Results:
    """A coefficient off by 0.001, one site's MAE by 0.01 years, and a bias line of another site."""
    values = json.loads(results.model_dump_json())
    steps = values["analyses"]
    next(step for name, step in steps.items() if name.startswith("cox:"))["result"]["covariates"][0]["coef"] += 1e-3
    steps["evaluation:test"]["by_site"]["s1"]["mae_years"] += 1e-2
    lines = steps["bias"]["by_site"]
    lines["s0"], lines["s2"] = lines["s2"], lines["s0"]
    return Results.model_validate(values)


def pooled_check(results: Results) -> PooledCheck:
    assert results.pooled_check is not None
    return results.pooled_check


def test_every_exact_figure_equals_that_of_one_table(checked: tuple[Path, Results, PooledCheck]) -> None:
    found = pooled_check(checked[1])
    steps = {figure.step for figure in found.figures if not figure.grouped}
    assert steps == STEPS | {f"ridge, fold {fold}" for fold in (1, 2, 3)}
    assert found.largest_difference is not None
    assert found.largest_difference < 1e-7


def test_figures_from_grouped_times_are_apart_and_near(checked: tuple[Path, Results, PooledCheck]) -> None:
    found = pooled_check(checked[1])
    grouped = {figure.step for figure in found.figures if figure.grouped}
    assert grouped | set(found.not_compared) >= {"kaplan-meier", "cox:one-baseline"}
    assert "kaplan-meier" in grouped
    curves = [figure for figure in found.figures if "fraction without" in figure.figure]
    assert curves
    assert max(abs(figure.difference) for figure in curves) < 0.05


def test_a_ridge_is_known_by_its_phase_and_not_by_the_estimators_name(
    checked: tuple[Path, Results, PooledCheck],
) -> None:
    by_phase, by_name = (
        {figure.step: figure.difference for figure in found.figures if figure.step.startswith("ridge")}
        for found in (checked[2], pooled_check(checked[1]))
    )
    assert by_phase == by_name
    assert set(by_phase) == {f"ridge, fold {fold}" for fold in (1, 2, 3)}


def test_a_fault_in_a_figure_shows_with_its_size_and_its_place(checked: tuple[Path, Results, PooledCheck]) -> None:
    def differing(figure: PooledFigure) -> bool:
        return not figure.grouped and abs(figure.difference) > 1e-6

    faults = {
        (figure.step, figure.site, figure.figure): figure.difference
        for figure in checked[2].figures
        if differing(figure)
    }
    assert faults.pop(("cox:gap", None, "coef of gap_years")) == pytest.approx(1e-3, abs=1e-6)
    assert faults.pop(("evaluation:test", "s1", "mae_years")) == pytest.approx(1e-2, abs=1e-6)
    assert {key[:2] for key in faults} == {("bias", "s0"), ("bias", "s2")}


def test_the_report_names_the_largest_difference(checked: tuple[Path, Results, PooledCheck]) -> None:
    folder, results, _ = checked
    text = (folder / "report.html").read_text(encoding="utf-8")
    exact = [figure for figure in pooled_check(results).figures if not figure.grouped]
    assert "Against one table of all patients" in text
    assert f"{len(exact)} figures compared with one table of the same patients that are exact sums" in text


def test_the_line_and_the_difference_are_those_of_a_hand_computation() -> None:
    line = models.line(np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0]))
    assert (line.slope, line.intercept_years) == pytest.approx((1.5, 5 / 6))
    assert line.residual_sd_years == pytest.approx(np.sqrt(1 / 6))
    # Two sites, group means 1 and 3 apart from their references: weighted by n1·n0/n of each, (1·1 + 3·1)/2.
    y = np.array([0.0, 0.0, 1.0, 1.0, 5.0, 5.0, 8.0, 8.0])
    group = np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    found, se = models.difference(y, group, np.empty((8, 0)), ["a"] * 4 + ["b"] * 4)
    assert found == pytest.approx(2.0)
    assert se == pytest.approx(np.sqrt(8 * 0.25 / 5 / 2))
