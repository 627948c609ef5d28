"""Attack on two analyses of one file: a column of each, the two equal, or following from each other, but for a few.

Each passes by itself. The sums of the second less those of the first are what the few contribute: with the guard off
that gives one patient's age; with it the later column leaves in no sum.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedage.common.analyses.agreement import COLUMNS, Agreed
from fedage.common.analyses.base import Again, Done, Following, Outcome, run_locally
from fedage.common.analyses.groups.group_difference import GROUPS
from fedage.common.analyses.plan import registered
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from fedage.common.analyses.survival.table_grid import TABLE_GRID
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import RULE, Group, InfluenceRefused, InfluenceRule, passing
from fedage.common.statistics.influence_beside import nearly_repeats
from fedage.common.statistics.statistic import FloatArray
from fedage.deploy.demo.chest_campaign import DEMO
from fedage.deploy.demo.phantoms import Planted
from tests.attacks.asked_of_a_site import Attacker, blocks, unpacked

PATIENTS, TARGET, MINIMUM = 300, 40, 10
FILE = """
[campaign]
name = "attack"
purpose = "Subtract the sums of two models of one file"
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
covariates = ["age_years", "{groups}"]
[survival]
ties = "breslow"
time_grid_years = 0.25
table_times_years = [2, 4, 6]
strata = [{strata}]
[[survival.models]]
name = "first"
covariates = ["age_years", "a"]
by_site = {first}
[[survival.models]]
name = "second"
covariates = [{second}]
by_site = {by_site}
"""
FIRST, SECOND = "cox:first", "cox:second"
RNG = np.random.default_rng(8)
PLAIN, WHOLE = RNG.normal(50, 10, PATIENTS), RNG.integers(0, 6, PATIENTS).astype(np.float64)
BINARY = (RNG.uniform(0, 1, PATIENTS) < 0.4).astype(np.float64)


def campaign(
    *,
    guard: bool = True,
    first: bool = True,
    by_site: bool = True,
    second: str = '"age_years", "b"',
    groups: str = "is_male",
    strata: str = "",
) -> Campaign:
    flags = {"guard": guard, "first": first, "by_site": by_site}
    words = {name: str(flag).lower() for name, flag in flags.items()}
    return parse_campaign(FILE.format(**words, second=second, groups=groups, strata=strata))


def hospital(a: FloatArray, b: FloatArray, *, seed: int = 3) -> Cohort:
    rng = np.random.default_rng(seed)
    age, ill = rng.uniform(40, 85, PATIENTS), rng.integers(0, 2, PATIENTS).astype(np.float64)
    time, followed = rng.exponential(6.0, PATIENTS), rng.uniform(0.5, 10, PATIENTS)
    age[TARGET], time[TARGET], followed[TARGET] = 82.5, 1.7, 9.0
    everybody = np.ones(PATIENTS)
    return Cohort(
        {
            "age_years": age,
            "predicted_years": age + rng.normal(0, 4, PATIENTS) + ill,
            "raw_gap_years": rng.normal(0, 4, PATIENTS) + ill,
            "is_male": (np.arange(PATIENTS) % 2).astype(np.float64),
            "ill": ill,
            "a": a,
            "b": b,
            "time_years": np.minimum(time, followed),
            "event": (time <= followed).astype(np.float64),
            "healthy": everybody,
            "is_train": 0 * everybody,
            "is_validation": everybody,
            "is_test": everybody,
        }
    )


def changed(column: FloatArray, count: int, by: float = 3.0) -> FloatArray:
    """The column with other values in so many patients, the target first."""
    values = column.copy()
    values[TARGET : TARGET + count] += by
    return values


def flipped(column: FloatArray, count: int) -> FloatArray:
    values = column.copy()
    values[TARGET : TARGET + count] = 1 - values[TARGET : TARGET + count]
    return values


def lacking(column: FloatArray) -> FloatArray:
    values = column.copy()
    values[:20] = np.nan
    return values


PAIRS = {
    "one patient": (PLAIN, changed(PLAIN, 1)),
    "two patients": (PLAIN, changed(PLAIN, 2)),
    "all but one too few": (PLAIN, changed(PLAIN, MINIMUM - 1)),
    "a little": (PLAIN, changed(PLAIN, 1, 1e-3)),
    "a line but for one": (PLAIN, changed(3 * PLAIN + 2, 1)),
    "a falling line but for nine": (PLAIN, changed(-0.1 * PLAIN, MINIMUM - 1, 0.5)),
    "noise but for one": (PLAIN, changed(PLAIN, 1, 9.0) + np.random.default_rng(2).normal(0, 1e-3, PATIENTS)),
    "whole numbers but for one": (WHOLE, changed(WHOLE, 1, 1.0)),
    "two values but for one": (BINARY, flipped(BINARY, 1)),
    "two values but for nine": (BINARY, flipped(BINARY, MINIMUM - 1)),
    "two values turned but for one": (BINARY, 1 - flipped(BINARY, 1)),
    "two values called otherwise but for one": (BINARY, 1 + flipped(BINARY, 1)),
    "also those who lack the first": (lacking(PLAIN), changed(PLAIN, 1)),
}
HONEST = {
    "another measure": (PLAIN, RNG.normal(0, 1, PATIENTS)),
    "a measure that goes with it": (PLAIN, PLAIN + RNG.normal(0, 2, PATIENTS)),
    "other whole numbers": (WHOLE, RNG.integers(0, 6, PATIENTS).astype(np.float64)),
    "other two values": (BINARY, (RNG.uniform(0, 1, PATIENTS) < 0.5).astype(np.float64)),
    "minimum many differ": (PLAIN, changed(PLAIN, MINIMUM)),
    "minimum many flipped": (BINARY, flipped(BINARY, MINIMUM)),
    "the same under two names": (PLAIN, PLAIN),
    "proportional up to rounding": (PLAIN, (PLAIN - 50.1) / 0.83),
    "turned for everybody": (BINARY, 1 - BINARY),
}
CONTINUOUS = ("one patient", "two patients", "all but one too few", "a line but for one", "noise but for one")


def tables(one: Attacker, step: str) -> dict[str, FloatArray]:
    """The first iterate of a one-baseline model, after the site has said at which times it can tell anything."""
    grid, model = one.steps[TABLE_GRID], one.steps[step]
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


@pytest.mark.parametrize("which", ["one patient", "a line but for one", "two values but for one"])
def test_without_a_guard_two_tables_give_the_age(which: str, tmp_path: Path) -> None:
    a, b = PAIRS[which]
    one = Attacker(campaign(guard=False, first=False, by_site=False), hospital(a, b), tmp_path)
    iterate = {"ends": np.ones(4), "exact": np.asarray(1.0)}
    got = [one.ask(step, iterate) for step in (FIRST, SECOND)]
    sums = [(unpacked(each, "s2", 2)[0, 0, 1], each["x"][0], each["x"][1], each["n"]) for each in got if each]
    (first, ages, of_a, n), (second, _, of_b, _) = sums
    slope, level = (3.0, 2.0) if "line" in which else (1.0, 0.0)
    by = float(of_b) - slope * float(of_a) - level * float(n)
    assert (second - slope * first - level * ages) / by == pytest.approx(82.5, abs=1e-6)


def test_without_a_guard_a_table_and_a_comparison_of_groups_give_the_age(tmp_path: Path) -> None:
    a, b = PAIRS["one patient"]
    one = Attacker(campaign(guard=False, first=False, second='"age_years"', groups="b"), hospital(a, b), tmp_path)
    table = one.ask(FIRST, {"ends": np.ones(4), "exact": np.asarray(1.0)})
    compared = one.ask(GROUPS, {})
    assert table is not None
    assert compared is not None
    mean_age, mean_a = table["x"] / float(table["n"])
    centred = unpacked(table, "s2", 2)[0, 0, 1] - float(table["n"]) * mean_age * mean_a
    name = next(name for name in blocks(compared.layout) if "age_years · 2 b" in name)
    assert mean_age + (compared[name] - centred) / 3.0 == pytest.approx(82.5, abs=1e-6)


def test_without_a_guard_two_models_by_site_give_the_age_nearly(tmp_path: Path) -> None:
    """Σ over deaths of the patient's distance from the mean age at risk, which changes little in the first years."""
    a, b = PAIRS["one patient"]
    one = Attacker(campaign(guard=False), hospital(a, b), tmp_path)
    first, second = (one.ask(step, {}) for step in (FIRST, SECOND))
    assert first is not None
    assert second is not None
    by = second["x"][1] - first["x"][1]
    hazard = 1 - (second["gradient"][1] - first["gradient"][1]) / by  # a death: 1 − Σ deaths / at risk
    between = unpacked(second, "information", 2)[0, 1] - unpacked(first, "information", 2)[0, 1]
    assert first["x"][0] / float(first["n"]) + between / (by * hazard) == pytest.approx(82.5, abs=1.0)


