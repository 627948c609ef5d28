"""What a Cox model cannot be computed from is named, and what no fit produces is refused."""

import numpy as np
import pytest

from fedage.common.analyses.base import IterateRefused, NotComputable, run_locally
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from fedage.common.statistics.cohort import Cohort
from tests.common.analyses.cox_models import by_site, patients


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


def test_an_effect_that_no_site_answers_for_is_named():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 2000))
    time = rng.exponential(size=2000) * np.exp(-6.0 * x + y)
    outcome = run_locally(by_site(("y", "x")), {"a": patients(x, time, np.ones(2000), y=y)})
    assert isinstance(outcome, NotComputable)
    assert "coefficient of x goes beyond ±4 per standard deviation" in outcome.reason


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
