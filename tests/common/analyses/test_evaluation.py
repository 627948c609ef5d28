import numpy as np
import pytest
from scipy import stats

from fedage.common.analyses.base import IterateRefused, NotComputable, run_locally
from fedage.common.analyses.evaluation.metrics import Evaluation
from fedage.common.statistics.cohort import Cohort

ANALYSIS = Evaluation("evaluation:test", "is_test")


def predictions(age, predicted, *, is_test=1.0, healthy=1.0):
    age = np.asarray(age, dtype=float)
    return Cohort(
        {
            "age_years": age,
            "predicted_years": np.asarray(predicted, dtype=float),
            "is_test": np.broadcast_to(np.asarray(is_test, dtype=float), age.shape),
            "healthy": np.broadcast_to(np.asarray(healthy, dtype=float), age.shape),
        }
    )


@pytest.fixture
def sites():
    rng = np.random.default_rng(2)
    found = {}
    for k, site in enumerate(("north", "south", "west")):
        age = rng.uniform(40 + 5 * k, 80, 50 + 20 * k)
        found[site] = predictions(age, 20 + 0.7 * age + rng.normal(0, 6, age.size), is_test=rng.random(age.size) < 0.7)
    return found


def test_four_patients_by_hand(tools):
    found = tools.result_of(ANALYSIS, {"a": predictions([50, 60], [55, 59]), "b": predictions([70, 40], [64.9, 48])})
    assert found["n"] == 4
    assert found["mean_age_years"] == 55
    assert found["mae_years"] == pytest.approx((5 + 1 + 5.1 + 8) / 4)
    assert found["mean_error_years"] == pytest.approx((5 - 1 - 5.1 + 8) / 4)
    assert found["rmse_years"] == pytest.approx(((25 + 1 + 5.1**2 + 64) / 4) ** 0.5)
    assert found["cs_5"] == 0.5  # 5 counts, 5.1 does not, though it rounds to 5
    assert found["mae_of_mean_years"] == pytest.approx((5 + 5 + 15 + 15) / 4)
    assert found["mae_of_site_mean_years"] == pytest.approx((5 + 5 + 15 + 15) / 4)


def test_figures_of_all_sites_and_of_each(tools, sites):
    iterate = {}
    outcome = ANALYSIS.combine(tools.summed(ANALYSIS, sites, iterate), iterate)
    iterate = outcome.iterate
    chosen = {site: cohort.where(cohort["is_test"] == 1) for site, cohort in sites.items()}
    everybody = np.concatenate([cohort["age_years"] for cohort in chosen.values()])
    assert float(iterate["mean_age"]) == pytest.approx(everybody.mean(), rel=1e-14)
    groups = {site: (sites[site], cohort["age_years"], cohort["predicted_years"]) for site, cohort in chosen.items()}
    predicted = np.concatenate([cohort["predicted_years"] for cohort in chosen.values()])
    for site, (cohort, age, guess) in {**groups, "all": (None, everybody, predicted)}.items():
        total = tools.summed(ANALYSIS, sites, iterate) if cohort is None else ANALYSIS.local(cohort, iterate)
        found = ANALYSIS.combine(total, iterate).result
        assert found["n"] == age.size, site
        assert found["mae_years"] == pytest.approx(np.abs(guess - age).mean(), rel=1e-12)
        assert found["pearson_r"] == pytest.approx(stats.pearsonr(guess, age).statistic, rel=1e-10)
        assert found["mae_of_mean_years"] == pytest.approx(np.abs(age - everybody.mean()).mean(), rel=1e-12)
        assert found["mean_age_years"] == pytest.approx(age.mean(), rel=1e-12)
        assert found["cs_5"] == pytest.approx(np.mean(np.abs(guess - age) <= 5))


def test_cut_and_order_of_sites_do_not_matter(tools, sites):
    merged = Cohort({name: np.concatenate([site[name] for site in sites.values()]) for name in sites["north"].columns})
    whole, cut = tools.result_of(ANALYSIS, {"all": merged}), tools.result_of(ANALYSIS, sites)
    # Predicting each site's own mean depends on what a site is; nothing else does.
    assert whole.pop("mae_of_site_mean_years") > cut.pop("mae_of_site_mean_years")
    assert cut == pytest.approx(whole, rel=1e-12)


def test_missing_values_are_left_out_and_wild_predictions_too(tools):
    cohort = predictions([50, 60, np.nan, 70, 140, 80, 20], [51, 62, 60, np.nan, 120, 300, 155])
    found = tools.result_of(ANALYSIS, {"a": cohort})
    assert (found["n"], found["left_out"]) == (2, 5)
    assert found["mae_years"] == 1.5


def test_only_healthy(tools):
    cohort = predictions([50, 60, 70], [51, 70, 90], healthy=[1, 0, np.nan])
    assert tools.result_of(Evaluation("e", "is_test", healthy_only=True), {"a": cohort})["mae_years"] == 1


def test_a_correlation_without_variation_is_none(tools):
    assert tools.result_of(ANALYSIS, {"a": predictions([50, 60, 70], [55, 55, 55])})["pearson_r"] is None
    assert tools.result_of(ANALYSIS, {"a": predictions([50], [55])})["pearson_r"] is None


def test_nobody():
    outcome = run_locally(ANALYSIS, {"a": predictions([], []), "b": predictions([50], [50], is_test=0)})
    assert isinstance(outcome, NotComputable)
    assert "is_test" in outcome.reason


