"""A coordinator that asks again and again with thresholds of its choice, and what it can work out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.client.consent.accounts.thresholds import MOST_VALUES, Thresholds
from fedage.client.disclosure.guard import Withheld
from fedage.common.analyses.base import Done, Iterate, thresholds_of
from fedage.common.analyses.bias.bias_line import BiasLine
from fedage.common.analyses.evaluation.metrics import Evaluation
from fedage.common.analyses.survival.kaplan_meier import KaplanMeier
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Statistic

MINIMUM = 5
TEST = Evaluation("evaluation:test", "is_test")
CORRECTED = Evaluation("evaluation:test-corrected", "is_test", "corrected_years")
ROUND = Evaluation("evaluation:validation", "is_validation", baseline=False)
CURVES = KaplanMeier("kaplan-meier", (5.0,), minimum_count=MINIMUM)


def cohort(n: int = 60, *, seed: int = 0) -> Cohort:
    rng = np.random.default_rng(seed)
    age = rng.uniform(40, 80, n)
    predicted = age + rng.normal(0, 5, n)
    return Cohort(
        {
            "age_years": age,
            "predicted_years": predicted,
            "corrected_years": predicted,
            "gap_years": predicted - age,
            "is_test": np.ones(n),
            "time_years": rng.uniform(0, 10, n),
            "event": np.zeros(n),
        }
    )


def mean_age(value: float) -> Iterate:
    return {"mean_age": np.asarray(value)}


def split(value: float) -> Iterate:
    return {"split": np.asarray(value), "low": np.asarray(-130.0), "high": np.asarray(130.0), "ends": np.ones(1)}


def answered(account: Thresholds, analysis: Evaluation | KaplanMeier, patients: Cohort, iterate: Iterate) -> bool:
    try:
        account.require(analysis, patients, iterate)
    except Withheld:
        return False
    return True


def between(values: np.ndarray, *, from_years: float, patients: int) -> float:
    """A threshold with this many patients between it and the other one."""
    above = np.sort(values[values > from_years])
    return float((above[patients - 1] + above[patients]) / 2)


def test_the_sums_around_two_means_either_side_of_one_patient_would_give_her_age() -> None:
    patients = cohort()
    ages = np.sort(patients["age_years"])
    low, high = (float(ages[k : k + 2].mean()) for k in (29, 30))
    below, above = (float(TEST.local(patients, mean_age(value)).scalar("from_mean")) for value in (low, high))
    # f(m) = Σ|Ω − m|. Of f(low) − f(high), the 30 below both give low − high each, the 29 above both high − low each,
    # and the one in between 2Ω − low − high.
    assert (below - above) / 2 + high == pytest.approx(ages[30])


@pytest.mark.parametrize("seed", range(8))
def test_bisecting_the_mean_age_over_requests_isolates_nobody(tmp_path: Path, seed: int) -> None:
    patients, account = cohort(seed=seed), Thresholds(tmp_path, run="r1", minimum_count=MINIMUM)
    ages = patients["age_years"]
    account.require(TEST, patients, mean_age(float(ages.mean())))
    told, low, high = [float(ages.mean())], float(ages.mean()), 80.0
    for _ in range(60):
        middle = (low + high) / 2
        if answered(account, TEST, patients, mean_age(middle)):
            told.append(middle)
            low, high = (middle, high) if np.count_nonzero((ages > low) & (ages <= middle)) == 0 else (low, middle)
        else:
            high = middle
    sides = np.array([np.count_nonzero(ages > value) for value in sorted(set(told))])
    apart = -np.diff(sides)
    assert np.all((apart == 0) | (apart >= MINIMUM))
    # Refusals tell that a few lie in between: not so often that the few could be narrowed down.
    assert len(set(told)) <= MOST_VALUES


@pytest.mark.parametrize("value", ["mean age", "split"])
def test_two_values_either_side_of_one_patient(tmp_path: Path, value: str) -> None:
    patients = cohort()
    analysis, iterate, column, first = (
        (TEST, mean_age, "age_years", 60.0) if value == "mean age" else (CURVES, split, "gap_years", 0.0)
    )
    few = between(patients[column], from_years=first, patients=1)
    enough = between(patients[column], from_years=first, patients=MINIMUM)
    account = Thresholds(tmp_path, run="r1", minimum_count=MINIMUM)
    assert answered(account, analysis, patients, iterate(first))
    assert not answered(account, analysis, patients, iterate(few))
    assert answered(account, analysis, patients, iterate(enough))
    assert answered(account, analysis, patients, iterate(first))
    assert not answered(account, analysis, patients, iterate(few))

    restarted = Thresholds(tmp_path, run="r1", minimum_count=MINIMUM)
    assert not answered(restarted, analysis, patients, iterate(few))
    assert answered(restarted, analysis, patients, iterate(enough))


def test_analyses_of_the_same_patients_share_the_account_and_runs_where_the_column_is_the_sites_own(
    tmp_path: Path,
) -> None:
    patients = cohort()
    few = between(patients["age_years"], from_years=60.0, patients=1)
    assert answered(Thresholds(tmp_path, run="r1", minimum_count=MINIMUM), TEST, patients, mean_age(60.0))
    for run in ("r1", "r2"):
        account = Thresholds(tmp_path, run=run, minimum_count=MINIMUM)
        assert not answered(account, CORRECTED, patients, mean_age(few))

    few = between(patients["gap_years"], from_years=0.0, patients=1)
    assert answered(Thresholds(tmp_path, run="r1", minimum_count=MINIMUM), CURVES, patients, split(0.0))
    assert not answered(Thresholds(tmp_path, run="r1", minimum_count=MINIMUM), CURVES, patients, split(few))
    assert answered(Thresholds(tmp_path, run="r2", minimum_count=MINIMUM), CURVES, patients, split(few))


def test_only_a_few_values_are_tried_and_the_known_ones_stay(tmp_path: Path) -> None:
    patients, account = cohort(), Thresholds(tmp_path, run="r1", minimum_count=MINIMUM)
    wide = [45.0, 55.0, 65.0, 75.0]
    assert len(wide) == MOST_VALUES
    assert all(answered(account, TEST, patients, mean_age(value)) for value in wide)
    assert not answered(account, TEST, patients, mean_age(20.0)), "beyond everybody, but one too many"
    assert all(answered(account, TEST, patients, mean_age(value)) for value in wide)


def in_folds(patients: Cohort, k: int) -> list[Cohort]:
    place = np.arange(patients.n) % k
    return [patients.with_columns(is_test=(place == fold).astype(float)) for fold in range(k)]


def test_another_model_or_another_name_opens_no_account(tmp_path: Path) -> None:
    patients, account = cohort(), Thresholds(tmp_path, run="r1", minimum_count=MINIMUM)
    few = between(patients["age_years"], from_years=60.0, patients=1)
    assert answered(account, TEST, patients, mean_age(60.0))
    implausible = patients["predicted_years"].copy()
    implausible[0] = 1e6
    assert not answered(account, TEST, patients.with_columns(predicted_years=implausible), mean_age(few))
    renamed = patients.with_columns(is_validation=patients["is_test"])
    assert not answered(account, Evaluation("evaluation:validation", "is_validation"), renamed, mean_age(few))


@pytest.mark.parametrize("apart_years", [1e-9, 0.02, 1.0, 20.0])
@pytest.mark.parametrize("whole_first", [True, False])
def test_parts_and_the_whole_are_not_both_answered(tmp_path: Path, whole_first: bool, apart_years: float) -> None:
    """However far apart the folds' values are: the one asked first is the only group that is compared."""
    patients, account = cohort(), Thresholds(tmp_path, run="r1", minimum_count=MINIMUM)
    few = between(patients["age_years"], from_years=60.0, patients=1)
    folds = [(fold, 60.0 + apart_years * (k - 2)) for k, fold in enumerate(in_folds(patients, 5))]
    whole = (patients, few)
    told = [
        answered(account, TEST, who, mean_age(m)) for who, m in ([whole, *folds] if whole_first else [*folds, whole])
    ]
    assert told == [True] + [False] * 5


