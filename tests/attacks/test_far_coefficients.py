"""Attacks by the coefficients of a Cox model: far from 0, the sums over those at risk are the one with the largest β·z.

With the guard off S1/S0 of an interval is that patient's record, and the difference of two gradients is the difference
of two patients; with it on, such an iterate is refused, and is counted like one that is answered.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.common.analyses.agreement import COLUMNS
from fedage.common.analyses.base import Done, run_locally
from fedage.common.analyses.plan import registered
from fedage.common.analyses.survival._cox_contributions import contributions_at
from fedage.common.analyses.survival._newton import MOST_ITERATES
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import RULE
from fedage.common.statistics.statistic import FloatArray
from tests.attacks.asked_of_a_site import Attacker
from tests.attacks.test_influence_survival import FILE, PATIENTS, TARGET, campaign, hospital, tables

BY_SITE, ONE_BASELINE = "cox:by-site", "cox:one-baseline"
EXACT = {"ends": np.ones(9), "exact": np.asarray(1.0)}
FAR = {
    "the oldest": ([4.0, 0.0], 0.3),
    "the largest value of the other": ([0.0, 4.0], 0.3),
    "a direction between": ([2.0, 3.0], 0.3),
    "one over the other": ([3.0, -3.0], 0.2),
    "at a scale of a tenth": ([1.0, 1.0], 0.1001),
}


def covariates(cohort: Cohort) -> FloatArray:
    return np.column_stack([cohort["age_years"], cohort["rare"]])


def continuous() -> Cohort:
    """Both covariates pass the influence rule at β = 0; one patient has a large value of each."""
    rng = np.random.default_rng(8)
    values, age = rng.normal(0, 1, PATIENTS), rng.normal(62, 9, PATIENTS)
    values[TARGET], age[TARGET] = 3.9, 95.0
    return hospital().with_columns(rare=values, age_years=age)


def at(cohort: Cohort, beta: list[float], scale: float) -> dict[str, FloatArray]:
    x = covariates(cohort)
    return {
        "beta": np.array(beta),
        "last_beta": np.zeros(2),
        "centre": x.mean(axis=0),
        "scale": x.std(axis=0, ddof=1) * scale,
        "last_log_likelihood": np.asarray(0.0),
        "null_log_likelihood": np.asarray(0.0),
        "exchange": np.asarray(2.0),
    }


def extreme(cohort: Cohort, iterate: dict[str, FloatArray]) -> FloatArray:
    """The record that the attacker is after."""
    x = covariates(cohort)
    return x[int(np.argmax(x @ (iterate["beta"] / iterate["scale"])))]


@pytest.mark.parametrize("which", FAR)
def test_a_mean_over_those_at_risk_is_no_patient_s_record(which: str, tmp_path: Path) -> None:
    cohort = continuous()
    bare = Attacker(campaign(guard=False), cohort, tmp_path / "bare")
    iterate = at(cohort, *FAR[which])
    got = bare.ask(ONE_BASELINE, {**iterate, **EXACT})
    assert got is not None
    mean = got["s1"][1] / got["s0"][1] * iterate["scale"] + iterate["centre"]
    np.testing.assert_allclose(mean, extreme(cohort, iterate), rtol=0.02, atol=0.1)
    guarded = Attacker(campaign(), cohort, tmp_path / "guarded")
    grid = tables(guarded)
    assert guarded.ask(ONE_BASELINE, {**grid, **at(cohort, [0.3, 0.3], 1.0)}) is not None, guarded.refusals
    assert guarded.ask(ONE_BASELINE, {**grid, **iterate}) is None
    assert guarded.refusals[-1][0] == RULE


@pytest.mark.parametrize("which", FAR)
def test_a_gradient_is_not_that_of_one_patient(which: str, tmp_path: Path) -> None:
    """Far out the gradient is Σ over deaths of z, less as often the extreme patient's who is at risk throughout."""
    cohort = continuous()
    iterate = at(cohort, *FAR[which])
    x = covariates(cohort)
    top = int(np.argmax(x @ (iterate["beta"] / iterate["scale"])))
    time = cohort["time_years"].copy()
    time[top] = 40.0
    cohort = cohort.with_columns(time_years=time, event=np.where(np.arange(PATIENTS) == top, 0.0, cohort["event"]))
    bare = Attacker(campaign(guard=False), cohort, tmp_path / "bare")
    got = bare.ask(BY_SITE, iterate)
    assert got is not None
    deaths = cohort["event"] == 1
    record = (x[deaths].sum(axis=0) - got["gradient"] * iterate["scale"]) / deaths.sum()
    np.testing.assert_allclose(record, x[top], rtol=0.02, atol=0.1)
    guarded = Attacker(campaign(), cohort, tmp_path / "guarded")
    assert guarded.ask(BY_SITE, {**at(cohort, [0.1, 0.1], 1.0), COLUMNS: np.ones(2)}) is not None, guarded.refusals
    assert guarded.ask(BY_SITE, {**iterate, COLUMNS: np.ones(2)}) is None
    assert guarded.refusals[-1][0] == RULE


