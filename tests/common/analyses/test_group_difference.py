import json

import numpy as np
import pytest
from scipy import stats

from fedage.common.analyses.base import IterateRefused, NotComputable, run_locally
from fedage.common.analyses.groups import _roc
from fedage.common.analyses.groups.group_difference import GroupDifference
from fedage.common.statistics.cohort import Cohort


def analysis(*covariates, minimum_count=1, gap="gap_years"):
    return GroupDifference(
        "group-difference", "ill", equals=1.0, reference=-1.0, gap=gap, covariates=covariates,
        minimum_count=minimum_count,
    )  # fmt: skip


PLAIN, BY_AGE, FULL = analysis(), analysis("age_years"), analysis("age_years", "is_male", "scan_quality")


def hospital(rng, n, offset, *, effect=2.0, ill=0.4):
    label = np.where(rng.random(n) < ill, 1.0, -1.0)
    age = rng.uniform(6, 60, n) + 3 * (label == 1)
    male = rng.integers(0, 2, n).astype(float)
    gap = offset + effect * (label == 1) - 0.1 * age + 0.8 * male + rng.normal(0, 3, n)
    columns = {"ill": label, "age_years": age, "is_male": male, "scan_quality": rng.normal(200, 4, n)}
    return Cohort({**columns, "gap_years": gap})


@pytest.fixture(scope="module")
def sites():
    rng = np.random.default_rng(3)
    found = {f"s{k}": hospital(rng, n, offset) for k, (n, offset) in enumerate([(80, -2.0), (120, 0.5), (60, 3.0)])}
    return {**found, "unlike": hospital(rng, 90, 9.0, ill=0.7)}


def pooled(sites, covariates):
    """The slow oracle: one least-squares fit with a dummy column for every site; slope, SE and t of the group."""
    names = list(sites)
    site = np.concatenate([np.full(sites[name].n, k) for k, name in enumerate(names)])
    column = {c: np.concatenate([sites[name][c] for name in names]) for c in ("ill", "gap_years", *covariates)}
    x = np.column_stack(
        [column["ill"] == 1, *(column[c] for c in covariates), *(site == k for k in range(len(names)))]
    ).astype(float)
    beta, rss, rank, _ = np.linalg.lstsq(x, column["gap_years"], rcond=None)
    df = site.size - rank
    sd = np.sqrt(rss[0] / df)
    return beta[0], sd * np.sqrt(np.linalg.inv(x.T @ x)[0, 0]), sd, df


def slow_auc(group, reference):
    return sum((x > y) + 0.5 * (x == y) for x in group for y in reference) / (len(group) * len(reference))


def gaps(sites, label):
    return np.concatenate([cohort["gap_years"][cohort["ill"] == label] for cohort in sites.values()])


def test_six_patients_by_hand(tools):
    # Site a: means 5 and 2; site b: 10 and 4. Within sites, weights n₁n₀/n are 2/3 and 2/3.
    a = Cohort({"ill": np.array([1.0, -1, -1]), "gap_years": np.array([5.0, 1, 3])})
    b = Cohort({"ill": np.array([1.0, 1, -1]), "gap_years": np.array([9.0, 11, 4])})
    found = tools.result_of(PLAIN, {"a": a, "b": b})
    assert (found["n_group"], found["n_reference"], found["sites"], found["df"]) == (3, 3, 2, 3)
    assert found["difference_years"] == pytest.approx((3 + 6) / 2)
    # RSS: ∓1 inside each pair of a group, and what the common difference leaves: 2 + 2 + (2/3)(1.5² + 1.5²) = 7
    assert found["residual_sd_years"] == pytest.approx((7 / 3) ** 0.5)
    assert found["se_years"] == pytest.approx((7 / 3 / (4 / 3)) ** 0.5)
    assert found["cohens_d"] == pytest.approx(4.5 / (7 / 3) ** 0.5)
    assert found["unadjusted"]["difference_years"] == pytest.approx(4.5)
    assert found["auc_within_sites"] == 1
    assert found["auc"] == found["auc_low"] == 1  # 5, 9 and 11 are above 1, 3 and 4


