import numpy as np
import pytest

from fedage.client.cohort.selection.parts import (
    check_fold,
    count_set_aside,
    held_out,
    held_out_of_training,
    part_sizes,
    parts_for_fold,
    with_parts,
)
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import RequestRefused
from fedage.common.statistics.cohort import Cohort

HEAD = """
[campaign]
name = "parts"
purpose = "Who is in which part"
seed = 1
[estimator]
name = "table-ridge"
[estimator.options]
features = ["x"]
[table]
age = "age"
[cohort]
train_on = "healthy"
[cohort.healthy]
column = "ill"
equals = 0
"""


def campaign(rest: str = "") -> Campaign:
    return parse_campaign(HEAD + rest)


FOLDS = campaign("[validation]\nfolds = 4\n")


def cohort(n: int = 400) -> tuple[Cohort, np.ndarray]:
    rng = np.random.default_rng(0)
    return Cohort({"age_years": rng.uniform(20, 80, n), "ill": (rng.random(n) < 0.5).astype(float)}), rng.random(n)


def test_every_patient_is_held_out_of_exactly_one_model_and_never_trained_on_there() -> None:
    made = with_parts(*cohort(), FOLDS)
    times = np.zeros(made.n)
    for fold in range(4):
        rows = held_out(made, FOLDS, fold)
        parts = parts_for_fold(made, FOLDS, fold)
        times += rows
        assert not np.any((parts["is_train"] == 1) & rows)
        assert not np.any((parts["is_train"] == 1) & (made["healthy"] == 0))
        assert held_out_of_training(made, FOLDS, fold) == np.count_nonzero(rows & (made["healthy"] == 1))
    assert np.all(times == 1)
    assert sum(part_sizes(made, FOLDS).values()) == np.count_nonzero(made["healthy"] == 1)
    for health in (0, 1):
        per_fold = [int(np.count_nonzero((made["fold"] == f) & (made["healthy"] == health))) for f in range(4)]
        assert max(per_fold) - min(per_fold) <= 1, "folds must be of one size, the healthy and the others apart"


def test_the_parts_of_a_split_do_not_overlap_and_the_ill_are_not_trained_on() -> None:
    made = with_parts(*cohort(), campaign())
    assert not np.any((made["is_train"] == 1) & (made["is_test"] == 1))
    assert not np.any((made["is_train"] == 1) & (made["healthy"] == 0))
    assert held_out_of_training(made, campaign(), 0) == 0


@pytest.mark.parametrize(("fold", "last"), [(4, False), (5, True), (1000, True), (-1, True)])
def test_a_fold_that_the_file_does_not_have_is_refused(fold: int, last: bool) -> None:
    with pytest.raises(RequestRefused) as refusal:
        check_fold(FOLDS, fold, all_folds_allowed=last)
    assert refusal.value.rule == "fold"
    check_fold(FOLDS, 4, all_folds_allowed=True)
    check_fold(campaign(), 0, all_folds_allowed=False)
    with pytest.raises(RequestRefused):
        check_fold(campaign(), 1, all_folds_allowed=True)


def few_ill(n: int = 400, *, ill: int) -> tuple[Cohort, np.ndarray]:
    """Patients of whom the first `ill` are not healthy, those in the test part of a split."""
    unit = np.linspace(0.001, 0.999, n)[::-1].copy()
    told = np.zeros(n)
    told[:ill] = 1
    return Cohort({"age_years": np.full(n, 50.0), "ill": told}), unit


def test_the_few_of_a_part_who_are_not_healthy_are_in_no_sum() -> None:
    asked = campaign()  # its minimum count is 10
    made = with_parts(*few_ill(ill=9), asked)
    assert count_set_aside(made) == {"too-few-not-healthy": 9, "too-few-incomplete": 0}
    for part in ("is_validation", "is_test"):
        inside = made[part] == 1
        assert np.array_equal(inside, inside & (made["healthy"] == 1)), "all and the healthy have to be the same"
    enough = with_parts(*few_ill(ill=10), asked)
    assert count_set_aside(enough) == {"too-few-not-healthy": 0, "too-few-incomplete": 0}
    assert np.count_nonzero((enough["is_test"] == 1) & (enough["healthy"] == 0)) == 10
    none = with_parts(*few_ill(ill=0), asked)
    assert count_set_aside(none) == {"too-few-not-healthy": 0, "too-few-incomplete": 0}
    assert sum(part_sizes(none, asked).values()) == 400
    unguarded = with_parts(*few_ill(ill=9), campaign("[simulation]\nguard = false\n"))
    assert count_set_aside(unguarded) == {"too-few-not-healthy": 0, "too-few-incomplete": 0}


def test_with_folds_the_few_who_are_not_healthy_are_in_no_fold() -> None:
    made = with_parts(*few_ill(ill=9), FOLDS)
    assert count_set_aside(made) == {"too-few-not-healthy": 9, "too-few-incomplete": 0}
    assert not np.any((made["is_test"] == 1) & (made["healthy"] == 0))
    for fold in range(4):
        parts = parts_for_fold(made, FOLDS, fold)
        for part in ("is_train", "is_validation", "is_test"):
            assert not np.any((parts[part] == 1) & (made["set_aside"] == 1))
        assert not np.any(held_out(made, FOLDS, fold) & (made["set_aside"] == 1))
    assert sum(part_sizes(made, FOLDS).values()) == 391
    assert count_set_aside(with_parts(*few_ill(ill=10), FOLDS)) == {"too-few-not-healthy": 0, "too-few-incomplete": 0}


@pytest.mark.parametrize(("ill", "left_out"), [(0, 0), (9, 9), (10, 0), (40, 0)])
def test_who_is_in_no_sum_where_a_tables_own_predictions_are_judged_on_the_healthy(ill: int, left_out: int) -> None:
    chosen = parse_campaign(
        HEAD.replace('[estimator]\nname = "table-ridge"\n[estimator.options]\nfeatures = ["x"]\n', "").replace(
            'age = "age"', 'age = "age"\npredicted = "brain_age"'
        )
    )
    values = np.zeros(100)
    values[:ill] = 1
    made = with_parts(Cohort({"age_years": np.full(100, 50.0), "ill": values}), np.linspace(0, 0.99, 100), chosen)
    assert count_set_aside(made) == {"too-few-not-healthy": left_out, "too-few-incomplete": 0}
    assert np.array_equal(made["is_test"] == 1, (values == 0) | (left_out == 0))
    assert made["healthy"].sum() == 100 - ill
