import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test

from fedage.common.analyses._median import GRID_YEARS, bracket, histograms
from fedage.common.analyses.base import Again, Done, IterateRefused, NotComputable, run_locally
from fedage.common.analyses.survival.kaplan_meier import KaplanMeier
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import total


def curves(times, *, time="week", event="arrest", gap=None, **more):
    return KaplanMeier("kaplan-meier", times, gap=gap, time=time, event=event, subset=None, **more)


def followed(gap, time, event):
    columns = {"gap_years": gap, "time_years": time, "event": event, "is_test": np.ones(len(gap))}
    return Cohort({name: np.asarray(values, dtype=float) for name, values in columns.items()})


@pytest.mark.parametrize("seed", [0, 1])
def test_rossi_at_five_table_times_and_at_every_week(tools, rossi, distinct, seed):
    published = [0.9652778, 0.9074074, 0.8611111, 0.8032407, 0.7361111]
    coarse = tools.result_of(curves((10.0, 20.0, 30.0, 40.0, 52.0)), tools.cut(rossi, 3, seed))
    # Nobody is censored before week 52, so a coarse table loses nothing.
    assert coarse["groups"][0]["survival"] == pytest.approx(published, abs=1e-6)
    weekly = tools.result_of(curves(distinct(rossi["week"])), tools.cut(rossi, 3, seed))
    survival = dict(zip(weekly["table_times"], weekly["groups"][0]["survival"], strict=True))
    assert [survival[t] for t in (10.0, 20.0, 30.0, 40.0, 52.0)] == pytest.approx(published, abs=1e-6)
    assert weekly["groups"][0]["name"] == "all patients"
    assert weekly["groups"][0]["median_survival"] is None
    assert weekly["log_rank"] is None


def test_log_rank_of_rossi_and_lung(tools, rossi, lung, distinct):
    # A group column of 0 and 1 is a gap split at zero.
    aid = curves(distinct(rossi["week"]), gap="fin", split_gap_at="zero")
    found = tools.result_of(aid, tools.cut(rossi, 3, 0))
    assert found["log_rank"]["chi2"] == pytest.approx(3.8375696, abs=1e-6)
    sexes = lung.assign(female=lung["sex"] - 1)
    options = {"time": "time", "event": "status"}
    sex = curves(distinct(lung["time"]), gap="female", split_gap_at="zero", **options)
    hospitals = {f"inst-{inst}": tools.cohort_of(part) for inst, part in sexes.groupby("inst", dropna=False)}
    found = tools.result_of(sex, hospitals)
    assert found["log_rank"]["chi2"] == pytest.approx(10.3267420, abs=1e-6)
    oracle = logrank_test(
        lung["time"][lung["sex"] == 1],
        lung["time"][lung["sex"] == 2],
        lung["status"][lung["sex"] == 1],
        lung["status"][lung["sex"] == 2],
    )
    assert found["log_rank"]["p"] == pytest.approx(oracle.p_value, rel=1e-8)
    assert sum(found["log_rank"]["expected"]) == pytest.approx(165)
    assert [group["median_survival"] for group in found["groups"]] == [270, 426]
    everybody = tools.result_of(curves(distinct(lung["time"]), **options), hospitals)
    assert everybody["groups"][0]["median_survival"] == 310


def test_every_figure_of_a_curve_against_lifelines(tools, lung, distinct):
    times = distinct(lung["time"])
    fitter = KaplanMeierFitter().fit(lung["time"], lung["status"])
    (group,) = tools.result_of(curves(times, time="time", event="status"), tools.cut(lung, 4, 2))["groups"]
    table = fitter.event_table.loc[list(times)]
    assert group["survival"] == pytest.approx(fitter.survival_function_at_times(times).to_numpy(), abs=1e-12)
    interval = fitter.confidence_interval_survival_function_.loc[list(times)].to_numpy()
    inner = (np.array(group["survival"]) > 0) & (np.array(group["survival"]) < 1)
    assert np.array(group["ci95_low"])[inner] == pytest.approx(interval[inner, 0], abs=1e-9)
    assert np.array(group["ci95_high"])[inner] == pytest.approx(interval[inner, 1], abs=1e-9)
    assert group["at_risk"] == table["at_risk"].tolist()
    assert group["events_at"] == table["observed"].tolist()