@pytest.mark.parametrize("which", PAIRS)
@pytest.mark.parametrize("step", [SECOND, GROUPS])
@pytest.mark.parametrize("first", [True, False])
def test_the_later_column_is_in_no_sum(first: bool, step: str, which: str, tmp_path: Path) -> None:
    second, groups = ('"age_years", "b"', "is_male") if step == SECOND else ('"age_years"', "b")
    one = Attacker(campaign(first=first, second=second, groups=groups), hospital(*PAIRS[which]), tmp_path)
    if first:
        earlier = one.agreed(FIRST)
        assert earlier is not None
        assert earlier.tolist() == [True, True]
    ok = one.agreed(step)
    assert ok is not None, one.refusals
    assert ok.tolist() == [True, False]
    told = one.everything(step)
    assert len(told) > 1
    for statistic in told[1:]:
        widths = {len(statistic[name]) for name in ("x", "gradient") if name in blocks(statistic.layout)}
        assert widths <= {1}
        assert not [name for name in blocks(statistic.layout) if name.endswith(" b") or " b " in name]
    analysis = one.steps[step]
    assert isinstance(analysis, Agreed)
    one.refusals.clear()
    assert one.ask(step, {**analysis.analysis.first(), COLUMNS: np.ones(2)}) is None
    assert one.refusals[0][0] == RULE


