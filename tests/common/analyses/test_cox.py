"""Cox's models by hand, against a slow loop, and what must not depend on how patients are cut into sites."""

from math import log

import numpy as np
import pandas as pd
import pytest

from fedage.common.analyses.base import Again, IterateRefused, NotComputable, run_locally
from fedage.common.analyses.survival import _partial_likelihood as partial
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from fedage.common.statistics.cohort import Cohort


def by_site(covariates=("x",), **options):
    return CoxBySite("cox:test", covariates, subset=None, **options)


def patients(x, time, event, **more):
    columns = {"x": x, "time_years": time, "event": event, **more}
    return Cohort({name: np.asarray(values, dtype=float) for name, values in columns.items()})


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


@pytest.mark.parametrize(
    ("cohort", "words"),
    [
        (patients([1, 0, 2], [1, 2, 3], [0, 0, 0]), ("no event",)),
        (patients([], [], []), ("no event",)),
        (patients([4, 4, 4, 4], [1, 2, 3, 4], [1, 1, 1, 0]), ("x is the same",)),
        (patients([3, 1, 2, 2, 2], [1, 2, 3, 4, 5], [0, 0, 1, 1, 0]), ("x does not vary",)),
    ],
)
def test_what_cannot_be_computed_says_why(cohort, words):
    outcome = run_locally(by_site(), {"a": cohort})
    assert isinstance(outcome, NotComputable)
    for word in words:
        assert word in outcome.reason


def test_a_covariate_constant_in_every_site_is_named_only_when_stratified():
    rng = np.random.default_rng(3)
    sites = {
        site: patients(rng.normal(size=40), rng.exponential(size=40), np.ones(40), scanner=np.full(40, k))
        for k, site in enumerate("abc")
    }
    outcome = run_locally(by_site(("x", "scanner")), sites)
    assert isinstance(outcome, NotComputable)
    assert "scanner does not vary" in outcome.reason
    times = tuple(sorted(t for site in sites.values() for t in site["time_years"]))
    pooled = run_locally(CoxPooled("c", ("x", "scanner"), times, subset=None), sites)
    assert not isinstance(pooled, NotComputable)


def test_collinear_covariates_are_named():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 80))
    cohort = patients(x, rng.exponential(size=80), np.ones(80), y=y, both=x - 2 * y)
    outcome = run_locally(by_site(("x", "y", "both")), {"a": cohort})
    assert isinstance(outcome, NotComputable)
    assert "x, y, both cannot be told apart" in outcome.reason


@pytest.mark.parametrize("scale", [1.0, 1e-3, 500.0])
def test_monotone_likelihood_names_the_covariate(scale):
    rng = np.random.default_rng(0)
    x = np.repeat([0.0, scale], 30)
    event = np.concatenate([np.zeros(30), np.ones(30)])  # nobody with x = 0 has an event
    cohort = patients(x, rng.exponential(size=60), event, y=rng.normal(size=60))
    outcome = run_locally(by_site(("y", "x")), {"a": cohort})
    assert isinstance(outcome, NotComputable)
    assert "coefficient of x" in outcome.reason
    assert "monotone likelihood" in outcome.reason


def test_a_perfectly_ordered_covariate_is_monotone_too():
    x = np.arange(20.0)
    outcome = run_locally(by_site(), {"a": patients(x, 20 - x, np.ones(20))})
    assert isinstance(outcome, NotComputable)
    assert "coefficient of x" in outcome.reason
    assert "monotone likelihood" in outcome.reason


def test_a_strong_effect_is_found_from_far_away():
    rng = np.random.default_rng(5)
    x = rng.normal(size=2000)
    time = rng.exponential(size=2000) * np.exp(-2.5 * x)
    outcome = run_locally(by_site(), {"a": patients(x, time, np.ones(2000))})
    (covariate,) = outcome.result["covariates"]
    assert abs(covariate["coef"] - 2.5) < 4 * covariate["se"]
    assert outcome.result["exchanges"] <= 10


