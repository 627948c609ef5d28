import numpy as np
import pytest
from scipy import stats

from fedage.common.analyses.base import IterateRefused, NotComputable, run_locally
from fedage.common.analyses.bias.bias_line import BiasLine, correct_cole, correct_de_lange
from fedage.common.statistics.cohort import Cohort


def healthy(age, predicted, **more):
    age = np.asarray(age, dtype=float)
    columns = {"age_years": age, "predicted_years": np.asarray(predicted, dtype=float)}
    flags = {"is_validation": 1.0, "healthy": 1.0, **more}
    return Cohort({**columns, **{name: np.broadcast_to(np.asarray(v, float), age.shape) for name, v in flags.items()}})


def test_against_ordinary_least_squares(tools):
    rng = np.random.default_rng(4)
    age = rng.uniform(40, 85, 90)
    predicted = 18 + 0.68 * age + rng.normal(0, 4, 90)
    sites = {"a": healthy(age[:10], predicted[:10]), "b": healthy(age[10:], predicted[10:])}
    found, line = tools.result_of(BiasLine(), sites), stats.linregress(age, predicted)
    assert found["slope"] == pytest.approx(line.slope, rel=1e-12)
    assert found["intercept_years"] == pytest.approx(line.intercept, rel=1e-11)
    assert found["slope_se"] == pytest.approx(line.stderr, rel=1e-10)
    assert found["intercept_se_years"] == pytest.approx(line.intercept_stderr, rel=1e-10)
    residuals = predicted - line.slope * age - line.intercept
    assert found["residual_sd_years"] == pytest.approx((residuals @ residuals / 88) ** 0.5, rel=1e-10)
    assert found["mean_age_years"] == pytest.approx(age.mean())
    whole = tools.result_of(BiasLine(), {"b": healthy(age, predicted)})
    assert found == pytest.approx(whole, rel=1e-10)


def test_three_patients_by_hand(tools):
    found = tools.result_of(BiasLine(), {"a": healthy([40, 50, 60], [45, 52, 56])})
    assert found["slope"] == pytest.approx(0.55)
    assert found["intercept_years"] == pytest.approx(51 - 0.55 * 50)


def test_only_held_out_healthy_patients_count(tools):
    cohort = healthy(
        [40, 50, 60, 70, 80, np.nan],
        [45, 52, 56, 10, 10, 50],
        healthy=[1, 1, 1, 0, 1, 1],
        is_validation=[1, 1, 1, 1, 0, 1],
    )
    found = tools.result_of(BiasLine(), {"a": cohort})
    assert (found["n"], found["left_out"]) == (3, 1)
    assert found["slope"] == pytest.approx(0.55)


def test_the_corrections_remove_the_line_and_agree_up_to_the_slope():
    rng = np.random.default_rng(4)
    age = rng.uniform(40, 85, 200)
    predicted = 18 + 0.68 * age + rng.normal(0, 4, 200)
    line = stats.linregress(age, predicted)
    de_lange = correct_de_lange(predicted, age, slope=line.slope, intercept=line.intercept) - age
    cole = correct_cole(predicted, slope=line.slope, intercept=line.intercept) - age
    assert cole == pytest.approx(de_lange / line.slope, rel=1e-9, abs=1e-9)
    assert np.corrcoef(de_lange, age)[0, 1] == pytest.approx(0, abs=1e-12)
    assert np.corrcoef(predicted - age, age)[0, 1] < -0.5
    # Beheshti: fit ŷ − Ω on Ω and subtract what it expects.
    offset = stats.linregress(age, predicted - age)
    assert predicted - (offset.slope * age + offset.intercept) - age == pytest.approx(de_lange, abs=1e-9)


@pytest.mark.parametrize(
    ("cohort", "word"),
    [
        (healthy([40, 50], [41, 52]), "at least 3"),
        (healthy([50, 50, 50], [41, 52, 55]), "same age"),
        (healthy([40, 50, 60], [50, 50.4, 50.9]), "slope 0.045"),
        (healthy([40, 50, 60], [60, 50, 40]), "slope -1.000"),
    ],
)
def test_no_line(cohort, word):
    outcome = run_locally(BiasLine(), {"a": cohort})
    assert isinstance(outcome, NotComputable)
    assert word in outcome.reason


def test_bounds_cell_and_iterate():
    statistic = BiasLine().local(healthy([0, 130, 0, 130], [260, -260, -260, 260]), {})
    lower, upper = BiasLine().layout({}).bounds()
    assert np.all((lower <= statistic.vector) & (statistic.vector <= upper))
    assert statistic.smallest.count == 2  # those predicted otherwise than the most frequent value
    with pytest.raises(IterateRefused):
        BiasLine().check({"slope": np.asarray(1.0)})