def test_those_exactly_at_a_value_hide_nobody(tmp_path: Path) -> None:
    """Ages in whole years: of eleven from 60 to 61, ten are exactly 60 and give nothing at a mean of 60."""
    age = np.concatenate([np.full(30, 55.0), np.full(10, 60.0), [60.5], np.full(30, 65.0)])
    patients = cohort(age.size).with_columns(age_years=age, predicted_years=age)
    account = Thresholds(tmp_path, run="r1", minimum_count=MINIMUM)
    assert answered(account, TEST, patients, mean_age(60.0))
    assert not answered(account, TEST, patients, mean_age(61.0))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("leaves", [False, True])
def test_an_honest_campaign_is_always_answered(tmp_path: Path, seed: int, leaves: bool) -> None:
    """With five folds and without; a site may leave before the corrected ages are evaluated, or run it all again."""
    three = [cohort(seed=3 * seed + k).with_columns(is_validation=np.ones(60)) for k in range(3)]
    account = Thresholds(tmp_path, run="r1", minimum_count=MINIMUM)
    for fold in in_folds(three[0], 5):
        account.require(ROUND, fold, ROUND.first())
    mean = float(np.mean([one["age_years"] for one in three]))
    account.require(TEST, three[0], mean_age(mean))
    there = three[:2] if leaves else three
    corrected = Evaluation("evaluation:test-corrected", "is_test", "corrected_years", baseline=False)
    assert corrected.first() == {}
    account.require(corrected, three[0], corrected.first())
    account.require(CURVES, three[0], split(float(np.median([one["gap_years"] for one in there]))))