@pytest.mark.parametrize("mean", [np.asarray(-1.0), np.asarray(131.0), np.asarray(np.nan), np.zeros(2)])
def test_a_mean_age_that_is_none_is_refused(mean):
    ANALYSIS.check({"mean_age": np.asarray(61.5)})
    with pytest.raises(IterateRefused, match="mean_age"):
        ANALYSIS.check({"mean_age": mean})
    with pytest.raises(IterateRefused):
        ANALYSIS.check({"mean": np.asarray(1.0)})


def test_bounds_and_cell():
    cohort = predictions([0, 130, 0, 130, 65], [130, 0, -130, 260, 65])
    for iterate in ({}, {"mean_age": np.asarray(0.0)}, {"mean_age": np.asarray(130.0)}):
        statistic = ANALYSIS.local(cohort, iterate)
        lower, upper = ANALYSIS.layout(iterate).bounds()
        assert np.all((lower <= statistic.vector) & (statistic.vector <= upper))
        assert statistic.scalar("n") == 5
        assert (statistic.smallest.count, statistic.smallest.of) == (5, "patients evaluated")


def test_a_few_patients_on_one_side_of_the_mean_are_not_told_apart():
    """Σ|u| with Σu would give the age of the only one below; |Σu| says nothing more, and never flatters the model."""
    age = np.array([20.0, 50, 51, 52, 53, 60, 61, 62, 63])
    cohort = predictions(age, age)
    guarded = Evaluation("e", "is_test", minimum_count=4)
    for mean, exact in ((40.0, False), (51.5, False), (52.5, True), (61.5, False), (10.0, True), (100.0, True)):
        iterate = {"mean_age": np.asarray(mean)}
        found = guarded.local(cohort, iterate)
        expected = np.abs(age - mean).sum() if exact else abs((age - mean).sum())
        assert found.scalar("from_mean") == pytest.approx(expected), mean
        assert found.scalar("from_mean_n") == 9
        # Marked too where nobody is on one side (10, 100): else the mark would tell that somebody is.
        assert guarded.combine(found, iterate).result["mae_of_mean_at_least"] is (mean != 52.5)
        free = ANALYSIS.combine(ANALYSIS.local(cohort, iterate), iterate).result
        assert free["mae_of_mean_at_least"] is False
        assert free["mae_of_mean_years"] == pytest.approx(np.abs(age - mean).mean())
    below = Evaluation("e", "is_test", minimum_count=3).local(cohort, {"mean_age": np.asarray(51.5)})
    assert below.scalar("from_mean") == pytest.approx(np.abs(age - 51.5).sum())
    # One strictly above 62, and one exactly there who gives nothing.
    at = Evaluation("e", "is_test", minimum_count=2).local(cohort, {"mean_age": np.asarray(62.0)})
    assert at.scalar("from_mean") == pytest.approx(abs((age - 62).sum()))


def test_one_site_with_few_on_a_side_makes_the_figure_of_all_sites_a_bound(tools):
    even, old = predictions([40, 45, 65, 70.0], [50] * 4), predictions([50, 60, 65, 70.0], [50] * 4)
    guarded = Evaluation("e", "is_test", minimum_count=2)
    assert tools.result_of(guarded, {"a": even, "b": even})["mae_of_mean_at_least"] is False
    found, exact = tools.result_of(guarded, {"a": even, "b": old}), tools.result_of(ANALYSIS, {"a": even, "b": old})
    assert (found["mae_of_mean_at_least"], exact["mae_of_mean_at_least"]) == (True, False)
    assert found["mae_of_mean_years"] < exact["mae_of_mean_years"]


def test_without_a_baseline_one_exchange_and_the_same_figures(tools, sites):
    alone = Evaluation("e", "is_test", baseline=False)
    full, found = tools.result_of(ANALYSIS, sites), tools.result_of(alone, sites)
    assert (found.pop("mae_of_mean_years"), found.pop("mae_of_mean_n")) == (None, 0)
    assert full.pop("mae_of_mean_years") > 0
    assert full.pop("mae_of_mean_n") == full["n"]
    assert found == pytest.approx(full, rel=1e-12)
    blank = Evaluation("e", "is_test", minimum_count=30).spared(
        Evaluation("e", "is_test", minimum_count=30).local(sites["north"], {"mean_age": np.asarray(90.0)})
    )
    assert (blank.scalar("from_mean"), blank.scalar("from_mean_n"), blank.scalar("from_mean_bound_n")) == (0, 0, 0)
    assert alone.thresholds({}) == {}
    with pytest.raises(IterateRefused):
        alone.check({"mean_age": np.asarray(60.0)})


@pytest.mark.parametrize("within", [0, 1, 4, 5, 12, 15, 16, 19, 20])
def test_few_errors_on_a_side_of_five_years_are_told_as_bounds(within: int) -> None:
    error = np.where(np.arange(20) < within, 1.0, 9.0)
    age = np.linspace(40, 80, 20)
    cohort = Cohort({"age_years": age, "predicted_years": age + error, "is_test": np.ones(20), "healthy": np.ones(20)})
    told = Evaluation("test", "is_test", baseline=False, minimum_count=5).local(cohort, {})
    low, high = int(told["within_5_low"]), int(told["within_5_high"])
    assert low <= within <= high
    assert all(count == 0 or count >= 5 for bound in (low, high) for count in (bound, 20 - bound))
    assert (low == high) == (5 <= within <= 15)
