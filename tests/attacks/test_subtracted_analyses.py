"""Two analyses of one file, of which one leaves a few patients out: their sums subtracted are those patients' own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedage.client.cohort.selection.parts import count_set_aside, part_sizes, with_parts
from fedage.common.analyses.same_patients import few_apart, sets_summed
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from tests.attacks.asked_of_a_site import Attacker

FILE = """
[campaign]
name = "subtracted"
purpose = "Subtract the sums of two analyses"
seed = 3
[table]
id = "id"
age = "age"
predicted = "predicted"
[privacy]
minimum_count = 10
patients_per_column = 0
[groups]
column = "ill"
equals = 1
reference = 0
covariates = ["age_years"]
[survival]
curves_by = "ill"
[[survival.models]]
name = "all"
covariates = ["age_years"]
[[survival.models]]
name = "by-score"
covariates = ["age_years", "score"]
"""
CAMPAIGN = parse_campaign(FILE)
N, MINIMUM = 120, 10
Lacks = Callable[[dict[str, np.ndarray], np.ndarray], None]


def columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    age = rng.uniform(40, 80, N)
    predicted = age + rng.normal(0, 5, N)
    return {
        "age_years": age,
        "predicted_years": predicted,
        "raw_gap_years": predicted - age,
        "time_years": rng.exponential(5, N),
        "event": (rng.random(N) < 0.5).astype(float),
        "score": rng.normal(0, 1, N),
        "ill": (np.arange(N) % 2).astype(float),
    }


def lacking(name: str, value: float = np.nan) -> Lacks:
    def lacks(values: dict[str, np.ndarray], who: np.ndarray) -> None:
        values[name] = values[name].copy()
        values[name][who] = value

    return lacks


LACKING = {
    "no score": lacking("score"),
    "no follow-up": lacking("time_years"),
    "a follow-up before 0": lacking("time_years", -1.0),
    "no group": lacking("ill"),
    "another group": lacking("ill", 2.0),
    "no predicted age": lacking("predicted_years"),
}


def at_the_site(lacks: Lacks, few: int, campaign: Campaign = CAMPAIGN) -> Cohort:
    values = columns()
    lacks(values, np.arange(few))
    values["raw_gap_years"] = values["predicted_years"] - values["age_years"]
    return with_parts(Cohort(values), np.linspace(0, 0.999, N), campaign)


def patients_told(cohort: Cohort, folder: Path) -> dict[str, int]:
    """By analysis how many patients it says it is over, as asked by whoever likes."""
    attacker = Attacker(campaign=CAMPAIGN, cohort=cohort, folder=folder)
    told = {"described": part_sizes(cohort, CAMPAIGN)["test"]}
    for step in ("evaluation:test", "cox:all", "cox:by-score", "groups:gap", "predicted-by-age", "error-curve:test"):
        got = [statistic for statistic in attacker.everything(step) if "fails" not in names(statistic)]
        if got:
            last = got[-1]
            told[step] = round(
                sum(float(last[name].sum()) for name in ("n", "n_group", "n_reference") if name in names(last))
            )
            assert float(last["left_out"]) == 0 or float(last["left_out"]) >= MINIMUM
    return told


def names(statistic: object) -> set[str]:
    return {field.name for field in statistic.layout.fields}  # type: ignore[attr-defined]


@pytest.mark.parametrize("few", [1, 3, 9])
@pytest.mark.parametrize("lacks", LACKING.values(), ids=LACKING)
def test_no_two_analyses_differ_by_a_few_patients(lacks: Lacks, few: int, tmp_path: Path) -> None:
    cohort = at_the_site(lacks, few)
    told = patients_told(cohort, tmp_path)
    assert {"evaluation:test", "cox:all", "groups:gap"} <= set(told)
    assert set(told.values()) == {N - few}
    assert count_set_aside(cohort)["too-few-incomplete"] == few


@pytest.mark.parametrize("lacks", LACKING.values(), ids=LACKING)
def test_enough_who_lack_a_value_cost_the_others_analyses_nothing(lacks: Lacks, tmp_path: Path) -> None:
    cohort = at_the_site(lacks, MINIMUM)
    told = patients_told(cohort, tmp_path)
    assert count_set_aside(cohort)["too-few-incomplete"] == 0
    assert told["described"] == N
    assert set(told.values()) == {N, N - MINIMUM}


def test_a_few_who_lack_one_value_and_a_few_who_lack_another_are_all_set_aside(tmp_path: Path) -> None:
    values = columns()
    lacking("score")(values, np.arange(4))
    lacking("time_years")(values, np.arange(3, 9))
    cohort = with_parts(Cohort(values), np.linspace(0, 0.999, N), CAMPAIGN)
    assert count_set_aside(cohort)["too-few-incomplete"] == 9
    assert set(patients_told(cohort, tmp_path).values()) == {N - 9}


@pytest.mark.parametrize("few", [1, 3, 9])
def test_groups_are_compared_among_those_who_have_a_predicted_age(few: int, tmp_path: Path) -> None:
    """8 lack a group and a predicted age, 12 a predicted age, and a few a group only."""
    values = columns()
    lacking("predicted_years")(values, np.arange(20))
    lacking("ill")(values, np.r_[0:8, 20 : 20 + few])
    values["raw_gap_years"] = values["predicted_years"] - values["age_years"]
    cohort = with_parts(Cohort(values), np.linspace(0, 0.999, N), CAMPAIGN)
    told = patients_told(cohort, tmp_path)
    assert told["evaluation:test"] == told["groups:gap"] == N - 20 - few


def test_an_attacker_finds_one_patient_s_age_where_nobody_is_set_aside(tmp_path: Path) -> None:
    """The attack itself: Σ age over all less Σ age over those with a score."""
    few = at_the_site(LACKING["no score"], 1)
    everybody = few.with_columns(is_test=np.ones(N))
    attacker = Attacker(campaign=CAMPAIGN, cohort=everybody, folder=tmp_path / "attack")
    over_all, with_score = (attacker.everything(step)[1] for step in ("cox:all", "cox:by-score"))
    assert over_all["x"][0] - with_score["x"][0] == pytest.approx(few["age_years"][0])
    attacker = Attacker(campaign=CAMPAIGN, cohort=few, folder=tmp_path / "rule")
    over_all, with_score = (attacker.everything(step)[1] for step in ("cox:all", "cox:by-score"))
    assert over_all["x"][0] == pytest.approx(with_score["x"][0], rel=1e-12)


def test_the_rule_against_a_slow_one() -> None:
    """Whatever the sets, those that are left are equal or far apart, and nobody is set aside without need."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        sets = [rng.random(40) < share for share in rng.choice([0.5, 0.9, 0.97, 1.0], 4)]
        aside = few_apart(sets, minimum=5)
        left = [set(np.flatnonzero(one & ~aside)) for one in sets]
        apart = [len(a ^ b) for a in left for b in left if min(len(a), len(b)) >= 5]
        assert all(size == 0 or size >= 5 for size in apart)
        if all(not 0 < np.count_nonzero(a ^ b) < 5 for a in sets for b in sets):
            assert not aside.any()


def test_sets_are_those_of_the_file() -> None:
    cohort = at_the_site(LACKING["no score"], 2)
    counts = sorted({int(one.sum()) for one in sets_summed(CAMPAIGN, cohort)})
    assert counts[-1] == N - 2
