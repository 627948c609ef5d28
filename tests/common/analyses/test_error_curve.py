import numpy as np
import pytest

from fedage.common.analyses.base import IterateRefused, NotComputable, run_locally
from fedage.common.analyses.evaluation.error_curve import THRESHOLDS_YEARS, ErrorCurve, join_cells
from fedage.common.analyses.evaluation.metrics import Evaluation
from fedage.common.statistics.cohort import Cohort

EXACT = ErrorCurve("error-curve:test")
GUARDED = ErrorCurve("error-curve:test", minimum_count=10)


def errors(values, *, is_test=1.0):
    values = np.asarray(values, dtype=float)
    age = np.full(values.size, 64.0)  # a power of two: age + error − age is the error again, to the bit
    return Cohort({"age_years": age, "predicted_years": age + values, "is_test": np.full(values.size, is_test)})


def hospital(rng, n, sd):
    age = rng.uniform(40, 85, n)
    part = (rng.random(n) < 0.8).astype(float)
    return Cohort({"age_years": age, "predicted_years": age + rng.normal(0, sd, n), "is_test": part})


@pytest.fixture(scope="module")
def sites():
    rng = np.random.default_rng(11)
    return {site: hospital(rng, n, sd) for site, n, sd in (("a", 90, 3.0), ("b", 140, 5.0), ("c", 60, 9.0))}


def pooled_curve(sites):
    """The slow oracle: every patient against every threshold."""
    all_errors = np.concatenate(
        [np.abs(c["predicted_years"] - c["age_years"])[c["is_test"] == 1] for c in sites.values()]
    )
    return [sum(float(error) <= t for error in all_errors) / all_errors.size for t in THRESHOLDS_YEARS]


def test_six_patients_by_hand(tools):
    found = tools.result_of(EXACT, {"a": errors([0, 1, -1.5]), "b": errors([5, -5.25, 21])})
    assert found["n"] == 6
    assert found["thresholds_years"] == list(range(21))
    expected = [1, 2, 3, 3, 3, 4, *[5] * 15]  # 5 counts at t = 5, 5.25 does not; 21 is beyond the curve
    assert np.array(found["cs"]) * 6 == pytest.approx(expected)
    assert found["cs"] == found["cs_low"] == found["cs_high"]
    assert found["largest_width"] == 0


def test_without_a_minimum_it_is_the_pooled_curve(tools, sites):
    found = tools.result_of(EXACT, sites)
    assert found["cs"] == pytest.approx(pooled_curve(sites), rel=1e-14)


@pytest.mark.parametrize("minimum", [2, 5, 10, 25])
def test_the_pooled_curve_lies_between_the_bounds(tools, sites, minimum):
    found = tools.result_of(ErrorCurve("e", minimum_count=minimum), sites)
    truth = np.array(pooled_curve(sites))
    low, even, high = (np.array(found[key]) for key in ("cs_low", "cs", "cs_high"))
    assert np.all(low <= truth + 1e-12)
    assert np.all(truth <= high + 1e-12)
    assert np.all((low <= even) & (even <= high))
    assert np.all(np.diff(even) >= 0)
    assert found["largest_width"] == pytest.approx(np.max(high - low))
    assert np.max(np.abs(even - truth)) <= found["largest_width"]
    if minimum == 10:
        assert found["largest_width"] < 0.2  # it is a curve still, not one step


def test_it_agrees_with_the_evaluation_at_five_years(tools, sites):
    wide = {site: sites[site] for site in ("b", "c")}  # at least 10 patients within and beyond 5 years
    found, evaluated = tools.result_of(GUARDED, wide), tools.result_of(Evaluation("e", "is_test"), wide)
    assert found["n"] == evaluated["n"]
    assert found["cs_low"][5] == found["cs_high"][5] == pytest.approx(evaluated["cs_5"])
    found, evaluated = tools.result_of(GUARDED, sites), tools.result_of(Evaluation("e", "is_test"), sites)
    assert found["cs_low"][5] < evaluated["cs_5"] < found["cs_high"][5]  # fewer than 10 of site a are beyond