def test_an_effect_that_no_site_answers_for_is_named():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 2000))
    time = rng.exponential(size=2000) * np.exp(-6.0 * x + y)
    outcome = run_locally(by_site(("y", "x")), {"a": patients(x, time, np.ones(2000), y=y)})
    assert isinstance(outcome, NotComputable)
    assert "coefficient of x goes beyond ±4 per standard deviation" in outcome.reason


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


def share_of_the_heaviest(model, cohort, iterate):
    """How much of S0 at the first table time is one patient's."""
    z = (cohort.matrix(model.covariates) - iterate["centre"]) / iterate["scale"]
    weights = np.exp(z @ iterate["beta"])
    assert model.local(cohort, iterate)["s0"][0] == pytest.approx(weights.sum())
    return weights.max() / weights.sum()


@pytest.mark.parametrize("kind", ["by-site", "pooled"])
def test_a_scale_that_would_make_one_patient_the_sum_is_refused(tools, kind):
    rng = np.random.default_rng(1)
    x = rng.normal(0, 5, 60)
    cohort = patients(x, rng.exponential(5, 60), rng.integers(0, 2, 60))
    pooled = CoxPooled("c", ("x",), (1.0, 100.0), subset=None)
    model = by_site() if kind == "by-site" else pooled
    honest = {name: np.atleast_1d(block[0]) if block.ndim else block for name, block in good_iterate().items()}
    honest |= {"beta": np.array([1.0]), "centre": np.array([0.0]), "scale": np.array([5.0])}
    assert share_of_the_heaviest(pooled, cohort, tools.on_tables(pooled, honest)) < 0.3
    honest = honest if kind == "by-site" else tools.on_tables(pooled, honest)
    model.local(cohort, honest)
    for scale in (1e-3, 0.05, 0.4):
        attack = {**honest, "scale": np.array([scale])}
        model.check(attack)  # in the abstract it could be the SD of all sites
        with pytest.raises(IterateRefused, match="scale"):
            model.local(cohort, attack)
    with pytest.raises(IterateRefused, match="beta"):
        model.check({**honest, "beta": np.array([4.01])})
    constant = patients(np.full(5, 2.0), [1, 2, 3, 4, 5], [1, 0, 1, 0, 1])
    assert np.all(np.isfinite(model.local(constant, {**honest, "scale": np.array([1e-3])}).vector))


def good_iterate():
    return {
        "beta": np.zeros(2),
        "last_beta": np.zeros(2),
        "centre": np.array([50.0, 0.0]),
        "scale": np.ones(2),
        "last_log_likelihood": np.asarray(-10.0),
        "null_log_likelihood": np.asarray(-10.0),
        "exchange": np.asarray(2.0),
    }


@pytest.mark.parametrize(
    ("block", "value"),
    [
        ("beta", np.zeros(3)),
        ("beta", np.array([np.nan, 0])),
        ("beta", np.array([0, 4.5])),
        ("scale", np.array([0.0, 1.0])),
        ("scale", np.array([-1.0, 1.0])),
        ("centre", np.array([131.0, 0.0])),
        ("exchange", np.asarray(51.0)),
        ("last_log_likelihood", np.asarray(np.inf)),
        ("unknown", np.asarray(1.0)),
    ],
)
@pytest.mark.parametrize("kind", ["by-site", "pooled"])
def test_an_iterate_that_no_fit_produces_is_refused(tools, kind, block, value):
    covariates = ("age_years", "gap_years")
    model = CoxBySite("c", covariates) if kind == "by-site" else CoxPooled("c", covariates, (1.0, 2.0))
    on_tables = {} if kind == "by-site" else tools.on_tables(model)
    model.check(on_tables)
    model.check({**on_tables, **good_iterate()})
    with pytest.raises(IterateRefused, match=block):
        model.check({**on_tables, **good_iterate(), block: value})


