import json

import numpy as np
import pytest

from fedage.common.analyses import plan
from fedage.common.analyses.agreement import Agreed
from fedage.common.analyses.base import Again, Done, Following, NotComputable, run_locally
from fedage.common.analyses.columns import TwoGroups
from fedage.common.analyses.groups.group_difference import GROUPS, GROUPS_RAW, GroupDifference
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from fedage.common.analyses.survival.kaplan_meier import KAPLAN_MEIER
from fedage.common.analyses.survival.table_grid import TABLE_GRID, TableGrid
from fedage.common.campaign.types import Campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import InfluenceRule

MODELS = (
    {"name": "gap", "covariates": ("gap_years", "age_years")},
    {"name": "gap-pooled", "covariates": ("gap_years", "age_years", "is_male"), "by_site": False},
    {"name": "truth", "covariates": ("true_gap_years", "age_years")},
)


def campaign(*, survival=None, planted=True, **tables):
    return Campaign.model_validate(
        {
            "campaign": {"name": "test", "purpose": "a campaign for tests", "seed": 1},
            "estimator": {"name": "chest-ca"},
            "cohort": {"age_min_years": 40.0, "age_max_years": 85.0},
            "training": {"rounds": 1},
            "survival": {"models": MODELS, "table_times_years": (1.0, 3.0, 5.0)} if survival is None else survival,
            "analyses": {"planted-truth": {"hazard_ratio_per_year": 1.05, "gap_sd_years": 6.0}} if planted else {},
            "text": "",
            "digest": "",
            **tables,
        }
    )


def with_groups():
    return campaign(groups={"column": "ill", "equals": 1.0, "reference": 0.0})


def computable():
    """Table times close enough for every table, and no minimum that would merge them."""
    return with_groups().model_copy(
        update={
            "survival": campaign(
                survival={"models": MODELS, "table_times_years": tuple(map(float, range(1, 9)))}
            ).survival,
            "privacy": campaign(privacy={"minimum_count": 1}).privacy,
        }
    )


@pytest.fixture(scope="module")
def hospitals():
    rng = np.random.default_rng(0)

    def hospital(n):
        age, gap = rng.uniform(40, 85, n), rng.normal(0, 6, n)
        predicted = 16 + 0.72 * (age + gap) + rng.normal(0, 2, n)
        part = rng.choice(3, n, p=[0.4, 0.2, 0.4])
        time = rng.exponential(1 / (0.1 * 1.05**gap))
        return Cohort(
            {
                "age_years": age,
                "predicted_years": predicted,
                "raw_gap_years": predicted - age,
                "corrected_years": predicted + 0.28 * age - 16,
                "gap_years": predicted - 0.72 * age - 16,
                "cole_gap_years": (predicted - 16) / 0.72 - age,
                "true_gap_years": gap,
                "healthy": np.ones(n),
                "ill": (gap > 1).astype(float),
                "is_male": rng.integers(0, 2, n).astype(float),
                "is_train": (part == 0).astype(float),
                "is_validation": (part == 1).astype(float),
                "is_test": (part == 2).astype(float),
                "time_years": np.minimum(time, 8.0),
                "event": (time <= 8).astype(float),
            }
        )

    return {site: hospital(n) for site, n in (("north", 250), ("south", 320), ("west", 280))}


def names(stage):
    return [analysis.name for analysis in stage]


def test_names_in_order():
    predicted, corrected = plan.stages(campaign())
    assert names(predicted) == [
        "evaluation:test",
        "evaluation:validation",
        "bias",
        "predicted-by-age",
        "gap-by-age:raw",
        "error-curve:test",
    ]
    assert names(corrected) == [
        "evaluation:test-corrected",
        "gap-by-age:corrected",
        "error-curve:test-corrected",
        "table-grid",
        "cox:gap",
        "cox:gap-pooled",
        "cox:truth",
        "kaplan-meier",
        "planted-truth",
    ]
    assert list(plan.registered(campaign())) == names(predicted) + names(corrected)
    assert plan.left_out(campaign()) == {}


