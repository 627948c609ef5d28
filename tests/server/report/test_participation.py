"""Whose figures a report shows: one site's are not called all sites', and who missed rounds did not train together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fedage.common.analyses.bias import bias_line, gap_by_age
from fedage.common.analyses.bias.bias_line import BIAS
from fedage.common.analyses.definition import Definition
from fedage.common.analyses.evaluation import _metrics_shown as _evaluation_shown
from fedage.common.analyses.evaluation import predicted_by_age
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.evaluation.metrics import TEST
from fedage.common.analyses.groups._group_difference_figure import compared_groups
from fedage.common.analyses.groups._group_difference_shown import caption
from fedage.common.analyses.groups.group_difference import GROUPS, GROUPS_RAW
from fedage.common.presentation.blocks import FigureBlock
from fedage.common.presentation.participation import patients_told, pooled_label, training_text
from fedage.server.record.results import Results, SiteRecord
from fedage.server.report import _tables, render_report
from fedage.server.report import summary as _summary
from fedage.server.report.figure_learning import learning_curve


def figure_of(definition: Definition, results: Results) -> str:
    """The caption of the figure that an analysis shows."""
    (block,) = definition.shown(results).sections[0].blocks
    assert isinstance(block, FigureBlock)
    return block.caption


def _labels(values: Mapping[str, Any]) -> list[str]:
    table = _evaluation_shown.evaluation("test-raw", *_raw(values), step=TEST)
    return [row[0].text for row in table.rows]


def _raw(values: Mapping[str, Any]) -> tuple[Results, Any]:
    results = Results.model_validate(values)
    return results, evaluation_results.evaluation(results).test.raw


@pytest.mark.parametrize(
    ("contributors", "last"),
    [
        (["north", "south", "west"], "all sites"),
        (["north", "west"], "2 of 3 sites"),
    ],
)
def test_the_pooled_row_says_whose_it_is(values: dict[str, Any], contributors: list[str], last: str) -> None:
    values["contributors"] = {TEST: contributors}
    assert _labels(values)[-1] == last
    assert _evaluation_shown.headline(Results.model_validate(values)).rows[-1][0].text == last


def test_one_sites_figures_have_no_second_row_for_all_sites(values: dict[str, Any]) -> None:
    raw = values["evaluation"]["test"]["raw"]
    raw["by_site"] = {"north": raw["by_site"]["north"]}
    raw["overall"] = raw["by_site"]["north"]
    values["contributors"] = {TEST: ["north"], BIAS: ["south"]}
    assert _labels(values) == ["north"]
    values["bias"]["lines"] = {"south": values["bias"]["lines"]["south"]}
    values["bias"]["overall"] = values["bias"]["lines"]["south"]
    assert [row[0].text for row in bias_line.bias_lines(Results.model_validate(values)).rows] == ["south"]


def test_a_figure_of_one_site_without_a_row_of_its_own_bears_its_name(values: dict[str, Any]) -> None:
    values["contributors"] = {BIAS: ["south"]}
    values["bias"]["overall"] = values["bias"]["lines"]["south"]
    values["bias"]["lines"] = {}
    assert [row[0].text for row in bias_line.bias_lines(Results.model_validate(values)).rows] == ["south"]


def test_the_comparison_of_groups_bears_the_name_of_its_only_site(values: dict[str, Any]) -> None:
    values["contributors"] = {GROUPS: ["south"], GROUPS_RAW: ["south", "north"]}
    results = Results.model_validate(values)
    svg = compared_groups(results)
    assert svg is not None
    assert "all sites" not in svg
    assert ">south<" in svg
    assert ">2 of 3 sites, raw gap<" in svg
    assert "all sites" not in caption(results)


def test_the_learning_curve_of_one_site_is_not_that_of_all(values: dict[str, Any]) -> None:
    for item in values["rounds"]:
        item["validation_mae_years_by_site"] = {"north": item["validation_mae_years"]}
    svg = learning_curve(Results.model_validate(values))
    assert svg is not None
    assert ">north alone<" in svg
    assert "all sites" not in svg
    for item in values["rounds"]:
        item["validation_mae_years_by_site"]["south"] = 5.0
    svg = learning_curve(Results.model_validate(values))
    assert svg is not None
    assert ">2 of 3 sites<" in svg


def test_a_site_that_missed_rounds_did_not_train_together_with_the_others(values: dict[str, Any]) -> None:
    first = _summary.sentences(Results.model_validate(values))[0]
    assert first.startswith("2 sites (north, south, 300 patients) trained the age estimator chest-ca together for 12 ")
    assert first.endswith("The updates of west are in 8 of 12 rounds.")


@pytest.mark.parametrize(
    ("missed", "says"),
    [
        ({"west": 12}, "The updates of west are in none of 12 rounds."),
        ({"west": 5, "south": 5}, "The updates of south and west are in 7 of 12 rounds."),
        ({"west": 5, "south": 1}, "The updates of south are in 11 of 12 rounds; the updates of west are in 7 of 12 "),
    ],
)
def test_every_share_of_the_rounds_is_said(values: dict[str, Any], missed: dict[str, int], says: str) -> None:
    for number, item in enumerate(values["rounds"]):
        item["sites"] = [site for site in ("north", "south", "west") if number >= missed.get(site, 0)]
    first = _summary.sentences(Results.model_validate(values))[0]
    assert says in first
    assert all(site not in first.split(" trained")[0] for site in missed)


def test_sites_that_took_turns_are_not_said_to_have_trained_together(values: dict[str, Any]) -> None:
    for number, item in enumerate(values["rounds"]):
        item["sites"] = [site for k, site in enumerate(("north", "south", "west")) if k != number % 3]
    first = _summary.sentences(Results.model_validate(values))[0]
    assert first.startswith(
        "No site's contribution is in the whole of the age estimator chest-ca: the updates of north"
    )
    assert "together" not in first


def test_a_site_that_only_evaluates_is_not_said_to_train(values: dict[str, Any]) -> None:
    for item in values["rounds"]:
        item["sites"] = ["north", "south"]
    values["sites"][2]["role"] = "evaluation only"
    results = Results.model_validate(values)
    assert [site.name for site in training_text(results)[0]] == ["north", "south"]
    assert "West was not trained on, by policy." in _summary.sentences(results)[0]


def test_a_site_withheld_from_an_exact_model_did_not_make_it(values: dict[str, Any]) -> None:
    values["rounds"] = []
    values["campaign"].update(estimator="table-ridge", rounds=None, folds=2)
    values["preparation"] = [
        {"fold": 1, "n": 90, "sites": ["north", "south"], "withheld": {"west": "minimum-count: fewer than 5"}},
        {"fold": 2, "n": 140, "sites": ["north", "south", "west"]},
    ]
    first = _summary.sentences(Results.model_validate(values))[0]
    assert first.startswith("2 sites (north, south, 300 patients) made the age estimator table-ridge together")
    assert first.endswith("The sums of west are in 1 of 2 folds.")


def test_without_contributors_in_the_record_the_sites_with_figures_count(values: dict[str, Any]) -> None:
    results = Results.model_validate(values)
    assert pooled_label(results, TEST, by_site=["north", "south", "west"]) == "all sites"
    assert pooled_label(results, TEST, by_site=["north", "south"]) == "2 of 3 sites"
    assert pooled_label(results, TEST, by_site=["north"]) == "north"


def test_what_correction_leaves_is_in_the_caption(values: dict[str, Any]) -> None:
    found = values["figures"]["gap_by_age_corrected"]
    found["mean_years"] = [2.7, None, 0.4, 0.1, -0.2, -0.8, -1.2, -2.0, -3.4]
    caption = figure_of(gap_by_age.ANALYSIS, Results.model_validate(values))
    assert "After correction the mean is +2.7 years at 40 to 45 years of age and −3.4 at 80 to 85" in caption
    assert "lie on zero" not in caption


@pytest.mark.parametrize(("withheld", "drawn"), [(0, True), (20, True), (25, False), (120, False)])
def test_a_table_of_which_much_is_withheld_is_not_drawn(values: dict[str, Any], withheld: int, *, drawn: bool) -> None:
    grid = values["figures"]["predicted_by_age"]
    grid["counts"] = [[0] * 9 for _ in range(9)]
    grid["counts"][3][3], grid["counts"][4][4], grid["withheld"] = 173, 27, withheld
    results = Results.model_validate(values)
    html = render_report(results)
    assert (">173<" in html) == drawn
    assert "mean of an age bin, ±1 SD" in html
    caption = figure_of(predicted_by_age.ANALYSIS, results)
    assert ("Counts by cell are not drawn" in caption) == (not drawn)
    assert not withheld or f"{100 * withheld / (200 + withheld):.0f} %" in caption


def test_decimals_stand_below_each_other(values: dict[str, Any]) -> None:
    results = Results.model_validate(values)
    table = _tables.rounds(results)
    assert table.numeric == (True, True, True, True, True, False)
    html = render_report(results)
    assert '<th scope="col" class="number">training loss</th>' in html
    assert '<th scope="col">sites</th>' in html


@pytest.mark.parametrize(
    ("site", "told"),
    [
        ({"status": "took part", "patients": 40}, "40"),
        ({"status": "took part"}, "<min"),
        ({"status": "dropped out"}, "<min"),
        ({"status": "refused", "reason": "minimum-count: fewer than 10 patients in the cohort"}, "<min"),
        ({"status": "refused", "reason": "declined: this site's administrator declined this campaign"}, "-"),
        ({"status": "refused", "reason": "not-approved: nobody has approved it yet"}, "-"),
        ({"status": "absent", "reason": "never online"}, "-"),
    ],
)
def test_a_site_that_never_said_how_many_patients_it_has_is_not_called_small(site: dict[str, Any], told: str) -> None:
    assert patients_told(SiteRecord.model_validate({"name": "north", **site})) == told
