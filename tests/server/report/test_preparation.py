"""A model on tables: how it was made, in sentences and tables, where there are no rounds to draw."""

from typing import Any

import pytest

from fedage.server.record.results import Results
from fedage.server.report import _preparation, preparation_text, render_report
from fedage.server.report import summary as _summary


def fold(number: int | None, **changes: Any) -> dict[str, Any]:
    return {
        "fold": number,
        "n": 280,
        "left_out": 2,
        "features": 5,
        "unused": [],
        "median_error_in_sd": [0.3, 0.1],
        "penalty": 316.2,
        "penalty_from": "inner-folds",
        "cross_validation": [[100.0, 0.36], [316.2, 0.351]],
        "sites": ["north", "south"],
        **changes,
    }


@pytest.fixture
def ridge(values: dict[str, Any]) -> dict[str, Any]:
    values["campaign"].update(estimator="table-ridge", folds=2, rounds=None)
    values["rounds"] = []
    values["preparation"] = [
        fold(1),
        fold(2, unused=["empty", "flat"], penalty=100.0, median_error_in_sd=[0.2, 0.15], withheld={"west": "too few"}),
    ]
    return values


def test_a_model_solved_exactly_is_not_called_untrained(ridge: dict[str, Any]) -> None:
    results = Results.model_validate(ridge)
    first = _summary.sentences(results)[0]
    assert "made the age estimator table-ridge together in 4 min 10 s: solved exactly from sums" in first
    assert "once for each of 2 folds" in first
    html = render_report(results)
    assert "No round of training was finished" not in html
    assert "Learning</h2>" in html
    assert "Every round in numbers" not in html


def test_what_the_preparation_found_is_said(ridge: dict[str, Any]) -> None:
    said = preparation_text.sentences(Results.model_validate(ridge))
    assert len(said) == 5
    assert said[0].startswith("The model is solved exactly from the sites' sums of products, once for each fold")
    assert said[1].startswith("The penalty λ of the ridge regression is 316.2, 100 by fold: by cross-validation over")
    # The larger of each figure over the folds.
    assert "±0.3 standard deviations of the feature at most, and ±0.15 or less for half of the features" in said[2]
    assert said[3].startswith("2 of 5 features are not used in some folds: empty and flat. Either all training")
    assert said[4].endswith("because they withheld their sums: west (fold 2).")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("campaign", "is 10: as the campaign file gives it."),
        ("too-few-patients", "is 10: the number of features, because inner folds for cross-validation"),
        ("inner-folds", "is 10: by cross-validation over inner folds"),
        ("a later version's", "is 10: a later version's."),
    ],
)
def test_where_the_penalty_is_from(ridge: dict[str, Any], source: str, says: str) -> None:
    ridge["preparation"] = [fold(None, penalty=10, penalty_from=source, cross_validation=[])]
    ridge["campaign"]["folds"] = None
    results = Results.model_validate(ridge)
    assert says in preparation_text.sentences(results)[1]
    assert "All 5 features are used." in preparation_text.sentences(results)
    assert _preparation.cross_validation(results).rows == ()


def test_a_model_trained_after_a_preparation_keeps_its_rounds(ridge: dict[str, Any]) -> None:
    ridge["campaign"]["rounds"] = 3
    ridge["preparation"] = [fold(None, penalty=None, penalty_from="", cross_validation=[])]
    stopped = Results.model_validate(ridge)
    assert _summary.sentences(stopped)[0] == "No round of training was finished."
    assert not any("exactly" in said or "penalty" in said for said in preparation_text.sentences(stopped))
    ridge["preparation"] = [fold(None)]
    said = preparation_text.sentences(Results.model_validate(ridge))[0]
    assert said == "Training starts from a ridge regression that is solved exactly from the sites' sums."
    ridge["rounds"] = [{"number": 1, "fold": 1, "validation_mae_years": 5.0}]
    html = render_report(Results.model_validate(ridge))
    assert "Every round in numbers" in html
    assert "table-preparation" in html


def test_means_that_stand_in_for_medians_are_said(ridge: dict[str, Any]) -> None:
    assert "stands in" not in " ".join(preparation_text.sentences(Results.model_validate(ridge)))
    ridge["preparation"][1]["stood_in"] = 7
    said = preparation_text.sentences(Results.model_validate(ridge))
    assert "and this penalty, but for the means that stand in, it is the model" in said[0]
    (told,) = (sentence for sentence in said if "stands in" in sentence)
    assert "in up to 7 cases" in told
    assert "differs by that from the pooled one" in told
    assert preparation_text.stand_ins(Results.model_validate(ridge)) == [told]
    # A network on the same table starts from the same medians, and its record says so as well.
    ridge["campaign"]["rounds"] = 3
    ridge["rounds"] = [{"number": 1, "fold": 1, "validation_mae_years": 5.0}]
    (told,) = (
        sentence for sentence in preparation_text.sentences(Results.model_validate(ridge)) if "stands in" in sentence
    )
    assert told.endswith("so that they must not be told apart.")


def test_the_tables_hold_each_fold(ridge: dict[str, Any]) -> None:
    results = Results.model_validate(ridge)
    table = _preparation.preparation(results)
    assert [cell.value for cell in table.rows[1][:-1]] == ["2", "280", "2", "3", "2", "0.2", "0.15", "100.0"]
    assert table.rows[1][-1].text == "cross-validation"
    assert len(table.headers) == len(table.rows[0])
    tried = _preparation.cross_validation(results)
    assert tried.headers == ("penalty λ", "RMSE, fold 1", "RMSE, fold 2")
    assert [[cell.value for cell in row] for row in tried.rows] == [
        ["100.0", "0.36", "0.36"],
        ["316.2", "0.351", "0.351"],
    ]


def test_many_unused_features_are_counted_not_listed(ridge: dict[str, Any]) -> None:
    names = [f"f{k}" for k in range(30)]
    ridge["preparation"] = [fold(None, features=40, unused=names)]
    said = " ".join(preparation_text.sentences(Results.model_validate(ridge)))
    assert "30 of 40 features are not used: f0, f1," in said
    assert "f11 and 18 more. Either" in said
    assert "f12" not in said