def test_a_refused_threshold_costs_the_baseline_alone(tmp_path: Path) -> None:
    patients, account = cohort(), Thresholds(tmp_path, run="r1", minimum_count=MINIMUM)
    few = between(patients["age_years"], from_years=60.0, patients=1)
    first, second = (
        account.accounted(TEST, patients, mean_age(m), TEST.local(patients, mean_age(m))) for m in (60.0, few)
    )
    assert (first.scalar("from_mean_n"), second.scalar("from_mean_n"), second.scalar("from_mean")) == (60, 0, 0)
    for block in ("n", "error", "absolute_error", "squared_error", "within_5_low", "within_5_high", "from_site_mean"):
        assert first.scalar(block) == second.scalar(block)
    outcome = TEST.combine(second, mean_age(few))
    assert isinstance(outcome, Done)
    assert (outcome.result["mae_of_mean_years"], outcome.result["mae_of_mean_n"]) == (None, 0)
    account.require(CURVES, patients, split(0.0))
    near = split(between(patients["gap_years"], from_years=0.0, patients=1))
    with pytest.raises(Withheld, match="is not answered here"):
        account.accounted(CURVES, patients, near, Statistic.zero(CURVES.layout(near)))


@pytest.mark.parametrize("seed", range(10))
def test_sweeping_all_folds_and_means_tells_nobodys_age(tmp_path: Path, seed: int) -> None:
    """The attacker knows how many patients there are, and asks for every fold and the whole at many means.

    f(m) = Σ|Ω − m| with Σ(Ω − m) gives Σ(m − Ω) over those below m; two such sums give that of those in between. Every
    group that can be cut out this way by what was answered has the minimum count or nobody.
    """
    patients = cohort(seed=seed)
    test = Evaluation("evaluation:test", "is_test", minimum_count=MINIMUM)
    account = Thresholds(tmp_path, run="r1", minimum_count=MINIMUM)
    ages = np.sort(patients["age_years"])
    just_above = [float(ages[k : k + 2].mean()) for k in (0, 1, 4, 5, 57, 58)]
    rng = np.random.default_rng(seed)
    asked = [
        (who, float(m)) for who in (patients, *in_folds(patients, 5)) for m in (*just_above, *rng.uniform(40, 80, 9))
    ]
    cut: list[np.ndarray] = []
    told = 0
    for k in rng.permutation(len(asked)):
        who, m = asked[k]
        inside = who["is_test"] == 1
        sums = account.accounted(test, who, mean_age(m), test.local(who, mean_age(m)))
        if not sums.scalar("from_mean_n"):
            continue
        told += 1
        below_sum = (sums.scalar("from_mean") - sums.scalar("age")) / 2
        if min(below_sum, below_sum + sums.scalar("age")) <= 1e-9:
            continue  # nobody on one side, as far as it tells: f follows from n and Σ(Ω − m)
        below = inside & (patients["age_years"] < m)
        assert below_sum == pytest.approx(float((m - patients["age_years"][below]).sum()))
        cut.append(below)
        assert min(below.sum(), (inside & ~below).sum()) >= MINIMUM
    assert 0 < told <= MOST_VALUES
    for one in cut:
        for other in cut:
            apart = np.count_nonzero(one != other)
            assert apart == 0 or apart >= MINIMUM


def test_what_compares_nobody_is_not_accounted_for(tmp_path: Path) -> None:
    patients, account = cohort(), Thresholds(tmp_path, run="r1", minimum_count=MINIMUM)
    account.require(TEST, patients, {})
    account.require(CURVES, patients, {})
    account.require(BiasLine(), patients, {})
    assert thresholds_of(BiasLine(), {}) == {}
    assert thresholds_of(KaplanMeier("k", (1.0,), split_gap_at="zero"), {"split": np.asarray(0.0)}) == {}
    single = Thresholds(tmp_path, run="r1", minimum_count=1)
    for value in np.linspace(40, 80, 20):
        single.require(TEST, patients, mean_age(float(value)))
    assert not any(tmp_path.iterdir())


def test_a_run_has_one_pooled_line(tmp_path: Path) -> None:
    account = Thresholds(tmp_path, run="r1", minimum_count=MINIMUM)
    account.require_line(slope=0.9, intercept=3.0)
    account.require_line(slope=0.9, intercept=3.0)
    with pytest.raises(Withheld, match="bias-line"):
        account.require_line(slope=0.9, intercept=3.001)
    Thresholds(tmp_path, run="r2", minimum_count=MINIMUM).require_line(slope=0.9, intercept=3.001)


def test_without_an_account_nothing_is_answered(tmp_path: Path) -> None:
    (tmp_path / "accounts.db").write_bytes(b"not a database" * 100)
    with pytest.raises(Withheld) as refusal:
        Thresholds(tmp_path, run="r1", minimum_count=MINIMUM).require(TEST, cohort(), mean_age(60.0))
    assert refusal.value.rule == "store-unavailable"
    assert str(tmp_path) not in refusal.value.detail
