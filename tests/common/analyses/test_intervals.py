"""The common intervals of survival tables: what a coordinator could work out of them, and what the curves then say."""

import contextlib
import functools
import operator

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter

from fedage.common.analyses.base import Again, Done, IterateRefused, LeftOutByFile, NotComputable
from fedage.common.analyses.survival._curve import IntervalCounts, curve, grouped_log_rank
from fedage.common.analyses.survival._intervals import SiteTable
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from fedage.common.analyses.survival.kaplan_meier import KaplanMeier
from fedage.common.analyses.survival.table_grid import MOST_QUESTIONS, TableGrid
from fedage.common.statistics.cohort import Cohort

TIMES = tuple(float(year) for year in range(1, 11))
MINIMUM = 5


def hospital(seed, n=200):
    rng = np.random.default_rng(seed)
    gap = rng.normal(0, 5, n)
    died = rng.exponential(9 * np.exp(-0.08 * gap))
    left = np.minimum(rng.exponential(12, n), rng.choice([7.5, 9.5, 12.0], n))
    return Cohort(
        {
            "gap_years": gap,
            "age_years": np.where(rng.random(n) < 0.02, np.nan, rng.uniform(40, 80, n)),
            "is_male": rng.integers(0, 2, n).astype(float),
            "time_years": np.minimum(died, left),
            "event": (died <= left).astype(float),
            "is_test": np.ones(n),
        }
    )


def grid_of(sites, grid):
    """The agreed grid, with every question that was asked."""
    iterate, asked = grid.first(), []
    while True:
        grid.check(iterate)
        answers = {name: grid.local(cohort, iterate) for name, cohort in sites.items()}
        asked.append((iterate, answers))
        total = functools.reduce(operator.add, answers.values())
        outcome = grid.combine(total, iterate)
        if not isinstance(outcome, Again):
            return outcome, asked
        iterate = outcome.iterate


def table(time, event, times, minimum):
    time = np.asarray(time, dtype=float)
    everybody = [(np.zeros(time.size, dtype=np.intp), 1)]
    return SiteTable.of(time, np.asarray(event) == 1, everybody, times=times, minimum_count=minimum)


def fine(counts, minimum=MINIMUM):
    counts = np.abs(np.rint(counts))
    return bool(np.all((counts == 0) | (counts >= minimum)))


@pytest.mark.parametrize(
    ("deaths", "censored", "after", "ends"),
    [
        ((5, 5, 5), (5, 6, 5), 5, [0, 1, 2]),
        ((5, 0, 5), (0, 6, 0), 0, [0, 1, 2]),
        ((5, 5, 5), (1, 4, 5), 5, [1, 2]),
        ((4, 1, 5), (5, 0, 5), 5, [1, 2]),
        ((5, 5, 5), (5, 5, 5), 3, [0, 1]),
        ((5, 5, 1), (5, 5, 0), 9, [0, 1]),
        ((1, 1, 1), (0, 0, 0), 9, []),
        ((5, 0, 0), (0, 0, 0), 2, []),
    ],
)
def test_intervals_by_hand(deaths, censored, after, ends):
    time = np.concatenate([np.repeat([0.5, 1.5, 2.5], deaths), np.repeat([0.6, 1.6, 2.6], censored), np.full(after, 9)])
    event = np.concatenate([np.ones(sum(deaths)), np.zeros(sum(censored) + after)])
    cohort = Cohort({"time_years": time, "event": event, "is_test": np.ones(time.size)})
    grid = TableGrid("g", (1.0, 2.0, 3.0), minimum_count=5)
    outcome, asked = grid_of({"a": cohort}, grid)
    if ends:
        assert outcome.result["ends"] == ends
    else:
        assert isinstance(outcome, NotComputable)
        assert 0 < asked[0][1]["a"].smallest.count < 5
    everything, asked = grid_of({"a": cohort}, TableGrid("g", (1.0, 2.0, 3.0), minimum_count=1))
    assert (everything.result["ends"], len(asked)) == ([0, 1, 2], 1)