@pytest.mark.parametrize("step", [BY_SITE, pytest.param(ONE_BASELINE, marks=pytest.mark.slow)])
def test_refused_coefficients_are_counted_too(step: str, tmp_path: Path) -> None:
    """Whether one is refused tells of the extreme patient; asked without end it would be bisected."""
    cohort = continuous()
    one = Attacker(campaign(), cohort, tmp_path)
    extra = {COLUMNS: np.ones(2)} if step == BY_SITE else tables(one)
    for number in range(MOST_ITERATES):
        assert one.ask(step, {**at(cohort, [4.0, 0.002 * number], 0.2), **extra}) is None
    assert {rule for rule, _ in one.refusals} == {RULE}
    assert one.ask(step, {**at(cohort, [0.1, 0.1], 1.0), **extra}) is None
    assert one.refusals[-1][0] == "iterate"


@pytest.mark.parametrize("effect", [0.3, 0.8, 1.2])
@pytest.mark.parametrize("step", [BY_SITE, ONE_BASELINE])
def test_a_fit_of_a_strong_effect_is_answered_at_every_step(step: str, effect: float) -> None:
    """Hazard ratios of up to 3.3 per SD; sites of 300, and of 5000 for a model of tables."""
    sites, n = {}, 300 if step == BY_SITE else 5000
    for number in range(2):
        rng = np.random.default_rng(number)
        cohort = hospital(seed=number).where(np.arange(n) % PATIENTS)
        values = rng.normal(0, 1, n)
        time, followed = rng.exponential(6 / np.exp(effect * values)), rng.uniform(0.5, 10, n)
        event = (time <= followed).astype(np.float64)
        sites[str(number)] = cohort.with_columns(rare=values, time_years=np.minimum(time, followed), event=event)
    text = FILE.format(guard="true", strata="").replace('"age_years", "rare"', '"rare"')
    text = text.replace("[1, 2, 3, 4, 5, 6, 7, 8]", "[0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4]")
    outcome = run_locally(registered(parse_campaign(text))[step], sites)
    assert isinstance(outcome, Done), outcome
    (found,) = outcome.result["covariates"]
    assert found["coef"] == pytest.approx(effect, abs=0.2)


@pytest.mark.parametrize(("per_sd", "seed"), [(10.0, 1), (20.0, 2), (6.0, 3)])
def test_sums_are_not_of_a_few_who_are_the_largest_in_turn(per_sd: float, seed: int, tmp_path: Path) -> None:
    """When the one with the largest β·z has left, the next one is it: nobody has half, and few patients have all."""
    rng = np.random.default_rng(seed)
    cohort = hospital(seed=seed).with_columns(rare=rng.normal(0, 1, PATIENTS), age_years=rng.normal(62, 9, PATIENTS))
    x = covariates(cohort)
    z = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    time, event = np.ceil(cohort["time_years"] * 4) / 4, cohort["event"] == 1
    guarded = Attacker(campaign(), cohort, tmp_path)
    tried, answered = 0, 0
    for angle in np.linspace(0, 2 * np.pi, 40, endpoint=False):
        direction = np.array([np.cos(angle), np.sin(angle)])
        weight = contributions_at(z, time, event, np.empty((PATIENTS, 0)), z @ direction * per_sd).weight
        shares = np.sort(weight)[::-1] / weight.sum()
        got = guarded.ask(BY_SITE, {**at(cohort, (direction * per_sd * 0.2).tolist(), 0.2), COLUMNS: np.ones(2)})
        tried += bool(shares[0] < 0.5 and shares[:9].sum() > 0.9)
        if got is not None:
            answered += 1
            assert shares[0] <= 0.5
            assert shares[:9].sum() <= 0.9
    assert tried >= 3, "the attack has directions in which nobody has half"
    assert answered < 20
