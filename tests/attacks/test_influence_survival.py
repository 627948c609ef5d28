"""Attacks on the sums of a Cox model and of a comparison of groups: a covariate that hardly anybody has.

S2 of the one-baseline model's first exchange, and Σx of both models', are the record of the one patient who has a 0/1
covariate. With the guard off the attack gives it; with the guard on the covariate leaves in no sum.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.common.analyses.agreement import COLUMNS, NOT_AGREED, Agreed
from fedage.common.analyses.base import Again, Done, Following, run_locally
from fedage.common.analyses.groups.group_difference import GROUPS
from fedage.common.analyses.plan import registered
from fedage.common.analyses.survival.table_grid import TABLE_GRID
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import RULE
from fedage.common.statistics.statistic import FloatArray
from tests.attacks.asked_of_a_site import Attacker, blocks, unpacked

PATIENTS, TARGET = 300, 40
FILE = """
[campaign]
name = "attack"
purpose = "Solve what leaves a site for one patient"
seed = 1
[table]
age = "age"
predicted = "predicted"
[privacy]
minimum_count = 10
[simulation]
guard = {guard}
[groups]
column = "ill"
equals = 1
reference = 0
covariates = ["age_years", "rare"]
[survival]
time_grid_years = 0.25
table_times_years = [1, 2, 3, 4, 5, 6, 7, 8]
strata = [{strata}]
[[survival.models]]
name = "by-site"
covariates = ["age_years", "rare"]
[[survival.models]]
name = "one-baseline"
covariates = ["age_years", "rare"]
by_site = false
"""
STEPS = ("cox:by-site", GROUPS)


def campaign(*, guard: bool = True, strata: str = "") -> Campaign:
    return parse_campaign(FILE.format(guard=str(guard).lower(), strata=strata))


def hospital(rare: FloatArray | None = None, *, seed: int = 3) -> Cohort:
    rng = np.random.default_rng(seed)
    age, ill = rng.uniform(40, 85, PATIENTS), rng.integers(0, 2, PATIENTS).astype(np.float64)
    time, followed = rng.exponential(6.0, PATIENTS), rng.uniform(0.5, 10, PATIENTS)
    everybody = np.ones(PATIENTS)
    return Cohort(
        {
            "age_years": age,
            "predicted_years": age + rng.normal(0, 4, PATIENTS) + ill,
            "raw_gap_years": rng.normal(0, 4, PATIENTS) + ill,
            "is_male": (np.arange(PATIENTS) % 2).astype(np.float64),
            "ill": ill,
            "rare": (rng.uniform(0, 1, PATIENTS) < 0.4).astype(np.float64) if rare is None else rare,
            "time_years": np.minimum(time, followed),
            "event": (time <= followed).astype(np.float64),
            "healthy": everybody,
            "is_train": 0 * everybody,
            "is_validation": everybody,
            "is_test": everybody,
        }
    )


def indicator(*who: int) -> FloatArray:
    values = np.zeros(PATIENTS)
    values[list(who)] = 1.0
    return values


def dead_or_not(which: float, count: int) -> FloatArray:
    """A column of 60 patients, `count` of whom (have an event) = `which`."""
    event = hospital()["event"]
    some, others = np.flatnonzero(event == which), np.flatnonzero(event != which)
    return indicator(*some[:count].tolist(), *others[: min(60, others.size - 12)].tolist())


RARE = {
    "one patient": indicator(TARGET),
    "nine patients": indicator(*range(TARGET, TARGET + 9)),
    "two values nobody shares": indicator(TARGET) * 2 + indicator(TARGET + 1) * 5,
    "a value over noise": indicator(TARGET) * 1e4 + np.random.default_rng(1).normal(0, 0.1, PATIENTS),
    "nearly constant": 1.0 + indicator(TARGET) * 1e-6,
}


def tables(one: Attacker) -> dict[str, FloatArray]:
    """The first iterate of the one-baseline model, after the site has said at which times it can tell anything."""
    grid, model = one.steps[TABLE_GRID], one.steps["cox:one-baseline"]
    assert isinstance(model, Following)
    iterate = grid.first()
    for _ in range(20):
        statistic = one.ask(TABLE_GRID, iterate)
        assert statistic is not None, one.refusals
        outcome = grid.combine(statistic, iterate)
        if isinstance(outcome, Done):
            return dict(model.begin(outcome.result))
        assert isinstance(outcome, Again)
        iterate = outcome.iterate
    raise AssertionError("no grid")


def test_without_a_guard_the_first_exchange_gives_the_patient_s_age(tmp_path: Path) -> None:
    one = Attacker(campaign(guard=False), hospital(RARE["one patient"]), tmp_path)
    got = one.ask("cox:one-baseline", {"ends": np.ones(9), "exact": np.asarray(1.0)})
    assert got is not None
    assert unpacked(got, "s2", 2)[0, 0, 1] == pytest.approx(one.cohort["age_years"][TARGET], rel=1e-12)
    by_site = one.ask("cox:by-site", {})
    assert by_site is not None
    assert by_site["x"][1] == 1


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("which", RARE)
def test_a_covariate_of_few_is_in_no_sum(step: str, which: str, tmp_path: Path) -> None:
    one = Attacker(campaign(), hospital(RARE[which]), tmp_path)
    ok = one.agreed(step)
    assert ok is not None
    assert ok.tolist() == [True, False]
    everything = one.everything(step)
    assert len(everything) > 1
    for statistic in everything[1:]:
        widths = {len(statistic[name]) for name in ("x", "z_of_deaths", "gradient") if name in blocks(statistic.layout)}
        assert widths <= {1}
        assert not [name for name in blocks(statistic.layout) if "rare" in name]
    # Neither to leave the agreement out nor to overrule it is answered.
    analysis = one.steps[step]
    assert isinstance(analysis, Agreed)
    first = analysis.analysis.first()
    one.refusals.clear()
    assert one.ask(step, {**first, COLUMNS: np.ones(2)}) is None
    assert one.ask(step, {"beta": np.zeros(2)}) is None
    rules = [rule for rule, _ in one.refusals]
    assert rules in ([RULE, NOT_AGREED], ["minimum-count", NOT_AGREED])
    assert "rare" in one.refusals[0][1]


ODD = {"few of the dead": dead_or_not(1.0, 2), "few of the others": dead_or_not(0.0, 2)}


@pytest.mark.parametrize("which", [*RARE, *ODD])
def test_a_covariate_of_few_leaves_in_no_table(which: str, tmp_path: Path) -> None:
    """Also one that is common among all: S − D are those without an event, so each of the two is a group of its own."""
    one = Attacker(campaign(), hospital((RARE | ODD)[which]), tmp_path)
    assert one.ask("cox:one-baseline", tables(one)) is None
    assert one.refusals[-1][0] == RULE
    plain = Attacker(campaign(), hospital(np.random.default_rng(5).uniform(0, 1, PATIENTS)), tmp_path / "plain")
    assert plain.ask("cox:one-baseline", tables(plain)) is not None, plain.refusals


def only_in_an_interval(start: float, end: float, *, events: float, count: int) -> FloatArray:
    """A 0/1 covariate that is common among all, but that few have of those who leave in an interval."""
    cohort = hospital()
    inside = (cohort["time_years"] > start) & (cohort["time_years"] <= end) & (cohort["event"] == events)
    values = (np.arange(PATIENTS) % 2).astype(np.float64)
    values[(cohort["time_years"] > start) & (cohort["time_years"] <= end)] = 0.0
    values[np.flatnonzero(inside)[:count]] = 1.0
    return values


@pytest.mark.parametrize(
    ("start", "end", "events", "count"),
    [(0.0, 1.0, 1.0, 1), (0.0, 1.0, 0.0, 1), (1.0, 2.0, 1.0, 1), (2.0, 3.0, 0.0, 3), (3.0, 4.0, 1.0, 9)],
)
def test_rows_of_a_table_are_not_subtracted_to_a_patient(
    start: float, end: float, events: float, count: int, tmp_path: Path
) -> None:
    """Without a guard, the difference of two rows of the sums over risk sets is one patient's; with it, none leaves."""
    column = only_in_an_interval(start, end, events=events, count=count)
    bare = Attacker(campaign(guard=False), hospital(column), tmp_path / "bare")
    got = bare.ask("cox:one-baseline", {"ends": np.ones(9), "exact": np.asarray(1.0)})
    assert got is not None
    row = round(start) + 1  # the first is of time 0
    products = unpacked(got, "s2", 2)
    between = products[row] - products[row + 1]
    has = (column == 1) & (hospital()["time_years"] > start) & (hospital()["time_years"] <= end)
    assert between[0, 1] == pytest.approx(hospital()["age_years"][has].sum(), rel=1e-9)
    assert between[1, 1] == pytest.approx(count, rel=1e-9)
    guarded = Attacker(campaign(), hospital(column), tmp_path / "guarded")
    assert guarded.ask("cox:one-baseline", tables(guarded)) is None
    assert guarded.refusals[-1][0] == RULE