def test_both_sides_derive_equal_objects():
    assert plan.stages(campaign()) == plan.stages(campaign())


def test_a_campaign_without_survival_or_planted_truth():
    found = campaign(planted=False).model_copy(update={"survival": None})
    assert names(plan.stages(found)[1]) == [
        "evaluation:test-corrected",
        "gap-by-age:corrected",
        "error-curve:test-corrected",
    ]
    assert plan.left_out(found) == {}
    assert "planted-truth" not in plan.registered(campaign(planted=False))


def test_the_file_decides_about_the_models():
    survival = {
        "models": MODELS,
        "time": "follow_up",
        "event": "died",
        "ties": "breslow",
        "strata": ("is_male",),
        "time_grid_years": 0.5,
        "table_times_years": (2.0, 4.0),
    }
    found = plan.registered(campaign(survival=survival))
    rule = InfluenceRule(minimum_count=10)
    by_site = CoxBySite(
        "cox:gap", ("gap_years", "age_years"), time="follow_up", event="died", subset="is_test",
        strata=("is_male",), ties="breslow", time_grid_years=0.5, beside=("is_male",),
    )  # fmt: skip
    pooled = CoxPooled(
        "cox:gap-pooled", ("gap_years", "age_years", "is_male"), (0.0, 2.0, 4.0), time="follow_up", event="died",
        subset="is_test", strata=("is_male",), levels=((0.0, 1.0),), ties="breslow", minimum_count=10,
        grid=found[TABLE_GRID], influence=rule, beside=("gap_years", "age_years", "is_male"),
    )  # fmt: skip
    assert found["cox:gap"] == Agreed(by_site, rule=rule)
    assert found["cox:gap-pooled"] == pooled
    assert found[TABLE_GRID] == TableGrid(
        TABLE_GRID, (0.0, 2.0, 4.0), gap="gap_years", strata=((("is_male",), ((0.0, 1.0),)),), minimum_count=10,
        needed=("gap_years", "age_years", "is_male"), time="follow_up", event="died", subset="is_test",
    )  # fmt: skip
    assert found[KAPLAN_MEIER].preceding is found[TABLE_GRID]
    # The tables of the file share their intervals, which are settled before any of them.
    assert list(found).index(TABLE_GRID) < min(map(list(found).index, ("cox:gap-pooled", KAPLAN_MEIER)))


@pytest.mark.parametrize("privacy", [{"largest_share": 0.3, "patients_per_column": 5.0}, {"minimum_count": 20}])
def test_the_file_decides_about_the_influence_rule(privacy):
    found = plan.registered(campaign(privacy=privacy))
    assert found["cox:gap"].rule == InfluenceRule(**{"minimum_count": 10, **privacy})


def test_without_a_minimum_count_there_is_no_influence_rule():
    assert isinstance(plan.registered(campaign(privacy={"minimum_count": 1}))["cox:gap"], CoxBySite)
    assert isinstance(plan.registered(campaign(simulation={"guard": False}))["cox:gap"], CoxBySite)


def test_groups_are_compared_by_the_corrected_and_the_raw_gap():
    found = plan.registered(with_groups())
    assert list(found)[-2:] == [GROUPS, "planted-truth"]
    assert GROUPS_RAW in names(plan.stages(with_groups())[0]), "raw gaps need no correction"
    asked = {"equals": 1.0, "reference": 0.0, "covariates": ("age_years",), "minimum_count": 10}
    asked["beside"] = ("gap_years", "age_years", "is_male", "true_gap_years", TwoGroups("ill", 1.0, 0.0))
    corrected = GroupDifference(GROUPS, "ill", gap="gap_years", **asked)
    raw = GroupDifference(GROUPS_RAW, "ill", gap="raw_gap_years", **asked)
    rule = InfluenceRule(minimum_count=10)
    assert found[GROUPS] == Agreed(corrected, rule=rule)
    assert found[GROUPS_RAW] == Agreed(raw, rule=rule)
    cole = with_groups().model_copy(update={"bias": campaign(bias={"scale": "cole"}).bias})
    assert plan.registered(cole)[GROUPS].analysis.gap == "cole_gap_years"
    # A table that brings its gaps has no prediction of ours.
    assert GROUPS_RAW not in plan.registered(with_groups().model_copy(update={"estimator": None}))


