"""What leaves a site for the steps of a request: each step by itself, and the line that corrects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from fedage.client.compute import predictions
from fedage.client.compute.contribute import BIAS_LINE, contributions
from fedage.common.analyses.base import Done, run_locally
from fedage.common.analyses.bias.bias_line import BiasLine
from fedage.common.analyses.plan import registered
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray
from tests.machinery import columns

FILE = """
[campaign]
name = "contributions"
purpose = "Try what leaves a site for each step"
seed = 7
[estimator]
name = "chest-ca"
[training]
rounds = 1
[privacy]
minimum_count = 5
[bias]
scope = "{scope}"
[survival]
table_times_years = [2, 4, 6, 8, 10]
[[survival.models]]
name = "gap"
covariates = ["gap_years", "age_years"]
[[survival.models]]
name = "true"
covariates = ["true_gap_years"]
"""
RAW = {"evaluation:test", "evaluation:validation", "predicted-by-age", "cox:true"}
CORRECTED = {"evaluation:test-corrected", "table-grid", "cox:gap"}
Iterates = dict[str, Mapping[str, FloatArray]]


def campaign(scope: str = "site") -> Campaign:
    return parse_campaign(FILE.format(scope=scope))


def cohort(*, slope: float = 0.8, healthy: int | None = None) -> Cohort:
    values = columns(400, seed=3)
    predicted = 10 + slope * (values["age_years"] + values["true_gap_years"])
    if healthy is not None:
        validation = np.flatnonzero(values["is_validation"] == 1)
        values["healthy"][validation[healthy:]] = 0.0
    return Cohort({**values, "predicted_years": predicted, "raw_gap_years": predicted - values["age_years"]})


def answered(
    campaign: Campaign, cohort: Cohort, iterates: Iterates, *, folder: Path
) -> tuple[dict[str, FloatArray], dict[str, dict[str, str]]]:
    told = contributions(campaign, cohort, iterates, folder=folder, run="r1", guard=True)
    return told.sums, told.withheld


def steps() -> Iterates:
    return {step: {} for step in sorted(RAW | CORRECTED)}


def test_all_steps_leave(tmp_path: Path) -> None:
    told = contributions(campaign(), cohort(), steps(), folder=tmp_path, run="r1", guard=True)
    assert (set(told.sums), told.withheld) == (RAW | CORRECTED, {})
    assert told.patients == 200  # 100 validated on, 100 tested on; nothing is asked of the 200 trained on
    assert told.smallest_cell is not None
    assert 5 <= told.smallest_cell < 100


def test_nobody_is_behind_what_is_withheld(tmp_path: Path) -> None:
    told = contributions(campaign(), cohort(), {"nonsense": {}}, folder=tmp_path, run="r1", guard=True)
    assert (told.sums, told.patients, told.smallest_cell) == ({}, 0, None)


def test_the_smallest_cell_is_that_of_what_leaves(tmp_path: Path) -> None:
    told = contributions(campaign(), cohort(), {"evaluation:test": {}}, folder=tmp_path, run="r1", guard=True)
    assert (told.patients, told.smallest_cell) == (100, 100)


@pytest.mark.parametrize(
    ("patients", "reason"),
    [
        ({"healthy": 4}, "fewer than 5 healthy validation patients"),
        ({"slope": 0.02}, "cannot be fitted"),
    ],
)
def test_without_a_line_only_what_needs_it_is_withheld(tmp_path: Path, patients: dict[str, float], reason: str) -> None:
    sums, withheld = answered(
        campaign(),
        cohort(**patients),  # type: ignore[arg-type]
        {**steps(), "nonsense": {}},
        folder=tmp_path,
    )
    assert set(sums) == RAW
    assert set(withheld) == {*CORRECTED, "nonsense"}
    for step in CORRECTED:
        assert withheld[step]["rule"] == "bias-line"
        assert reason in withheld[step]["detail"]


def test_a_column_that_is_not_there_is_no_missing_line(tmp_path: Path) -> None:
    without = Cohort({name: values for name, values in cohort(healthy=4).columns.items() if name != "true_gap_years"})
    _, withheld = answered(campaign(), without, steps(), folder=tmp_path)
    assert withheld["cox:true"]["rule"] == "missing-column"
    before = Cohort(columns(400, seed=3))
    sums, withheld = answered(campaign(), before, steps(), folder=tmp_path)
    assert set(sums) == {"cox:true"}
    assert {reason["rule"] for reason in withheld.values()} == {"missing-column"}


def test_sliding_a_pooled_line_past_the_patients(tmp_path: Path) -> None:
    def ask(intercept: float | None) -> tuple[dict[str, FloatArray], dict[str, dict[str, str]]]:
        line: Iterates = {} if intercept is None else {BIAS_LINE: {"line": np.array([0.8, intercept])}}
        return answered(campaign("pooled"), cohort(), {**steps(), **line}, folder=tmp_path)

    assert "does not contain it" in ask(None)[1]["cox:gap"]["detail"]
    assert set(ask(10.0)[0]) == RAW | CORRECTED
    for intercept in (10.01, 10.02, 9.0, 300.0):
        sums, withheld = ask(intercept)
        assert set(sums) == RAW
        assert {withheld[step]["rule"] for step in CORRECTED} == {"bias-line"}
    assert set(ask(10.0)[0]) == RAW | CORRECTED


def test_asking_for_other_means_and_splits_through_the_front_door(tmp_path: Path) -> None:
    patients = cohort()
    ages = np.sort(patients["age_years"][patients["is_test"] == 1])
    either_side = [float(ages[k : k + 2].mean()) for k in (49, 50)]
    answers = [
        answered(campaign(), patients, {step: {"mean_age": np.asarray(value)}}, folder=tmp_path)
        for value, step in zip(either_side, ("evaluation:test", "evaluation:test-corrected"), strict=True)
    ]
    assert set(answers[0][0]) == {"evaluation:test"}
    assert answers[1][0] == {}
    assert answers[1][1]["evaluation:test-corrected"]["rule"] == "iterate"

    line = run_locally(BiasLine(), {"here": patients})
    assert isinstance(line, Done)
    chosen = predictions.with_correction(patients, slope=line.result["slope"], intercept=line.result["intercept_years"])
    gaps = np.sort(chosen["gap_years"][patients["is_test"] == 1])
    found = []
    for k in (49, 50):
        value = float(gaps[k : k + 2].mean())
        split = {"split": np.asarray(value), "low": np.asarray(value - 1), "high": np.asarray(value + 1)}
        iterate = {**split, "ends": np.zeros(6), "following": np.asarray(1.0), "question": np.asarray(1.0)}
        found.append(answered(campaign(), patients, {"table-grid": iterate}, folder=tmp_path))
    assert set(found[0][0]) == {"table-grid"}
    assert found[1][1]["table-grid"]["rule"] == "iterate"


def test_a_scale_of_a_thousandth_makes_no_patient_the_sum(tmp_path: Path) -> None:
    iterate = {
        "beta": np.array([1.0]),
        "last_beta": np.array([0.0]),
        "centre": np.array([0.0]),
        "scale": np.array([1e-3]),
        "last_log_likelihood": np.asarray(-100.0),
        "null_log_likelihood": np.asarray(-100.0),
        "exchange": np.asarray(2.0),
        "columns": np.array([1.0]),
    }
    sums, withheld = answered(campaign(), cohort(), {"cox:true": iterate}, folder=tmp_path)
    assert sums == {}
    assert withheld["cox:true"]["rule"] == "iterate"
    assert "scale" in withheld["cox:true"]["detail"]


@pytest.mark.parametrize("unit", ["days", "months", "one code"])
def test_follow_up_that_is_no_years_is_withheld_with_the_mapping(tmp_path: Path, unit: str) -> None:
    """Days at one site beside years at the others made one curve of both."""
    told = cohort()
    years = told["time_years"]
    times = {
        "days": years * 365.25,
        "months": years * 60,
        "one code": np.where(np.arange(years.size) == 7, 9999, years),
    }
    changed = told.with_columns(time_years=times[unit])
    survival = [step for step in steps() if getattr(registered(campaign())[step], "time", None) == "time_years"]
    assert survival
    sums, withheld = answered(campaign(), changed, steps(), folder=tmp_path)
    for step in survival:
        assert withheld[step]["rule"] == "column-values"
        assert "'time_years' holds times above 130, which are no years" in withheld[step]["detail"]
        assert "divide_by = 365.25" in withheld[step]["detail"]
    assert set(sums) == (RAW | CORRECTED) - set(survival)


def test_events_without_a_0_are_withheld_with_the_mapping(tmp_path: Path) -> None:
    told = cohort()
    changed = told.with_columns(event=np.where(told["event"] == 0, np.nan, told["event"]))
    survival = [step for step in steps() if getattr(registered(campaign())[step], "event", None) == "event"]
    assert survival
    sums, withheld = answered(campaign(), changed, steps(), folder=tmp_path)
    for step in survival:
        assert "'event' holds 1 or nothing where follow-up times are known" in withheld[step]["detail"]
    assert set(sums) == (RAW | CORRECTED) - set(survival)