@pytest.mark.parametrize(
    "change",
    [
        {"ends": np.array([1.0])},
        {"ends": np.array([0.0, 0.0])},
        {"ends": np.array([0.5, 1.0])},
        {"ends": np.array([0.0, 1.0])},
        {"exact": np.asarray(0.5)},
        {"exact": None},
        {"ends": None},
    ],
)
def test_intervals_that_no_agreement_produces_are_refused(tools, change):
    model = CoxPooled("c", ("x",), (1.0, 2.0))
    iterate = {name: block for name, block in {**tools.on_tables(model), **change}.items() if block is not None}
    with pytest.raises(IterateRefused, match=r"ends|exact"):
        model.check(iterate)


@pytest.mark.parametrize("kind", ["by-site", "efron", "breslow"])
def test_no_site_goes_beyond_its_bounds(tools, kind):
    rng = np.random.default_rng(0)
    n = 500
    cohort = Cohort(
        {
            "age_years": rng.choice([0.0, 130.0, 60.0], n),
            "gap_years": rng.choice([-130.0, 130.0, 1.0], n),
            "time_years": rng.integers(0, 5, n).astype(float),
            "event": rng.integers(0, 2, n).astype(float),
        }
    )
    covariates = ("age_years", "gap_years")
    model = (
        CoxBySite("c", covariates, subset=None)
        if kind == "by-site"
        else CoxPooled("c", covariates, (1.0, 2.0, 3.0), subset=None, ties=kind)
    )
    extreme = {**good_iterate(), "beta": np.array([3.0, -3.0]), "scale": np.array([6.0, 11.0])}
    grids = [{}] if kind == "by-site" else [tools.on_tables(model, {"exact": np.asarray(e)}) for e in (0.0, 1.0)]
    asked = ({}, {**good_iterate(), "scale": np.array([50.0, 100.0])}, extreme)
    for iterate in [{**grid, **newton} for grid in grids for newton in asked]:
        layout = model.layout(iterate)
        lower, upper = layout.bounds()
        vector = model.local(cohort, iterate).vector
        assert np.all(np.isfinite(vector))
        assert np.all(np.isfinite(lower))
        assert np.all(np.isfinite(upper))
        assert np.all((lower <= vector) & (vector <= upper))


def test_cells_of_the_model_by_site():
    cohort = patients([1, 0, 1, 0, 2], [1, 2, 3, 4, 5], [1, 1, 0, 0, 0])
    smallest = by_site().local(cohort, {}).smallest
    assert (smallest.count, smallest.of) == (2, "patients with an event")


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_cells_of_the_tables(tools, ties):
    # 3 leave by one year (2 with an event), 2 by two years (1 with an event), and one is followed for longer.
    cohort = patients([1, 0, 1, 0, 2, 1], [0.5, 1, 1, 2, 2, 9], [1, 1, 0, 1, 0, 0])
    model = CoxPooled("c", ("x",), (1.0, 2.0), subset=None, ties=ties)
    smallest = model.local(cohort, tools.on_tables(model)).smallest
    assert (smallest.count, smallest.of) == (1, "patients leaving without an event by 1 year")
    guarded = CoxPooled("c", ("x",), (1.0, 2.0), subset=None, ties=ties, minimum_count=2)
    with pytest.raises(IterateRefused, match="has not said it can tell"):
        guarded.local(cohort, tools.on_tables(guarded))


@pytest.mark.parametrize("times", [(), (2.0, 1.0), (1.0, 1.0), (-1.0, 2.0)])
def test_table_times_must_rise(times):
    with pytest.raises(ValueError, match="table times"):
        CoxPooled("c", ("x",), times)


def test_patients_of_an_unknown_level_are_left_out(tools):
    cohort = patients([1, 0, 1], [1, 2, 3], [1, 1, 0], group=[0, 1, 7])
    model = CoxPooled("c", ("x",), (1.0, 2.0, 3.0), subset=None, strata=("group",), levels=((0.0, 1.0),))
    statistic = model.local(cohort, tools.on_tables(model))
    assert (statistic.scalar("n"), statistic.scalar("left_out")) == (2, 1)