@pytest.mark.parametrize(("scale", "gap"), [("de-lange", "gap_years"), ("cole", "cole_gap_years")])
def test_the_scale_decides_which_gap_is_split(scale, gap):
    assert plan.registered(campaign(bias={"scale": scale}))["kaplan-meier"].gap == gap


def test_without_table_times_tables_are_left_out_with_the_reason():
    found = campaign(survival={"models": MODELS})
    assert set(plan.left_out(found)) == {"cox:gap-pooled", "kaplan-meier"}
    assert "survival.table_times_years" in plan.left_out(found)["kaplan-meier"]
    assert not set(plan.left_out(found)) & set(plan.registered(found))


def test_levels_that_nobody_knows():
    found = campaign(survival={"models": MODELS, "table_times_years": (1.0,), "strata": ("is_male", "scanner")})
    assert "scanner" in plan.left_out(found)["cox:gap-pooled"]
    assert list(plan.left_out(found)) == ["cox:gap-pooled"]


def test_a_whole_campaign_runs_and_its_results_are_json(hospitals):
    by_name = plan.registered(computable())
    results = {name: run_locally(analysis, hospitals) for name, analysis in by_name.items()}
    assert all(isinstance(outcome, Done) for outcome in results.values())
    json.dumps({name: outcome.result for name, outcome in results.items()}, allow_nan=False)
    assert results["evaluation:test"].result["mae_years"] > results["evaluation:test-corrected"].result["mae_years"]
    assert results["bias"].result["slope"] == pytest.approx(0.72, abs=0.08)
    tested = sum(int(site["is_test"].sum()) for site in hospitals.values())
    for name in ("cox:gap", "cox:gap-pooled", "kaplan-meier", "planted-truth"):
        assert results[name].result["n"] == tested


@pytest.mark.parametrize("step", sorted(plan.registered(with_groups())))
def test_every_analysis_round_trips_and_does_not_see_the_order_of_sites(hospitals, step):
    analysis = plan.registered(computable())[step]
    renamed = dict(zip(("z", "y", "x"), hospitals.values(), strict=True))
    one, other = run_locally(analysis, hospitals), run_locally(analysis, renamed)
    assert isinstance(one, Done)
    assert flat(one.result) == pytest.approx(flat(other.result), rel=1e-10, abs=1e-12)
    if isinstance(analysis, Following):
        iterate = analysis.begin(run_locally(analysis.preceding, hospitals).result)
    else:
        iterate = analysis.first()
    while True:
        layout = analysis.layout(iterate)
        statistic = analysis.local(hospitals["west"], iterate)
        blocks = {field.name: statistic[field.name] for field in layout.fields}
        assert np.array_equal(layout.flatten(blocks), statistic.vector)
        lower, upper = layout.bounds()
        assert np.all((lower <= statistic.vector) & (statistic.vector <= upper))
        outcome = analysis.combine(statistic, iterate)
        if not isinstance(outcome, Again):
            break
        iterate = outcome.iterate


@pytest.mark.parametrize("step", sorted(plan.registered(with_groups())))
def test_no_patient_at_all_ends_with_a_reason(hospitals, step):
    empty = {site: cohort.where(np.zeros(cohort.n, dtype=bool)) for site, cohort in hospitals.items()}
    outcome = run_locally(plan.registered(with_groups())[step], empty)
    assert isinstance(outcome, NotComputable)
    assert len(outcome.reason) > 10


def test_sites_get_results_of_their_own(hospitals):
    for name, analysis in plan.registered(with_groups()).items():
        assert analysis.per_site == name.startswith(("evaluation", "bias", "groups"))


def flat(value):
    """All numbers of a result in a list; None as −1."""
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in flat(value[key])]
    if isinstance(value, list):
        return [number for item in value for number in flat(item)]
    return [] if isinstance(value, str) else [-1.0 if value is None else float(value)]
