import numpy as np
import pytest

from fedage.common.analyses._age_bins import age_edges
from fedage.common.analyses.base import IterateRefused, NotComputable, run_locally
from fedage.common.analyses.bias.gap_by_age import GapByAge
from fedage.common.analyses.evaluation.predicted_by_age import PredictedByAge
from fedage.common.statistics.cohort import Cohort

EDGES = (40.0, 50.0, 60.0, 70.0)


def predictions(age, predicted):
    age, predicted = np.asarray(age, dtype=float), np.asarray(predicted, dtype=float)
    return Cohort(
        {"age_years": age, "predicted_years": predicted, "gap_years": predicted - age, "is_test": np.ones(age.size)}
    )


def test_counts_by_hand(tools):
    # 50 belongs to 50–60; whatever lies beyond belongs to the outermost bins.
    cohort = predictions([40, 49.9, 50, 70, 90, 30], [45, 51, 59.9, 60, 100, 10])
    found = tools.result_of(PredictedByAge("p", EDGES), {"a": cohort})
    assert found["counts"] == [[2, 1, 0], [0, 1, 0], [0, 0, 2]]
    assert (found["n"], found["left_out"], found["withheld"]) == (6, 0, 0)


def test_gap_against_a_loop_over_bins(tools):
    rng = np.random.default_rng(0)
    age = rng.uniform(40, 70, 120)
    predicted = age + rng.normal(0, 5, 120)
    sites = {"a": predictions(age[:50], predicted[:50]), "b": predictions(age[50:], predicted[50:])}
    found = tools.result_of(GapByAge("g", "gap_years", EDGES), sites)
    for k in range(3):
        gap = (predicted - age)[(age >= EDGES[k]) & (age < EDGES[k + 1])]
        assert found["counts"][k] == gap.size
        assert found["mean_years"][k] == pytest.approx(gap.mean(), rel=1e-12)
        assert found["sd_years"][k] == pytest.approx(gap.std(ddof=1), rel=1e-10)
    whole = tools.result_of(GapByAge("g", "gap_years", EDGES), {"b": predictions(age, predicted)})
    assert found["counts"] == whole["counts"]
    assert found["sd_years"] == pytest.approx(whole["sd_years"], rel=1e-12)


def test_an_empty_bin_and_a_single_patient_have_no_figures(tools):
    found = tools.result_of(GapByAge("g", "gap_years", EDGES), {"a": predictions([45, 65, 66], [47, 60, 61])})
    assert found["mean_years"] == [2, None, -5]
    assert found["sd_years"] == [None, None, 0]


def test_small_cells_do_not_leave_a_site(tools):
    age = np.concatenate([np.full(12, 45), np.full(4, 55), np.full(30, 65)])
    cohort = predictions(age, age + 1)
    gaps = GapByAge("g", "gap_years", EDGES, minimum_count=10)
    statistic = gaps.local(cohort, {})
    # 4 are too few, and a withheld total of 4 would be too: the 12 go with them.
    assert statistic["counts"].tolist() == [0, 0, 30]
    assert statistic["gap"].tolist() == [0, 0, 30]
    assert statistic["gap_squared"].tolist() == [0, 0, 30]
    assert statistic.scalar("withheld") == 16
    assert statistic.smallest.count == 16
    counts = PredictedByAge("p", EDGES, minimum_count=10).local(cohort, {})
    assert counts["counts"].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 30]]
    assert counts.smallest.count == 16
    # What one site withholds, others still show.
    both = tools.result_of(gaps, {"a": cohort, "b": predictions(np.full(20, 55), np.full(20, 52))})
    assert both["counts"] == [0, 20, 30]
    assert both["mean_years"] == [None, -3, 1]
    assert (both["n"], both["withheld"]) == (66, 16)


def test_a_site_with_few_patients_is_left_to_the_guard():
    assert GapByAge("g", "gap_years", EDGES, minimum_count=10).local(predictions([45], [46]), {}).smallest.count == 1
    assert PredictedByAge("p", EDGES, minimum_count=10).local(predictions([45], [46]), {}).smallest.count == 1


@pytest.mark.parametrize("analysis", [PredictedByAge("p", EDGES), GapByAge("g", "gap_years", EDGES)])
def test_missing_values_nobody_bounds_and_iterate(tools, analysis):
    cohort = predictions([45, np.nan, 55, 0, 130], [46, 50, np.nan, 130, 0])
    statistic = analysis.local(cohort, {})
    assert (statistic.scalar("n"), statistic.scalar("left_out")) == (3, 2)
    lower, upper = analysis.layout({}).bounds()
    assert np.all((lower <= statistic.vector) & (statistic.vector <= upper))
    assert isinstance(run_locally(analysis, {"a": predictions([], [])}), NotComputable)
    with pytest.raises(IterateRefused):
        analysis.check({"edges": np.zeros(3)})


@pytest.mark.parametrize(
    ("lowest", "highest", "edges"),
    [
        (40, 85, (40, 50, 60, 70, 80, 90)),
        (0, 6, (0, 1, 2, 3, 4, 5, 6)),
        (40, 55, (40, 42, 44, 46, 48, 50, 52, 54, 56)),
        (18, 58, (15, 20, 25, 30, 35, 40, 45, 50, 55, 60)),
        (0, 130, tuple(range(0, 131, 10))),
        (50, 50, (50, 51)),
    ],
)
def test_edges_are_round_and_cover_the_range(lowest, highest, edges):
    assert age_edges(lowest, highest) == edges