@pytest.mark.parametrize("seed", range(6))
def test_the_common_grid_is_tellable_everywhere_and_no_interval_could_end_earlier(seed):
    sites = {f"s{k}": hospital(10 * seed + k) for k in range(4)}
    grid = TableGrid("g", TIMES, minimum_count=10)
    outcome, asked = grid_of(sites, grid)
    assert isinstance(outcome, Done)
    assert len(asked) <= MOST_QUESTIONS
    ends = outcome.result["ends"]
    tables = {name: table(site["time_years"], site["event"], TIMES, 10) for name, site in sites.items()}
    assert all(found.can_tell_all(ends) for found in tables.values())
    for after, end in zip((-1, *ends), ends, strict=False):
        for earlier in range(after + 1, end):
            assert not all(found.can_tell(after, earlier) for found in tables.values())
    for later in range(ends[-1] + 1, len(TIMES)):
        assert not all(found.can_tell(ends[-1], later) for found in tables.values())
    assert outcome.result == grid_of(dict(zip("zyxw", sites.values(), strict=True)), grid)[0].result


def test_many_table_times_take_few_exchanges():
    months = tuple(k / 12 for k in range(1, 121))
    for minimum, n in ((1, 300), (10, 300), (10, 3000)):
        sites = {f"s{k}": hospital(k, n=n) for k in range(5)}
        outcome, asked = grid_of(sites, TableGrid("g", months, minimum_count=minimum))
        assert isinstance(outcome, Done)
        assert len(asked) <= (1 if minimum == 1 else MOST_QUESTIONS)


@pytest.mark.parametrize("seed", range(8))
def test_no_subtraction_inside_a_table_or_between_tables_gives_a_small_cell(seed):
    """Curves by two groups and models with and without strata, some patients without an age."""
    cohort, split = hospital(seed, n=300), 0.0
    shared = TableGrid(
        "g", TIMES, gap="gap_years", split_gap_at="zero", strata=(((), ()), (("is_male",), ((0.0, 1.0),))),
        needed=("gap_years", "age_years", "is_male"), minimum_count=MINIMUM,
    )  # fmt: skip
    outcome, _ = grid_of({"a": cohort}, shared)
    assert isinstance(outcome, Done)
    options = {"minimum_count": MINIMUM, "grid": shared}
    curves = KaplanMeier("k", TIMES, split_gap_at="zero", **options)
    model = CoxPooled("c", ("gap_years", "age_years"), TIMES, **options)
    strata = CoxPooled("c", ("gap_years",), TIMES, strata=("is_male",), levels=((0.0, 1.0),), **options)
    told = {a: a.local(cohort, a.begin(outcome.result)) for a in (curves, model, strata)}
    assert all(statistic.smallest.count >= MINIMUM for statistic in told.values())
    low, high = (cohort.where(cohort["gap_years"] <= split), cohort.where(cohort["gap_years"] > split))
    assert low.n + high.n == cohort.n
    cells = [told[curves][name] for name in ("events", "events_inside", "censored", "censored_at_end")]
    assert all(fine(block) for block in cells)
    assert fine(cells[0] - cells[1])
    events = {
        "curves": cells[0].sum(axis=0),
        "model": told[model]["deaths"],
        "strata": told[strata]["deaths"].reshape(2, -1).sum(axis=0),
    }
    leaving = {
        "curves": (cells[0] + cells[2] + cells[3]).sum(axis=0),
        "model": told[model]["leaving"],
        "strata": told[strata]["leaving"].reshape(2, -1).sum(axis=0),
    }
    # All tables are of the same patients: nothing is left between them, at the last end but those still followed.
    for counts in (events, leaving):
        for other in ("model", "strata"):
            assert np.array_equal(counts["curves"], counts[other])


@pytest.mark.parametrize("change", ["another end", "one end more", "ends of another grid", "all ends"])
def test_a_finer_grid_than_was_agreed_is_refused(change):
    sites = {f"s{k}": hospital(k) for k in range(4)}
    shared = TableGrid("g", TIMES, minimum_count=10)
    outcome, _ = grid_of(sites, shared)
    ends = set(outcome.result["ends"])
    missing = min(set(range(10)) - ends)
    other = {
        "another end": ends ^ {missing, max(ends)},
        "one end more": ends | {missing},
        "ends of another grid": {0, 1, 2, 9},
        "all ends": set(range(10)),
    }[change]
    iterate = {"ends": np.array([float(k in other) for k in range(10)])}
    curves = KaplanMeier("k", TIMES, gap=None, minimum_count=10, grid=shared)
    model = CoxPooled("c", ("gap_years",), TIMES, minimum_count=10, grid=shared)
    refusals = 0
    for cohort in sites.values():
        for analysis, more in ((curves, {}), (model, {"exact": np.asarray(0.0)})):
            with contextlib.suppress(IterateRefused):
                analysis.local(cohort, {**iterate, **more})
                continue
            refusals += 1
    assert refusals


