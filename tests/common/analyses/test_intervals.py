"""Table times that a site merges: what a coordinator could work out by subtracting tables, and what is lost by it."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter

from fedage.common.analyses._survival import Intervals, intervals_of_site, leaving, table_index
from fedage.common.analyses.cox_pooled import CoxPooled
from fedage.common.analyses.kaplan_meier import KaplanMeier
from fedage.common.cohort import Cohort

TIMES = tuple(float(year) for year in range(1, 11))
MINIMUM = 5
SPLIT = {name: np.asarray(value) for name, value in (("split", 0.0), ("low", -0.5), ("high", 0.5))}


def hospital(seed, n=70):
    rng = np.random.default_rng(seed)
    gap = rng.normal(0, 5, n)
    died = rng.exponential(9 * np.exp(-0.08 * gap))
    left = np.minimum(rng.exponential(25, n), rng.choice([3.0, 7.0, 12.0], n))
    return Cohort(
        {
            "gap_years": gap,
            "age_years": rng.uniform(40, 80, n),
            "is_male": rng.integers(0, 2, n).astype(float),
            "time_years": np.minimum(died, left),
            "event": (died <= left).astype(float),
            "is_test": np.ones(n),
        }
    )


def kaplan_meier(minimum=MINIMUM, **options):
    return KaplanMeier("k", TIMES, minimum_count=minimum, **options)


def cox(minimum=MINIMUM, **options):
    return CoxPooled("c", ("gap_years", "age_years"), TIMES, minimum_count=minimum, **options)


def fine(counts):
    counts = np.abs(np.rint(counts))
    return bool(np.all((counts == 0) | (counts >= MINIMUM)))


def differences(at_risk, events):
    """Events and exits without one in every interval, and those still there at the last table time."""
    left = at_risk - np.append(at_risk[1:], 0)
    return np.concatenate([events, left - events])


def kept_times(cohort):
    intervals = intervals_of_site(
        cohort, subset="is_test", time="time_years", event="event", table_times=TIMES, minimum_count=MINIMUM
    )
    return np.array(TIMES)[np.unique(intervals.ends)]


@pytest.mark.parametrize(
    ("cells", "ends"),
    [
        ([[5, 5], [0, 6], [5, 0]], [0, 1, 2]),
        ([[5, 1], [0, 4], [5, 0]], [1, 1, 2]),
        ([[1, 0], [0, 0], [4, 0]], [2, 2, 2]),
        ([[5, 0], [0, 5], [1, 0]], [2, 2, 2]),
        ([[5, 0], [5, 0], [1, 0]], [0, 2, 2]),
        ([[0, 0], [0, 0], [7, 0]], [0, 1, 2]),
        ([[1, 0], [1, 0], [1, 0]], [2, 2, 2]),
        ([[9, 9], [9, 9], [0, 0]], [0, 1, 2]),
    ],
)
def test_intervals_by_hand(cells, ends):
    found = Intervals.of_times((1.0, 2.0, 3.0)).merge(np.array(cells), minimum_count=5)
    assert found.ends.tolist() == ends
    assert found.merged == 3 - len(set(ends))
    assert Intervals.of_times((1.0, 2.0, 3.0)).merge(np.array(cells), minimum_count=1).merged == 0


def test_who_leaves_when():
    leaves = table_index(np.array([0.5, 1.0, 1.5, 1.5, 9.0, 9.0]), (1.0, 2.0))
    counts = leaving(leaves, np.array([1, 0, 1, 0, 1, 0]) == 1, np.array([0, 0, 1, 0, 1, 0]), groups=2, times=2)
    assert counts.tolist() == [[[1, 1], [0, 0]], [[0, 2], [1, 1]]]


@pytest.mark.parametrize("seed", range(12))
def test_no_subtraction_inside_a_table_or_between_tables_gives_a_small_cell(seed):
    cohort = hospital(seed)
    exact = kaplan_meier(1).local(cohort, SPLIT)
    assert not all(fine(differences(*both)) for both in zip(exact["at_risk"], exact["events"], strict=True))
    curves, model, strata = (
        kaplan_meier().local(cohort, SPLIT),
        cox().local(cohort, {}),
        cox(strata=("is_male",), levels=((0.0, 1.0),)).local(cohort, {}),
    )
    at_risk_of_all, events_of_all = [], []
    for statistic, at_risk, events in (
        (curves, curves["at_risk"], curves["events"]),
        (model, model["s0"][None], model["deaths"][None]),
        (strata, strata["s0"].reshape(2, -1), strata["deaths"].reshape(2, -1)),
    ):
        assert statistic.smallest.count >= MINIMUM
        assert statistic.scalar("merged") > 0
        for of_risk, of_events in zip(at_risk, events, strict=True):
            assert fine(differences(of_risk, of_events))
        at_risk_of_all.append(at_risk.sum(axis=0))
        # Events up to a time, only where that time is not merged away: elsewhere they are those of an earlier time.
        events_of_all.append(np.cumsum(events.sum(axis=0))[events.sum(axis=0) > 0])
    for told in (np.concatenate(at_risk_of_all), np.concatenate(events_of_all)):
        assert fine(told[:, None] - told[None, :])


@pytest.mark.parametrize("seed", range(4))
def test_a_merged_curve_is_that_of_times_rounded_up_to_the_times_kept(tools, seed):
    cohort = hospital(seed)
    found = tools.result_of(kaplan_meier(gap=None), {"a": cohort})
    (group,) = found["groups"]
    kept = kept_times(cohort)
    assert found["merged_table_times"] == len(TIMES) - kept.size > 0
    time = cohort["time_years"]
    beyond = time > kept[-1]
    rounded = np.where(beyond, 99.0, kept[np.minimum(np.searchsorted(kept, time), kept.size - 1)])
    fitter = KaplanMeierFitter().fit(rounded, np.where(beyond, 0, cohort["event"]))
    survival = dict(zip(found["table_times"], group["survival"], strict=True))
    assert [survival[t] for t in kept] == pytest.approx(fitter.survival_function_at_times(kept).to_numpy(), abs=1e-12)

    exact = tools.result_of(kaplan_meier(1, gap=None), {"a": cohort})
    assert exact["merged_table_times"] == 0
    # Whoever is lost counts as at risk until the end of a longer interval.
    assert survival[10.0] > exact["groups"][0]["survival"][-1]


def test_a_merged_model_is_that_of_times_rounded_up_to_the_times_kept(tools):
    cohort = hospital(3, n=200)
    found = tools.result_of(cox(), {"a": cohort})
    kept = kept_times(cohort)
    assert found["merged_table_times"] == len(TIMES) - kept.size > 0
    time = cohort["time_years"]
    beyond = time > kept[-1]
    frame = pd.DataFrame({"gap_years": cohort["gap_years"], "age_years": cohort["age_years"]})
    frame["time"] = np.where(beyond, 99.0, kept[np.minimum(np.searchsorted(kept, time), kept.size - 1)])
    frame["event"] = np.where(beyond, 0, cohort["event"])
    fitter = CoxPHFitter().fit(frame, "time", "event", fit_options={"precision": 1e-12})
    assert [c["coef"] for c in found["covariates"]] == pytest.approx(fitter.params_.to_numpy(), abs=1e-8)


def test_what_stays_too_small_is_a_small_cell():
    cohort = hospital(0, n=8)
    for analysis, iterate in ((kaplan_meier(), SPLIT), (cox(), {})):
        statistic = analysis.local(cohort, iterate)
        assert statistic.scalar("merged") == len(TIMES) - 1
        assert 0 < statistic.smallest.count < MINIMUM
