"""A run with folds: its rounds, figures and tables fold by fold."""

from typing import Any

import pytest

from fedage.server.record.results import Results, Round
from fedage.server.report import _tables, site_text
from fedage.server.report import summary as _summary
from fedage.server.report.figure_learning import learning_curve
from fedage.server.report.rounds import by_fold, mean_over_folds, rounds_text


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
    assert rounds_text(_rounds({1: [1.0] * 150, 2: [1.0] * 150})) == "150 rounds in each of 2 folds"
    assert rounds_text(_rounds({1: [1.0] * 3, 2: [1.0]})) == "4 rounds in 2 folds"
    assert rounds_text([Round(number=1)]) == "1 round"


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


def test_the_sites_table_says_in_how_many_folds_each_site_holds_patients_out(folded: dict[str, Any]) -> None:
    folded["campaign"]["folds"] = 4
    north, *others = folded["sites"]
    north |= {"held_out_in_folds": 4, "patients_by_part": {f"fold {k}": 20 for k in range(1, 5)}}
    for site, used in zip(others, (2, 2, 3), strict=False):
        parts = {f"fold {k}": 12 if k <= used else 0 for k in range(1, 5)}
        site |= {"held_out_in_folds": used, "patients_by_part": parts, "status": "took part"}
    results = Results.model_validate(folded)
    table = _tables.sites(results)
    column = table.headers.index("held out in")
    assert table.rows[0][column].text == "4 of 4 folds"
    assert "2 of 4 folds" in [row[column].text for row in table.rows]
    assert "in 2 of 4 folds: too few for more at the minimum count" in table.note or "in 3 of 4 folds" in table.note
    for site in folded["sites"]:
        site["held_out_in_folds"] = 4
    assert "too few" not in _tables.sites(Results.model_validate(folded)).note
    folded["campaign"]["folds"] = None
    assert "held out in" not in _tables.sites(Results.model_validate(folded)).headers


@pytest.mark.parametrize(
    ("used", "told"),
    [
        ([5, 5, 5], ""),
        ([5, 2, 5], "b holds patients out in 2 of 5 folds: "),
        ([3, 2, 3], "a and c hold patients out in 3 of 5 folds; b holds patients out in 2 of 5 folds: "),
        ([None, 4, 5], "b holds patients out in 4 of 5 folds: "),
    ],
)
def test_small_sites_are_told_together(folded: dict[str, Any], used: list[int | None], told: str) -> None:
    folded["campaign"]["folds"] = 5
    folded["sites"] = [
        {"name": name, "status": "took part", "held_out_in_folds": count}
        for name, count in zip("abc", used, strict=True)
    ]
    said = " ".join(site_text.held_out(Results.model_validate(folded)))
    assert said.startswith(told)
    assert bool(said) == bool(told)