@pytest.mark.parametrize("asked", [PLAIN, BY_AGE, FULL])
def test_equals_pooled_least_squares_with_a_dummy_for_every_site(tools, sites, asked):
    found = tools.result_of(asked, sites)
    difference, se, sd, df = pooled(sites, asked.covariates)
    assert found["difference_years"] == pytest.approx(difference, rel=1e-10)
    assert found["se_years"] == pytest.approx(se, rel=1e-10)
    assert found["residual_sd_years"] == pytest.approx(sd, rel=1e-10)
    assert found["df"] == df
    assert found["t"] == pytest.approx(difference / se, rel=1e-10)
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(difference / se), df), rel=1e-8)
    assert found["ci95"] == pytest.approx([difference + q * se for q in stats.t.ppf([0.025, 0.975], df)], rel=1e-8)
    unadjusted = pooled(sites, ())
    assert found["unadjusted"]["difference_years"] == pytest.approx(unadjusted[0], rel=1e-10)
    assert found["unadjusted"]["se_years"] == pytest.approx(unadjusted[1], rel=1e-10)
    json.dumps(found, allow_nan=False)


def test_two_groups_at_one_site_are_students_t_test(tools, sites):
    one = sites["s1"]
    found = tools.result_of(PLAIN, {"s1": one})
    test = stats.ttest_ind(one["gap_years"][one["ill"] == 1], one["gap_years"][one["ill"] == -1])
    assert found["t"] == pytest.approx(test.statistic, rel=1e-10)
    assert found["p"] == pytest.approx(test.pvalue, rel=1e-8)
    assert found["ci95"] == pytest.approx(list(test.confidence_interval()), rel=1e-8)


def test_a_sites_own_level_changes_nothing_and_order_neither(tools, sites):
    rng = np.random.default_rng(0)
    moved = {}
    for site, cohort in sites.items():
        order = rng.permutation(cohort.n)
        rows = Cohort({name: column[order] for name, column in cohort.columns.items()})
        moved[f"z-{site}"] = rows.with_columns(gap_years=rows["gap_years"] + rng.uniform(-20, 20))
    one, other = tools.result_of(FULL, sites), tools.result_of(FULL, moved)
    for key in ("difference_years", "se_years", "cohens_d", "auc_within_sites"):
        assert one[key] == pytest.approx(other[key], rel=1e-10)
    assert abs(one["auc"] - other["auc"]) > 0.02  # pairs across sites do see the sites' levels


@pytest.mark.parametrize("minimum", [1, 2, 5, 10])
def test_auc_is_the_pair_count_within_its_stated_error(tools, sites, minimum):
    found = tools.result_of(analysis(minimum_count=minimum), sites)
    truth = slow_auc(gaps(sites, 1), gaps(sites, -1))
    assert found["auc_low"] - 1e-12 <= truth <= found["auc_high"] + 1e-12
    assert found["auc_high"] - found["auc_low"] < {1: 0.012, 2: 0.2, 5: 0.4, 10: 0.6}[minimum]
    if minimum >= 5:
        assert found["auc"] is found["roc"] is None
        assert "more than its 95 % interval" in found["auc_refused"]
    else:
        assert abs(found["auc"] - truth) <= found["auc_error"] + 1e-12
        assert abs(found["auc"] - truth) < 0.03
    won = compared = 0.0
    for cohort in sites.values():
        ill, well = (cohort["gap_years"][cohort["ill"] == label] for label in (1, -1))
        won, compared = won + slow_auc(ill, well) * ill.size * well.size, compared + ill.size * well.size
    assert found["auc_within_sites"] == pytest.approx(won / compared, rel=1e-12)


def test_auc_of_one_site_is_exact_with_ties_by_half(tools):
    site = Cohort({"ill": np.array([1.0, 1, -1, -1]), "gap_years": np.array([1.0, 2, 1, 0])})
    found = tools.result_of(analysis(minimum_count=2), {"a": site})
    assert found["auc"] == found["auc_low"] == found["auc_high"] == 3.5 / 4
    for rate in found["roc"].values():
        assert rate[0] == 0
        assert rate[-1] == pytest.approx(1)
        assert np.all(np.diff(rate) >= 0)


@pytest.mark.parametrize("minimum", [2, 3, 10])
def test_spans_are_never_small_and_keep_everybody(minimum):
    rng = np.random.default_rng(minimum)
    for _ in range(200):
        values = rng.normal(rng.normal(0, 20), rng.uniform(0.01, 30), rng.integers(minimum, 120))
        if rng.random() < 0.3:
            values = np.round(values)
        made = _roc.histogram(np.clip(values, -130, 130), minimum_count=minimum)
        for side in (made.first, made.last, made.likely):
            assert side.sum() == pytest.approx(values.size)
        assert made.smallest_span >= minimum
        assert np.all(made.first[made.first > 0] >= minimum)
        assert np.all(np.cumsum(made.first) >= np.cumsum(made.likely) - 1e-9)
        assert np.all(np.cumsum(made.likely) >= np.cumsum(made.last) - 1e-9)