@pytest.mark.parametrize("which", CONTINUOUS)
@pytest.mark.parametrize("first", [True, False])
def test_the_later_model_with_one_baseline_is_refused(first: bool, which: str, tmp_path: Path) -> None:
    one = Attacker(campaign(first=first, by_site=False), hospital(*PAIRS[which]), tmp_path)
    if not first:
        assert one.ask(FIRST, tables(one, FIRST)) is not None, one.refusals
    assert one.ask(SECOND, tables(one, SECOND)) is None
    assert one.refusals[-1][0] == RULE


def test_columns_that_differ_for_one_of_those_who_leave_in_an_interval_are_in_no_second_table(tmp_path: Path) -> None:
    """Also where many differ in all: neighbouring rows are subtracted first."""
    cohort = hospital(PLAIN, PLAIN)
    early = np.flatnonzero((cohort["time_years"] <= 2) & (cohort["event"] == 1))
    late = np.flatnonzero((cohort["time_years"] > 2) & (cohort["time_years"] <= 4) & (cohort["event"] == 1))
    b = PLAIN.copy()
    b[[*early[:20], late[0]]] += np.linspace(2, 9, 21)
    one = Attacker(campaign(first=False, by_site=False), hospital(PLAIN, b), tmp_path)
    assert one.ask(SECOND, tables(one, SECOND)) is None
    assert one.refusals[-1][0] == RULE


@pytest.mark.parametrize("which", CONTINUOUS)
def test_the_earlier_column_beside_the_later_one_changes_nothing(which: str, tmp_path: Path) -> None:
    """A second model of b and a would leave out a, the later of the two, and give b."""
    one = Attacker(campaign(second='"b", "a"'), hospital(*PAIRS[which]), tmp_path)
    ok = one.agreed(SECOND)
    assert ok is not None
    assert not ok[0]


@pytest.mark.parametrize("of", ["ill", "is_male"])
def test_what_tells_groups_or_strata_but_for_one_is_in_no_sum(of: str, tmp_path: Path) -> None:
    cohort = hospital(PLAIN, BINARY)
    cohort = cohort.with_columns(b=flipped(cohort[of], 1))
    one = Attacker(campaign(strata='"is_male"', groups="a"), cohort, tmp_path)
    ok = one.agreed(SECOND)
    assert ok is not None
    assert ok.tolist() == [True, False]


OTHERS = {
    "high for the others": np.ones(PATIENTS),
    "low for the others": np.zeros(PATIENTS),
    "this and that for the others": np.random.default_rng(9).integers(0, 2, PATIENTS).astype(np.float64),
}


@pytest.mark.parametrize("third", [2.0, -1.0, np.nan])
@pytest.mark.parametrize("others", OTHERS)
def test_a_third_value_of_what_tells_groups_hides_nobody(others: str, third: float, tmp_path: Path) -> None:
    """Sums over the two groups are subtracted from those of a model, whatever stands in the column for the others."""
    cohort = hospital(PLAIN, BINARY)
    in_neither = np.arange(PATIENTS) % 4 == 1
    assert not in_neither[TARGET]
    b = np.where(in_neither, OTHERS[others], flipped(cohort["ill"], 1))
    cohort = cohort.with_columns(ill=np.where(in_neither, third, cohort["ill"]), b=b)
    one = Attacker(campaign(groups="a"), cohort, tmp_path)
    ok = one.agreed(SECOND)
    assert ok is not None
    assert ok.tolist() == [True, False]