def test_a_site_smaller_than_the_file_says_takes_no_part():
    grid = TableGrid("g", TIMES, minimum_count=5, smallest_site=60)
    with pytest.raises(LeftOutByFile, match=r"fewer than 60 patients .*survival\.curves_from_patients"):
        grid.local(hospital(0, n=59), grid.first())
    grid.local(hospital(0, n=60), grid.first())
    for analysis in (KaplanMeier("k", TIMES, gap=None, grid=grid), CoxPooled("c", ("gap_years",), TIMES, grid=grid)):
        with pytest.raises(LeftOutByFile):
            analysis.local(hospital(0, n=40), {"ends": np.ones(10), "exact": np.asarray(0.0)})


def test_who_costs_how_much_is_said():
    sites = {"large": hospital(0, n=2000), "other": hospital(1, n=2000), "small": hospital(2, n=60)}
    grid = TableGrid("g", TIMES, minimum_count=5)
    _, asked = grid_of(sites, grid)
    costs = [cost for iterate, answers in asked for cost in grid.costs(answers, iterate)]
    assert costs
    assert all(cost["sites"] == ["small"] for cost in costs)
    assert costs[0]["from_years"] == 0.0
    assert costs[0]["to_years"] > costs[0]["others_to_years"]
    assert costs[-1]["to_years"] is None


def counts(at_risk, events, inside, censored, remaining):
    return IntervalCounts(*(np.asarray(row, dtype=float) for row in (at_risk, events, inside, censored, remaining)))


def test_the_actuarial_estimate_its_bounds_and_a_refusal_by_hand():
    found = curve((1.0, 2.0), counts([100, 70], [20, 10], [20, 10], [10, 40], [70, 20]))
    assert found["survival"][0] == pytest.approx(1 - 20 / 95)
    assert found["bound_low"] == pytest.approx([1 - 20 / 90, (1 - 20 / 90) * (1 - 10 / 30)])
    assert found["bound_high"] == pytest.approx([0.8, 0.8 * (1 - 10 / 70)])
    assert found["refused"][0] == ""
    # Left open: 0.519 to 0.686, 0.167 wide; the 95 % interval of .632 from 50 effective patients is wider.
    assert found["survival"][1] == pytest.approx((1 - 20 / 95) * (1 - 10 / 50))
    many = curve((1.0, 2.0), counts([1000, 700], [200, 100], [200, 100], [100, 400], [700, 200]))
    assert many["survival"] == [pytest.approx(1 - 200 / 950), None]
    assert "leave 0.167 open (0.519 to 0.686), more than the 95 % interval" in many["refused"][1]
    assert many["bound_low"][1] == pytest.approx(found["bound_low"][1])
    alone = curve((1.0,), counts([100], [20], [20], [10], [70]))
    assert alone["survival"] == [None]
    assert "one interval is all" in alone["refused"][0]


@pytest.mark.parametrize(
    ("events", "inside", "at_risk", "median", "between"),
    [
        ([12], [0], [24], 1.0, None),  # S is 0.5
        ([1] * 12, [0] * 12, list(range(24, 12, -1)), 12.0, None),  # 0.5 after twelve roundings
        ([2, 7, 7, 7], [0] * 4, [49, 47, 40, 33], None, None),  # 26/49
        ([13], [13], [24], None, [0.0, 1.0]),
        ([2, 11], [0, 11], [24, 22], None, [1.0, 2.0]),
        ([11, 2], [11, 0], [24, 13], None, [1.0, 2.0]),
        ([1], [0], [24], None, None),
    ],
)
def test_medians(events, inside, at_risk, median, between):
    times = tuple(float(k) for k in range(1, len(events) + 1))
    remaining = [n - d for n, d in zip(at_risk, events, strict=True)]
    found = curve(times, counts(at_risk, events, inside, [0] * len(events), remaining))
    assert (found["median_survival"], found["median_between"]) == (median, between)


@pytest.mark.parametrize("half", range(1, 50))
def test_half_is_half_however_many_roundings_lie_before_it(half):
    at_risk = np.arange(2 * half, half, -1)
    ones, none = np.ones(half), np.zeros(half)
    found = curve(tuple(map(float, range(1, half + 1))), counts(at_risk, ones, none, none, at_risk - 1))
    assert found["median_survival"] == half


