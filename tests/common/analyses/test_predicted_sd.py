"""Whether predicted SDs are those of the errors: by hand, between bounds, and under the guard."""

import numpy as np
import pytest

from fedage.common.analyses.evaluation.predicted_sd import PredictedSDCalibration
from fedage.common.analyses.plan import registered
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort

EXACT = PredictedSDCalibration()


def cohort(errors, sds, *, is_test=1.0) -> Cohort:
    errors, sds = np.asarray(errors, dtype=float), np.asarray(sds, dtype=float)
    age = np.full(errors.size, 64.0)
    return Cohort(
        {
            "age_years": age,
            "predicted_years": age + errors,
            "predicted_sd_years": sds,
            "is_test": np.full(errors.size, is_test),
        }
    )


def test_six_patients_by_hand(tools) -> None:
    sites = {"a": cohort([1, -3, 5], [2, 2, 2]), "b": cohort([9, 0, 4], [2, 0, 4])}
    found = tools.result_of(EXACT, sites)  # z = .5, 1.5, 2.5, 4.5, 0, 1
    assert found["n"] == 6
    assert found["share_low"] == found["share_high"] == pytest.approx([3 / 6, 4 / 6, 5 / 6])
    assert found["mean_sd_years"] == pytest.approx(2)


def test_an_error_of_a_prediction_that_is_certain_is_beyond(tools) -> None:
    found = tools.result_of(EXACT, {"a": cohort([0.1, -5, 0], [0, 0, 0])})
    assert found["share_low"] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_normal_errors_of_the_stated_sd_are_within_the_normal_shares(tools, factor: float) -> None:
    rng = np.random.default_rng(0)
    sds = rng.uniform(2, 6, 20000)
    found = tools.result_of(EXACT, {"a": cohort(rng.normal(0, sds), factor * sds)})
    if factor == 1.0:
        np.testing.assert_allclose(found["share_low"], found["normal_shares"], atol=0.01)
    else:
        assert (found["share_low"][0] < 0.6) == (factor < 1)


@pytest.mark.parametrize("minimum", [2, 5, 10, 25])
def test_no_cell_is_small_and_the_truth_lies_between_the_bounds(tools, minimum: int) -> None:
    rng = np.random.default_rng(1)
    sites = {f"s{n}": cohort(rng.normal(0, 5, n), np.full(n, 4.0)) for n in (30, 61, 118)}
    guarded = PredictedSDCalibration(minimum_count=minimum)
    for one in sites.values():
        statistic = guarded.local(one, {})
        assert statistic.smallest is not None
        assert statistic.smallest.count >= minimum
    found, truth = tools.result_of(guarded, sites), tools.result_of(EXACT, sites)
    for low, exact, high in zip(found["share_low"], truth["share_low"], found["share_high"], strict=True):
        assert low - 1e-12 <= exact <= high + 1e-12


@pytest.mark.parametrize("column", ["age_years", "predicted_years", "predicted_sd_years"])
def test_who_lacks_a_value_is_left_out_and_counted(tools, column: str) -> None:
    one = cohort([1, 2, 3, 4], [2, 2, 2, 2])
    values = one[column].copy()
    values[1] = np.nan
    found = tools.result_of(EXACT, {"a": one.with_columns(**{column: values})})
    assert (found["n"], found["left_out"]) == (3, 1)


@pytest.mark.parametrize("kind", ["order of sites", "a site in two", "a site in three"])
def test_how_patients_are_divided_changes_nothing(tools, kind: str) -> None:
    rng = np.random.default_rng(2)
    errors, sds = rng.normal(0, 4, 60), rng.uniform(1, 8, 60)
    cuts = {"order of sites": [40, 60], "a site in two": [20, 60], "a site in three": [10, 30, 60]}[kind]
    starts = [0, *cuts[:-1]]
    parts = {f"s{k}": cohort(errors[a:b], sds[a:b]) for k, (a, b) in enumerate(zip(starts, cuts, strict=True))}
    whole = tools.result_of(EXACT, {"all": cohort(errors, sds)})
    found = tools.result_of(EXACT, dict(reversed(parts.items())))
    assert found["share_low"] == pytest.approx(whole["share_low"])
    assert found["mean_sd_years"] == pytest.approx(whole["mean_sd_years"])


@pytest.mark.parametrize(("estimator", "asked"), [("brain-sfcn", True), ("chest-ca", False)])
def test_only_of_an_estimator_that_predicts_an_sd(estimator: str, asked: bool) -> None:
    text = (
        '[campaign]\nname = "x"\npurpose = "ages from images of patients"\nseed = 1\n'
        f'[estimator]\nname = "{estimator}"\n[training]\nrounds = 1\n'
    )
    assert ("predicted-sd" in registered(parse_campaign(text))) is asked