@pytest.mark.parametrize("which", HONEST)
def test_honest_columns_stay(which: str, tmp_path: Path) -> None:
    one = Attacker(campaign(groups="b"), hospital(*HONEST[which]), tmp_path)
    for step in (FIRST, SECOND, GROUPS):
        ok = one.agreed(step)
        assert ok is not None, one.refusals
        assert ok.tolist() == [True, True]


@pytest.mark.parametrize(
    "which",
    ["another measure", "a measure that goes with it", "the same under two names", "proportional up to rounding"],
)
def test_honest_columns_stay_in_tables(which: str, tmp_path: Path) -> None:
    one = Attacker(campaign(first=False, by_site=False), hospital(*HONEST[which]), tmp_path)
    for step in (FIRST, SECOND):
        assert one.ask(step, tables(one, step)) is not None, one.refusals


def test_a_site_without_the_earlier_column_keeps_the_later_model(tmp_path: Path) -> None:
    whole = hospital(*PAIRS["one patient"])
    without = Cohort({name: whole[name] for name in whole.columns if name != "a"})
    one = Attacker(campaign(), without, tmp_path)
    ok = one.agreed(SECOND)
    assert ok is not None
    assert ok.tolist() == [True, True]


def test_one_site_s_no_leaves_the_later_column_out_at_all_and_is_named() -> None:
    sites = {"x": hospital(*PAIRS["one patient"]), "y": hospital(PLAIN, RNG.normal(0, 1, PATIENTS), seed=4)}
    outcome = run_locally(registered(campaign())[SECOND], sites)
    assert isinstance(outcome, Done)
    assert outcome.result["withheld_columns"] == ["b"]


@pytest.mark.parametrize(("patients", "differ"), [(20, 1), (20, 9), (15, 9), (12, 4)])
def test_at_small_sites_too(patients: int, differ: int) -> None:
    a = np.random.default_rng(patients).normal(0, 1, patients)
    b = a.copy()
    b[:differ] += np.random.default_rng(1).normal(0, 1, differ)
    assert nearly_repeats(b[:, None], a[:, None], minimum_count=MINIMUM).tolist() == [True]
    if patients >= 2 * MINIMUM:
        group = Group(of="patients", columns=b[:, None], always=np.empty((patients, 0)), beside=a[:, None])
        assert not passing([group], InfluenceRule(minimum_count=MINIMUM))[0]


@pytest.mark.parametrize("quick", [True, False])
def test_the_demo_s_models_keep_all_covariates(quick: bool) -> None:
    planted = Planted(
        hazard_ratio_per_year=1.1,
        hazard_ratio_per_year_of_age=1.05,
        gap_sd_years=4.0,
        age_range_years=(40, 85),
        irreducible_mae_years={"x": 3.0, "y": 3.0},
    )
    demo = parse_campaign(DEMO.campaign_file(planted, sites=["x", "y"], seed=1, quick=quick))
    cohort = hospital(PLAIN, PLAIN)
    gap = cohort["raw_gap_years"] - 0.2 * (cohort["age_years"] - 60)
    true = gap + np.random.default_rng(5).normal(0, 2, PATIENTS)
    time = np.random.default_rng(6).exponential(30, PATIENTS)
    site = cohort.with_columns(
        gap_years=gap,
        cole_gap_years=gap / 0.8,
        true_gap_years=true,
        time_years=np.minimum(time, 12),
        event=(time <= 12).astype(np.float64),
    )
    steps = registered(demo)
    for name in ("cox:gap", "cox:cole-gap", "cox:true-gap"):
        outcome = run_locally(steps[name], {"x": site})
        assert isinstance(outcome, Done), outcome
        assert not outcome.result.get("withheld_columns")
    tables = steps["cox:gap-unstratified"]
    assert isinstance(tables, CoxPooled)
    assert tables.beside
    # Few leave in an interval: whether the tables may be told is up to the columns alone.
    assert outcome_or_refusal(tables, site) == outcome_or_refusal(replace(tables, beside=()), site)


def outcome_or_refusal(analysis: CoxPooled, site: Cohort) -> Outcome | str:
    try:
        return run_locally(analysis, {"x": site})
    except InfluenceRefused as refused:
        return str(refused)