def test_cells_by_hand():
    # |e| = 0, (0, 1], …, (19, 20], > 20
    counts = np.array([0, 4, 7, 2, 9, 1, 12, 0, 3, 8, *[0] * 11, 0])
    assert join_cells(counts, 10) == [(0, 1), (1, 3), (3, 6), (6, 7), (7, 21), (21, 22)]
    # 9 patients within 5 years are known from the evaluation; their span takes a large group from beyond.
    short = np.array([0, 4, 5, 0, 0, 0, 12, 0, 11, *[0] * 12, 2])
    assert join_cells(short, 10) == [(0, 1), (1, 7), (7, 22)]
    # Nobody beyond 5 years, and too few in all: one span, which the guard refuses.
    assert join_cells(np.array([1, 3, *[0] * 20]), 10) == [(0, 22)]
    # The empty cells in the middle widen the span that holds fewer patients.
    gap = np.array([0, 0, 0, 0, 0, 10, 30, 0, 0, 0, 10, *[0] * 10, 0])
    assert (6, 7) in join_cells(gap, 10)


def test_a_joined_cell_is_read_as_normal_errors_of_the_sites_spread():
    rng = np.random.default_rng(4)
    values = rng.normal(0, 4, 4000)
    found = run_locally(ErrorCurve("e", minimum_count=1500), {"a": errors(values)}).result
    exact = run_locally(EXACT, {"a": errors(values)}).result
    assert found["largest_width"] > 0.4
    assert found["cs"] == pytest.approx(exact["cs"], abs=0.02)


@pytest.mark.parametrize("minimum", [2, 3, 10])
def test_no_span_is_small_and_none_tells_by_subtraction(minimum):
    rng = np.random.default_rng(minimum)
    for _ in range(300):
        counts = rng.poisson(rng.choice([0.2, 1, 4, 12], size=22) * (rng.random(22) < 0.7)).astype(np.int64)
        spans = join_cells(counts, minimum)
        assert [first for first, _ in spans] == [0, *(end for _, end in spans[:-1])]
        assert spans[-1][1] == 22
        held = [counts[first:end].sum() for first, end in spans]
        if counts.sum() >= minimum:
            assert all(n == 0 or n >= minimum for n in held)
        within, beyond = counts[:6].sum(), counts[6:].sum()
        crossing = [(first, end) for first, end in spans if first < 6 < end]
        if within >= minimum and beyond >= minimum:
            assert crossing == []
        for first, end in crossing:
            # What CS(≤5) cuts off a crossing span is either known without it or large enough.
            for part, side in ((counts[first:6].sum(), within), (counts[6:end].sum(), beyond)):
                assert part == side or part == 0 or part >= minimum


def test_order_of_sites_does_not_matter(tools, sites):
    renamed = dict(zip(("z", "y", "x"), sites.values(), strict=True))
    assert tools.result_of(GUARDED, sites)["cs"] == pytest.approx(tools.result_of(GUARDED, renamed)["cs"], rel=1e-12)


def test_cutting_a_site_in_two_changes_no_exact_curve(tools, sites):
    half = np.arange(sites["b"].n) < 50
    cut = {"a": sites["a"], "c": sites["c"], "b1": sites["b"].where(half), "b2": sites["b"].where(~half)}
    assert tools.result_of(EXACT, cut)["cs"] == tools.result_of(EXACT, sites)["cs"]


def test_smallest_cell_and_bounds(sites):
    statistic = GUARDED.local(sites["c"], {})
    assert statistic.smallest.count >= 10
    lower, upper = GUARDED.layout({}).bounds()
    assert np.all((lower <= statistic.vector) & (statistic.vector <= upper))
    few = GUARDED.local(errors([1, 2, 3, 8, 9]), {})
    assert few.smallest.count == 5  # so the guard withholds it


def test_missing_and_wild_predictions_are_left_out(tools):
    found = tools.result_of(EXACT, {"a": errors([1, np.nan, 190, 2, -140])})
    assert (found["n"], found["left_out"]) == (2, 3)
    assert found["cs"][1] == 0.5


def test_nobody():
    outcome = run_locally(EXACT, {"a": errors([]), "b": errors([3.0], is_test=0.0)})
    assert isinstance(outcome, NotComputable)
    assert "is_test" in outcome.reason


def test_nothing_can_be_asked():
    EXACT.check({})
    with pytest.raises(IterateRefused):
        EXACT.check({"thresholds": np.arange(3.0)})