def test_greenwood_by_hand(tools):
    # 4 at risk, 1 event: S = 3/4, var = S²/(4·3); then 2 at risk, 1 event: S = 3/8, var = S²(1/12 + 1/2).
    cohort = followed([0, 0, 0, 0], [1, 1, 2, 3], [1, 0, 1, 0])
    (group,) = tools.result_of(KaplanMeier("k", (1.0, 2.0, 3.0), gap=None), {"a": cohort})["groups"]
    assert group["survival"] == pytest.approx([0.75, 0.375, 0.375])
    assert group["standard_error"][:2] == pytest.approx([0.75 / 12**0.5, 0.375 * (7 / 12) ** 0.5])
    assert group["median_survival"] == 2
    assert group["at_risk"] == [4, 2, 1]


def test_ends_of_a_curve(tools):
    cohort = followed([0, 0], [2, 2], [1, 1])
    (group,) = tools.result_of(KaplanMeier("k", (1.0, 2.0, 3.0), gap=None), {"a": cohort})["groups"]
    assert group["survival"] == [1.0, 0.0, None]
    assert (group["ci95_low"], group["ci95_high"]) == ([1.0, 0.0, None], [1.0, 0.0, None])
    assert group["standard_error"] == [0.0, 0.0, None]


def test_times_go_up_to_the_table_and_end_with_it(tools):
    cohort = followed([0] * 5, [0, 0.2, 1.0, 1.1, 9], [1, 0, 1, 1, 1])
    found = tools.result_of(KaplanMeier("k", (1.0, 2.0), gap=None), {"a": cohort})
    assert found["groups"][0]["at_risk"] == [5, 2]
    assert found["groups"][0]["events_at"] == [2, 1]
    assert (found["n"], found["events"]) == (5, 3)


