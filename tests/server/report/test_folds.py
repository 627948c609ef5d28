"""A run with folds: its rounds, figures and tables fold by fold."""

from typing import Any

import pytest

from fedage.server.report import _summary, _tables
from fedage.server.report._rounds import by_fold, mean_over_folds, rounds_in_words
from fedage.server.report.figure_learning import learning_curve
from fedage.server.results import Results, Round


def _rounds(errors: dict[int, list[float | None]]) -> list[Round]:
    return [
        Round(number=number, fold=fold, train_loss=1.0, validation_mae_years=error)
        for fold, values in errors.items()
        for number, error in enumerate(values, start=1)
    ]


def _error(item: Round) -> float | None:
    return item.validation_mae_years


@pytest.fixture
def folded(values: dict[str, Any]) -> dict[str, Any]:
    values["campaign"]["folds"] = 2
    values["rounds"] = [item.model_dump() for item in _rounds({1: [9.0, 6.0, None], 2: [7.0, 5.0, None]})]
    return values


def test_the_mean_over_folds_is_by_round_and_only_where_every_fold_has_one() -> None:
    rounds = _rounds({1: [9.0, 6.0, 4.0], 2: [7.0, 5.0, None]})
    assert [len(fold) for fold in by_fold(rounds)] == [3, 3]
    assert mean_over_folds(rounds, _error) == [(1, 8.0), (2, 5.5)]


def test_without_folds_the_mean_is_the_value() -> None:
    rounds = [Round(number=k, validation_mae_years=10.0 - k) for k in (1, 2)]
    assert mean_over_folds(rounds, _error) == [(1, 9.0), (2, 8.0)]


def test_rounds_are_told_by_fold() -> None:
    assert rounds_in_words(_rounds({1: [1.0] * 150, 2: [1.0] * 150})) == "150 rounds in each of 2 folds"
    assert rounds_in_words(_rounds({1: [1.0] * 3, 2: [1.0]})) == "4 rounds in 2 folds"
    assert rounds_in_words([Round(number=1)]) == "1 round"


def test_the_learning_curve_has_a_line_a_fold_and_does_not_run_past_the_last_round(folded: dict[str, Any]) -> None:
    results = Results.model_validate(folded)
    svg = learning_curve(results)
    assert svg is not None
    assert "Mean validation MAE over 3 rounds in each of 2 folds, from 8.00 to 5.50 years" in svg
    assert "all sites, mean over folds" in svg
    assert "for 3 rounds in each of 2 folds" in _summary.sentences(results)[0]


def test_the_table_of_rounds_names_the_fold(folded: dict[str, Any]) -> None:
    table = _tables.rounds(Results.model_validate(folded))
    assert table.headers[:2] == ("fold", "round")
    assert [(row[0].text, row[1].text) for row in table.rows] == [(f, k) for f in "12" for k in "123"]