def test_a_covariate_rare_in_one_stratum_only_leaves_in_no_table(tmp_path: Path) -> None:
    cohort = hospital()
    odd = cohort["is_male"] == 1
    cohort = cohort.with_columns(rare=np.where(odd, indicator(TARGET + 1), cohort["rare"]))
    assert cohort["rare"][odd].sum() == 1
    one = Attacker(campaign(strata='"is_male"'), cohort, tmp_path)
    assert one.ask("cox:one-baseline", tables(one)) is None
    assert one.refusals[-1][0] == RULE


def test_few_who_have_both_covariates_are_no_cell(tmp_path: Path) -> None:
    """Σ of the product of two 0/1 columns counts those who have both; the later one is left out."""
    cohort = hospital()
    male = cohort["is_male"] == 1
    few = np.flatnonzero(male)[:3]
    rare = np.where(male, 0.0, cohort["rare"])
    rare[few] = 1.0
    text = FILE.format(guard="true", strata="").replace('"age_years", "rare"', '"is_male", "rare"')
    one = Attacker(parse_campaign(text), cohort.with_columns(rare=rare), tmp_path)
    ok = one.agreed("cox:by-site")
    assert ok is not None
    assert ok.tolist() == [True, False]


def test_one_site_s_no_leaves_a_column_out_at_all_and_is_named() -> None:
    sites = {"a": hospital(RARE["one patient"]), "b": hospital(seed=4), "c": hospital(seed=5)}
    for step in STEPS:
        outcome = run_locally(registered(campaign())[step], sites)
        assert isinstance(outcome, Done)
        assert outcome.result["withheld_columns"] == ["rare"]
