"""Cox's models by hand, against a slow loop, and what must not depend on how patients are cut into sites."""

from math import log

import numpy as np
import pandas as pd
import pytest

from fedage.common.analyses.base import Again, run_locally
from fedage.common.analyses.survival import _partial_likelihood as partial
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from tests.common.analyses.cox_models import by_site, patients


def slow(z, time, event, beta, ties):
    """The formulas of Efron and Breslow as they stand, one death at a time."""
    p = z.shape[1]
    value, gradient, information = 0.0, np.zeros(p), np.zeros((p, p))
    for t in sorted(set(time[event])):
        risk = [i for i in range(len(time)) if time[i] >= t]
        dead = [i for i in risk if event[i] and time[i] == t]
        for l in range(len(dead)):  # noqa: E741 - Efron's letter
            f = l / len(dead) if ties == "efron" else 0.0
            weight = {i: np.exp(z[i] @ beta) * (1 - f * (i in dead)) for i in risk}
            a0 = sum(weight.values())
            mean = sum(weight[i] * z[i] for i in risk) / a0
            second = sum(weight[i] * np.outer(z[i], z[i]) for i in risk) / a0
            value += z[dead[l]] @ beta - log(a0)
            gradient = gradient + z[dead[l]] - mean
            information = information + second - np.outer(mean, mean)
    return value, gradient, information