def test_a_log_rank_test_that_grouping_leaves_open_is_refused():
    rest = ([[30, 20], [45, 30]], [[30, 20], [45, 30]], [[20, 9], [20, 9]], [[150, 121], [135, 111]])
    even = counts([[200, 150], [200, 150]], *rest)
    found, why = grouped_log_rank(even)
    assert why == ""
    low, high = found["expected_bounds"]
    assert low < found["expected"][1] < high
    open_ended = counts([[2000], [2000]], [[600], [600]], [[600], [600]], [[900], [100]], [[500], [1300]])
    found, why = grouped_log_rank(open_ended)
    assert found is None
    assert "expected events open" in why


def test_time_rounded_to_years_is_exact_under_a_minimum(tools):
    """Whole years at yearly table times: nothing lies between them, and the guarded curve is the exact one."""
    rng = np.random.default_rng(0)
    died, left = np.ceil(rng.exponential(6, 12000)), np.ceil(rng.uniform(0, 12, 12000))
    time, event = np.minimum(died, left), (died <= left).astype(float)
    columns = {"time_years": time, "event": event, "is_test": np.ones(12000)}
    sites = {k: Cohort({name: column[k * 3000 : (k + 1) * 3000] for name, column in columns.items()}) for k in range(4)}
    found = tools.result_of(
        KaplanMeier("k", TIMES, gap=None, minimum_count=10), {f"s{k}": site for k, site in sites.items()}
    )
    (group,) = found["groups"]
    fitter = KaplanMeierFitter().fit(time, event)
    assert found["merged_table_times"] == 0
    assert group["survival"] == pytest.approx(fitter.survival_function_at_times(TIMES).to_numpy(), abs=1e-12)
    assert group["bound_low"] == pytest.approx(group["bound_high"], abs=1e-12)
    assert group["median_survival"] == fitter.median_survival_time_


def test_bounds_enclose_the_exact_curve(tools):
    for seed in range(6):
        sites = {f"s{k}": hospital(20 * seed + k, n=150) for k in range(4)}
        found = tools.result_of(KaplanMeier("k", TIMES, gap=None, minimum_count=5), sites)
        (group,) = found["groups"]
        frame = pd.concat(pd.DataFrame(dict(site.columns)) for site in sites.values())
        exact = KaplanMeierFitter().fit(frame["time_years"], frame["event"])
        for t, low, high in zip(found["table_times"], group["bound_low"], group["bound_high"], strict=True):
            assert low - 1e-12 <= exact.predict(t) <= high + 1e-12
        assert found["table_times"][-1] <= TIMES[-1]


@pytest.mark.parametrize("after_visit", [(-0.01, 0.01), (0.01, -0.01), (0.5, 0.01), (0.01, 0.01)])
@pytest.mark.parametrize(("times", "patients"), [(range(1, 11), 500), (range(1, 21), 500), ((2, 4, 6, 10, 20), 200)])
def test_the_largest_p_holds_where_groups_leave_on_different_sides_of_a_visit(after_visit, times, patients):
    """Equal hazards; visits every year, times in half years. The p of the middle was below .05 in a third of these."""
    rng, repetitions = np.random.default_rng(4), 60
    times = np.array(times) / 2 if max(times) > 10 else np.array(times, dtype=float)
    false = 0
    for _ in range(repetitions):
        groups = []
        for offset in after_visit:
            died, left = rng.exponential(5, patients), rng.integers(1, 11, patients) + offset
            time, event = np.minimum(died, left), died <= left
            d, c = (np.histogram(time[kind], np.concatenate([[0], times + 1e-9]))[0] for kind in (event, ~event))
            rest = patients - np.cumsum(d + c)
            groups.append((np.concatenate([[patients], rest[:-1]]), d, d, c, rest))
        found, _ = grouped_log_rank(counts(*np.array(groups, dtype=float).transpose(1, 0, 2)))
        if found is not None:
            assert found["p_bounds"][0] <= found["p"] <= found["p_bounds"][1]
            false += found["p_bounds"][1] < 0.05
    # 8 or more of 60 come once in a hundred where the chance is .05.
    assert false < 8


def test_p_is_exact_where_nothing_is_left_open():
    whole = counts([[30, 20], [30, 25]], [[10, 5], [5, 5]], [[10, 5], [5, 5]], [[0, 0], [0, 0]], [[20, 15], [25, 20]])
    found, _ = grouped_log_rank(whole)
    assert found["p_bounds"] == pytest.approx([found["p"]] * 2, abs=1e-15)