@pytest.mark.parametrize("minimum", [1, 5, 10])
@pytest.mark.parametrize("seed", range(6))
def test_the_median_lies_in_its_bracket(seed, minimum):
    rng = np.random.default_rng(seed)
    sites = {f"s{k}": rng.normal(rng.normal(0, 3), 6, rng.integers(10, 80)) for k in range(4)}
    statistics = {site: histograms(gaps, minimum_count=minimum) for site, gaps in sites.items()}
    layout = statistics["s0"].layout
    low, high = bracket(total(layout, statistics))
    median = np.sort(np.concatenate(list(sites.values())))
    assert low <= median[(median.size - 1) // 2] <= high
    for statistic, gaps in zip(statistics.values(), sites.values(), strict=True):
        occupied = statistic.vector[statistic.vector > 0]
        assert occupied.min() >= minimum
        assert statistic.smallest.count >= minimum
        assert statistic["lower"].sum() == statistic["upper"].sum() == gaps.size
    if minimum == 1:
        assert high - low == GRID_YEARS
    else:
        assert high - low < 8


def test_values_beyond_the_histogram_keep_their_rank():
    low, high = bracket(histograms(np.array([-100.0, -90.0, 3.1, 99.0, 120.0]), minimum_count=1))
    assert (low, high) == (3.0, 3.25)


def test_few_patients_are_one_run_for_the_guard():
    assert histograms(np.array([1.0, 5.0]), minimum_count=10).smallest.count == 2
    nobody = histograms(np.array([]), minimum_count=10)
    assert nobody.smallest is None
    assert not nobody.vector.any()
    assert bracket(nobody) is None


def test_split_at_the_median_of_all_sites(tools):
    rng = np.random.default_rng(0)
    gap = rng.normal(1, 6, 300)
    cohort = followed(gap, rng.exponential(10, 300) * np.exp(-0.1 * gap), rng.random(300) < 0.7)
    halves = {"a": cohort.where(np.arange(300) < 90), "b": cohort.where(np.arange(300) >= 90)}
    analysis = KaplanMeier("k", (1.0, 2.0, 5.0, 10.0))
    found = tools.result_of(analysis, halves)
    low, high = found["median_within_years"]
    assert low <= np.median(gap) <= high
    assert found["split_years"] == (low + high) / 2
    assert [group["name"] for group in found["groups"]] == ["low gap", "high gap"]
    assert abs(found["groups"][0]["n"] - 150) < 10
    assert found["groups"][1]["n"] == np.count_nonzero(gap > found["split_years"])
    assert found["groups"][1]["survival"][2] < found["groups"][0]["survival"][2]
    assert found == tools.result_of(analysis, {"z": halves["a"], "a": halves["b"]})
    assert found == tools.result_of(analysis, {"all": cohort})


def test_cells_and_missing_values(tools):
    gap = [1, 1, 1, 1, -1, -1, -1, -1, np.nan]
    cohort = followed(gap, [1, 2, 2, 9, 1, 1, 2, 9, 1], [1, 0, 1, 0, 1, 1, 1, 0, 1])
    model = KaplanMeier("k", (1.0, 2.0), split_gap_at="zero")
    statistic = model.local(cohort, tools.on_tables(model))
    assert statistic["n"].tolist() == [4, 4]
    assert statistic["events"].tolist() == [[2, 1], [1, 1]]
    assert statistic["censored"].tolist() == [[0, 0], [0, 0]]
    # Those who are censored at the last end are still followed to it.
    assert statistic["censored_at_end"].tolist() == [[0, 0], [0, 0]]
    assert statistic.scalar("left_out") == 1
    assert (statistic.smallest.count, statistic.smallest.of) == (1, "patients still followed after 2 years (low gap)")


def test_without_events_curves_stay_at_one(tools):
    cohort = followed([1, -1, 2], [1, 2, 3], [0, 0, 0])
    found = tools.result_of(KaplanMeier("k", (1.0, 2.0), split_gap_at="zero"), {"a": cohort})
    assert found["groups"][1]["survival"] == [1, 1]
    assert found["log_rank"] is None


@pytest.mark.parametrize("options", [{}, {"split_gap_at": "zero"}, {"gap": None}])
def test_nobody(options):
    outcome = run_locally(KaplanMeier("k", (1.0,), **options), {"a": followed([], [], [])})
    assert isinstance(outcome, NotComputable)


def test_iterates(tools):
    one, zero, median = (
        KaplanMeier("k", (1.0,), gap=None),
        KaplanMeier("k", (1.0,), split_gap_at="zero"),
        KaplanMeier("k", (1.0,)),
    )
    for analysis in (one, zero):
        analysis.check(tools.on_tables(analysis))
    for analysis in (one, zero, median):
        analysis.preceding.check(analysis.preceding.first())
    ends = {"ends": np.ones(1)}
    found = {**ends, "split": np.asarray(1.0), "low": np.asarray(0.9), "high": np.asarray(1.1)}
    median.check(found)
    refused = [
        (one, found),
        (one, {"ends": np.zeros(1)}),
        (one, {"ends": np.ones(2)}),
        (one, {"ends": np.array([2.0])}),
        (zero, {**ends, "split": np.asarray(0.5)}),
        (zero, {}),
        (median, {**ends, "split": np.asarray(1.0)}),
        (median, {**found, "split": np.asarray(np.nan)}),
        (median, {**found, "split": np.zeros(1)}),
        (median, {**found, "split": np.asarray(200.0)}),
        (median, {**found, "split": np.asarray(2.0)}),
    ]
    for analysis, iterate in refused:
        with pytest.raises(IterateRefused):
            analysis.check(iterate)
    asked = {**found, "ends": np.zeros(1), "following": np.asarray(0.0), "question": np.asarray(1.0)}
    median.preceding.check(asked)
    changes = {"following": (1.0, 0.5, -1.0), "question": (0.0, 99.0), "split": (3.0,)}
    for change in [{"ends": np.ones(1)}, *({k: np.asarray(v)} for k, values in changes.items() for v in values)]:
        with pytest.raises(IterateRefused):
            median.preceding.check({**asked, **change})


def test_bounds():
    rng = np.random.default_rng(0)
    cohort = followed(rng.normal(0, 60, 900).clip(-130, 130), rng.exponential(3, 900), rng.integers(0, 2, 900))
    analysis = KaplanMeier("k", (1.0, 2.0), minimum_count=10)
    iterate, grid = analysis.preceding.first(), None
    while not isinstance(grid, Done):
        statistic = analysis.preceding.local(cohort, iterate)
        lower, upper = analysis.preceding.layout(iterate).bounds()
        assert np.all((lower <= statistic.vector) & (statistic.vector <= upper))
        grid = analysis.preceding.combine(statistic, iterate)
        iterate = grid.iterate if isinstance(grid, Again) else {}
    iterate = analysis.begin(grid.result)
    statistic = analysis.local(cohort, iterate)
    lower, upper = analysis.layout(iterate).bounds()
    assert np.all((lower <= statistic.vector) & (statistic.vector <= upper))