def test_spans_by_hand():
    counts = np.array([0, 3, 0, 0, 2, 5, 0, 4], dtype=np.int64)
    # Cuts that leave 4 on both sides: 5 to 7; the roundest is 6. Of [0, 6) they are 5 to 5; nothing more can be cut.
    assert _roc.spans(counts, 4) == [(0, 5), (5, 6), (6, 8)]
    assert _roc.spans(counts, 8) == [(0, 8)]


def test_a_site_with_one_group_adds_nothing_and_says_so(tools, sites):
    healthy = hospital(np.random.default_rng(1), 50, 40.0, ill=0.0)
    with_it = {**sites, "healthy": healthy}
    one, other = tools.result_of(FULL, sites), tools.result_of(FULL, with_it)
    assert other["one_group_only"] == 50
    for key in ("difference_years", "se_years", "df", "auc", "n_reference", "sites"):
        assert one[key] == other[key]
    alone = run_locally(FULL, {"healthy": healthy})
    assert isinstance(alone, NotComputable)
    assert "ill = 1" in alone.reason
    assert FULL.local(healthy, {}).smallest.count == 50


@pytest.mark.parametrize("train_on_the_ill", [False, True])
def test_only_patients_that_shaped_nothing(tools, sites, train_on_the_ill):
    rng = np.random.default_rng(8)
    part = {site: rng.choice(3, cohort.n) for site, cohort in sites.items()}
    split, tested = {}, {}
    for site, cohort in sites.items():
        well = cohort["ill"] == -1
        flags = {
            "is_train": (part[site] == 0) & (well | train_on_the_ill),
            "is_validation": part[site] == 1,  # of whom the healthy set the bias line
            "is_test": part[site] == 2,
            "healthy": well,
        }
        split[site] = cohort.with_columns(**{name: flag.astype(float) for name, flag in flags.items()})
        used = (well & (part[site] < 2)) | (train_on_the_ill & (part[site] == 0))
        tested[site] = cohort.where(~used)
    assert tools.result_of(BY_AGE, split) == tools.result_of(BY_AGE, tested)


def test_missing_values_and_other_groups(tools, sites):
    cohort = sites["s0"]
    gap, label = cohort["gap_years"].copy(), cohort["ill"].copy()
    gap[:3], gap[3], label[4:9] = np.nan, 400.0, 7.0
    found = tools.result_of(BY_AGE, {"s0": cohort.with_columns(gap_years=gap, ill=label)})
    keep = np.arange(cohort.n) >= 9
    assert found["left_out"] == 4
    assert {**found, "left_out": 0} == tools.result_of(BY_AGE, {"s0": cohort.where(keep)})


def test_cells_are_both_groups_and_tables_of_two_values(sites):
    cohort = sites["s0"]
    ill, male = cohort["ill"] == 1, cohort["is_male"] == 1
    assert BY_AGE.local(cohort, {}).smallest.count == 1  # spans are single cells without a minimum
    guarded = analysis("age_years", minimum_count=10)
    assert 10 <= guarded.local(cohort, {}).smallest.count <= min(ill.sum(), (~ill).sum())
    with_sex = analysis("is_male", minimum_count=10)
    table = [int((a & b).sum()) for a in (ill, ~ill) for b in (male, ~male)]
    assert with_sex.local(cohort, {}).smallest.count <= min(table)
    few = cohort.where(~ill | (np.cumsum(ill) <= 6))
    assert guarded.local(few, {}).smallest.count == 6


def test_what_cannot_be_adjusted_for_says_why(tools, sites):
    same = {site: cohort.with_columns(scanner=np.full(cohort.n, float(len(site)))) for site, cohort in sites.items()}
    found = tools.result_of(analysis("age_years", "scanner"), same)
    assert found["difference_years"] is None
    assert "scanner does not vary inside any site" in found["not_adjusted"]
    assert found["unadjusted"]["difference_years"] == pytest.approx(pooled(sites, ())[0])
    twice = {site: cohort.with_columns(months=12 * cohort["age_years"]) for site, cohort in sites.items()}
    assert "cannot be told apart" in tools.result_of(analysis("age_years", "months"), twice)["not_adjusted"]
    cohort = sites["s0"]
    two = cohort.where(np.isin(np.arange(cohort.n), [cohort["ill"].argmax(), cohort["ill"].argmin()]))
    assert "degrees of freedom" in tools.result_of(BY_AGE, {"a": two})["not_adjusted"]


def test_bounds_hold_and_nothing_can_be_asked(sites):
    lower, upper = FULL.layout({}).bounds()
    vector = FULL.local(sites["unlike"], {}).vector
    assert np.all((lower <= vector) & (vector <= upper))
    FULL.check({})
    with pytest.raises(IterateRefused):
        FULL.check({"cut": np.arange(3.0)})