@pytest.fixture
def tied():
    rng = np.random.default_rng(7)
    n, p = 60, 3
    return rng.normal(2.0, 1.5, (n, p)), rng.integers(0, 8, n).astype(float), rng.random(n) < 0.6


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("beta", [(0.0, 0.0, 0.0), (0.4, -0.7, 0.1), (-2.0, 1.0, 3.0)])
def test_sums_of_patients_against_the_loop(tied, ties, beta):
    z, time, event = tied
    value, gradient, information = slow(z, time, event, np.array(beta), ties)
    found = partial.of_patients(z, time, event, np.array(beta), ties=ties)
    assert found.log_likelihood == pytest.approx(value, rel=1e-12)
    assert found.gradient == pytest.approx(gradient, rel=1e-10, abs=1e-10)
    assert found.information == pytest.approx(information, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_tables_against_the_loop(tools, tied, ties):
    z, time, event = tied
    cohort = patients(z[:, 0], time, event, y=z[:, 1], w=z[:, 2])
    model = CoxPooled("cox:t", ("x", "y", "w"), tuple(np.unique(time)), subset=None, ties=ties)
    scale = np.array([2.0, 1.0, 0.5])
    iterate = {
        "beta": np.array([0.8, -0.7, 0.05]),
        "last_beta": np.zeros(3),
        "centre": np.array([1.0, 2.0, 3.0]),
        "scale": scale,
        "last_log_likelihood": np.asarray(-1e6),
        "null_log_likelihood": np.asarray(-1e6),
        "exchange": np.asarray(2.0),
    }
    iterate = tools.on_tables(model, iterate)
    model.check(iterate)
    statistic = model.local(cohort, iterate)
    standardised = (z - iterate["centre"]) / scale
    value, gradient, information = slow(standardised, time, event, iterate["beta"], ties)
    found = partial.of_tables(
        {name: statistic[name] for name in ("deaths", "s0", "s1", "s2")}
        | ({name: statistic[name] for name in ("d0", "d1", "d2")} if ties == "efron" else {}),
        statistic["z_of_deaths"].sum(axis=0),
        iterate["beta"],
        ties=ties,
    )
    assert found.log_likelihood == pytest.approx(value, rel=1e-12)
    assert found.gradient == pytest.approx(gradient, rel=1e-10, abs=1e-10)
    assert found.information == pytest.approx(information, rel=1e-10, abs=1e-10)


def test_three_patients_by_hand():
    # Deaths at 1 (x=1, risk set of 3) and 2 (x=0, risk set of 2), x = 1, 0, 1; θ = e^β:
    # ll = β − log(2θ + 1) − log(1 + θ); zero gradient: 1 − 2θ/(2θ+1) = θ/(1+θ), so 2θ² = 1.
    cohort = patients([1, 0, 1], [1, 2, 3], [1, 1, 0])
    outcome = run_locally(by_site(), {"a": cohort})
    (covariate,) = outcome.result["covariates"]
    theta = np.sqrt(0.5)
    assert covariate["coef"] == pytest.approx(log(theta), abs=1e-10)
    assert outcome.result["log_likelihood"] == pytest.approx(
        log(theta) - log(2 * theta + 1) - log(1 + theta), abs=1e-12
    )
    assert outcome.result["null_log_likelihood"] == pytest.approx(-log(6), abs=1e-12)
    information = 2 * theta / (2 * theta + 1) ** 2 + theta / (1 + theta) ** 2
    assert covariate["se"] == pytest.approx(information**-0.5, rel=1e-6)


def test_two_tied_deaths_by_hand():
    # Both die at 1, one survives: Efron's second denominator has half the deaths' weight left, Breslow's all of it.
    cohort = patients([1, 0, 0], [1, 1, 2], [1, 1, 0])
    beta = np.array([log(3)])
    z, time, event = cohort.matrix(("x",)), cohort["time_years"], cohort["event"] == 1
    efron = partial.of_patients(z, time, event, beta, ties="efron")
    breslow = partial.of_patients(z, time, event, beta, ties="breslow")
    assert efron.log_likelihood == pytest.approx(log(3) - log(5) - log(5 - 0.5 * 4), rel=1e-14)
    assert breslow.log_likelihood == pytest.approx(log(3) - 2 * log(5), rel=1e-14)
    assert efron.gradient[0] == pytest.approx(1 - 3 / 5 - 1.5 / 3, rel=1e-14)
    assert breslow.gradient[0] == pytest.approx(1 - 2 * 3 / 5, rel=1e-14)


def agree(one, other):
    for a, b in zip(one["covariates"], other["covariates"], strict=True):
        assert a["coef"] == pytest.approx(b["coef"], rel=1e-10, abs=1e-10)
        assert a["se"] == pytest.approx(b["se"], rel=1e-8)
    for figure in ("log_likelihood", "null_log_likelihood"):
        assert one[figure] == pytest.approx(other[figure], rel=1e-10)
    assert (one["n"], one["events"]) == (other["n"], other["events"])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_pooled_model_does_not_see_how_sites_are_cut(tools, rossi, distinct, seed, ties):
    model = CoxPooled(
        "cox:r", tools.rossi, distinct(rossi["week"]), time="week", event="arrest", subset=None, ties=ties
    )
    whole = tools.result_of(model, {"all": tools.cohort_of(rossi)})
    agree(tools.result_of(model, tools.cut(rossi, 2 + seed, seed)), whole)


@pytest.mark.parametrize("seed", range(5))
def test_model_by_site_is_the_pooled_fit_stratified_by_the_site(tools, rossi, distinct, seed):
    sites = tools.cut(rossi, 3 + seed, seed)
    options = {"time": "week", "event": "arrest", "subset": None}
    federated = tools.result_of(CoxBySite("cox:r", tools.rossi, **options), sites)
    frames = [pd.DataFrame(dict(site.columns)).assign(site=k) for k, site in enumerate(sites.values())]
    merged = pd.concat(frames).astype(float)
    inside = CoxBySite("cox:r", tools.rossi, strata=("site",), **options)
    agree(federated, tools.result_of(inside, {"all": tools.cohort_of(merged)}))
    tables = CoxPooled(
        "cox:r",
        tools.rossi,
        distinct(rossi["week"]),
        strata=("site",),
        levels=(tuple(float(k) for k in range(len(sites))),),
        **options,
    )
    agree(federated, tools.result_of(tables, tools.cut(merged, 2, seed)))


def test_splitting_a_site_in_two_changes_no_sum_of_the_pooled_model_but_the_estimand_of_the_other(
    tools, rossi, distinct
):
    first, second, whole = rossi[:200], rossi[200:], rossi
    options = {"time": "week", "event": "arrest", "subset": None}
    parts = {"a": tools.cohort_of(first), "b": tools.cohort_of(second)}
    pooled = CoxPooled("cox:r", tools.rossi, distinct(rossi["week"]), **options)
    one = tools.summed(pooled, {"a": tools.cohort_of(whole)}, tools.on_tables(pooled))
    assert tools.summed(pooled, parts, tools.on_tables(pooled)).vector == pytest.approx(one.vector, rel=1e-12, abs=1e-9)

    stratified = CoxBySite("cox:r", tools.rossi, **options)
    alone = tools.result_of(stratified, {"a": tools.cohort_of(whole)})
    split = tools.result_of(stratified, parts)
    agree(alone, tools.result_of(pooled, parts))
    assert abs(split["log_likelihood"] - alone["log_likelihood"]) > 50
    assert split["covariates"][0]["coef"] != pytest.approx(alone["covariates"][0]["coef"], abs=1e-3)


def test_units_and_origin_of_a_covariate_do_not_matter(tools, rossi):
    options = {"time": "week", "event": "arrest", "subset": None}
    plain = tools.result_of(CoxBySite("c", ("age", "prio"), **options), tools.cut(rossi, 3, 1))
    moved = rossi.assign(age=2000 + rossi["age"] / 1000)
    other = tools.result_of(CoxBySite("c", ("age", "prio"), **options), tools.cut(moved, 3, 1))
    assert other["covariates"][0]["coef"] / 1000 == pytest.approx(plain["covariates"][0]["coef"], rel=1e-6)
    assert other["covariates"][0]["z"] == pytest.approx(plain["covariates"][0]["z"], rel=1e-6)
    assert other["log_likelihood"] == pytest.approx(plain["log_likelihood"], rel=1e-10)


def test_sites_without_events_with_one_patient_or_with_nobody_contribute_nothing(tools, rossi):
    options = {"time": "week", "event": "arrest", "subset": None}
    model = CoxBySite("c", ("age", "prio"), **options)
    sites = {"a": tools.cohort_of(rossi[:216]), "b": tools.cohort_of(rossi[216:])}
    plain = tools.result_of(model, sites)
    single = rossi[rossi["arrest"] == 1][:1].assign(age=rossi["age"].mean(), prio=rossi["prio"].mean())
    more = {**sites, "single": tools.cohort_of(single), "empty": tools.cohort_of(rossi[:0])}
    found = tools.result_of(model, more)
    assert [c["coef"] for c in found["covariates"]] == pytest.approx(
        [c["coef"] for c in plain["covariates"]], rel=1e-10
    )
    assert (found["n"], found["events"]) == (433, 115)
    empty = model.local(more["empty"], {})
    assert empty.smallest is None
    assert not empty.vector.any()


def test_missing_and_impossible_values_are_left_out_and_counted():
    nan = np.nan
    cohort = patients(
        [1, 0, 2, nan, 1, 1, 1, nan, 0.5],
        [1, 2, 3, 1, nan, 1, -1, 1, 2.5],
        [1, 1, 0, 1, 1, nan, 1, 1, 1],
    )
    kept = cohort.where(np.array([1, 1, 1, 0, 0, 0, 0, 0, 1], dtype=bool))
    statistic, clean = (by_site().local(c, {}) for c in (cohort, kept))
    assert statistic.scalar("left_out") == 5
    assert clean.scalar("left_out") == 0
    assert statistic.scalar("n") == clean.scalar("n") == 4
    assert statistic["gradient"] == pytest.approx(clean["gradient"], rel=1e-14)


def test_only_the_subset_is_used():
    cohort = patients([1, 0, 1, 5], [1, 2, 3, 4], [1, 1, 0, 1], is_test=[1, 1, 1, 0])
    chosen = CoxBySite("c", ("x",)).local(cohort, {})
    assert chosen.scalar("n") == 3
    assert chosen.scalar("events") == 2


def test_a_strong_effect_is_found_from_far_away():
    rng = np.random.default_rng(5)
    x = rng.normal(size=2000)
    time = rng.exponential(size=2000) * np.exp(-2.5 * x)
    outcome = run_locally(by_site(), {"a": patients(x, time, np.ones(2000))})
    (covariate,) = outcome.result["covariates"]
    assert abs(covariate["coef"] - 2.5) < 4 * covariate["se"]
    assert outcome.result["exchanges"] <= 10


def test_a_step_too_far_is_halved():
    model = by_site()
    cohort = patients([1, 0, 1, 0.5], [1, 2, 3, 2.5], [1, 1, 0, 1])
    far = {
        "beta": np.array([3.0]),
        "last_beta": np.array([0.0]),
        "centre": np.array([0.5]),
        "scale": np.array([0.5]),
        "last_log_likelihood": np.asarray(-3.0),
        "null_log_likelihood": np.asarray(-3.0),
        "exchange": np.asarray(2.0),
    }
    model.check(far)
    outcome = model.combine(model.local(cohort, far), far)
    assert isinstance(outcome, Again)
    assert outcome.iterate["beta"] == pytest.approx([1.5])
    assert outcome.iterate["last_log_likelihood"] == -3.0
    assert outcome.iterate["exchange"] == 3
