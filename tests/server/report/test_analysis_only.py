"""A campaign without an estimator: no empty sections on ages, and its own columns in titles and on the first screen."""

from typing import Any

import pytest

from fedage.common.analyses import registry
from fedage.common.analyses.groups._group_difference_shown import caption, group_difference
from fedage.common.analyses.survival import _cox_shown
from fedage.common.analyses.survival._kaplan_meier_shown import shown as curves_shown
from fedage.common.presentation.blocks import FigureBlock, Folded, TitledTable
from fedage.server.record.results import Results
from fedage.server.report import render_report
from fedage.server.report import summary as _summary


def coefficient(name: str, ratio: float, low: float, high: float) -> dict[str, Any]:
    return {"name": name, "coef": 0.1, "se": 0.1, "hazard_ratio": ratio, "ci95": [low, high]}


@pytest.fixture
def lung(values: dict[str, Any]) -> dict[str, Any]:
    kept = {key: values[key] for key in ("fedage_version", "flwr_version", "campaign", "run", "sites")}
    kept["campaign"].update(estimator="")
    for site in kept["sites"]:
        site["withheld"] = []
    curves = values["survival"]["kaplan_meier"] | {"column": "is_male", "split_years": 0.0}
    for group, name in zip(curves["groups"], ("female", "male"), strict=True):
        group["name"] = name
    models = [
        {
            "model": name,
            "stratified_by_site": name == "by-site",
            "events": 122,
            "sites": ["north", "south"],
            "covariates": [coefficient("age", 1.027, 1.004, 1.05), coefficient("sex", 0.636, 0.425, high)],
        }
        for name, high in (("by-site", 0.952), ("one-baseline", 1.2))
    ]
    return {**kept, "phantoms": False, "survival": {"cox": models, "kaplan_meier": curves}}


def test_the_first_model_is_on_the_first_screen_whatever_its_covariates(lung: dict[str, Any]) -> None:
    results = Results.model_validate(lung)
    said = _summary.sentences(results)
    assert "took part in a campaign that only analyses" in said[0]
    assert (
        "The Cox model by-site (each site its own baseline, 122 events) finds a hazard ratio of 1.027 per unit of age "
        "(95 % interval 1.004 to 1.050) and 0.636 per unit of sex (95 % interval 0.425 to 0.952)." in said
    )
    assert not any("predicted age" in sentence or "gap" in sentence for sentence in said)
    table = _cox_shown.first_hazards(results)
    assert table.name == "first-hazards"
    assert [(row[0].text, row[1].text, row[-1].text) for row in table.rows] == [
        ("by-site", "age", "2"),
        ("by-site", "sex", "2"),
    ]


def test_an_interval_around_one_is_said_by_name(lung: dict[str, Any]) -> None:
    lung["survival"]["cox"].reverse()
    said = " ".join(_summary.sentences(Results.model_validate(lung)))
    assert "one baseline for all sites, 122 events" in said
    assert "The interval of sex includes 1: no association is shown." in said


def test_a_model_without_a_result_says_why(lung: dict[str, Any]) -> None:
    lung["survival"]["cox"] = [{"model": "by-site", "not_computed": "every site withheld its contribution"}]
    said = _summary.sentences(Results.model_validate(lung))
    assert "What goes with follow-up is not known: every site withheld its contribution." in said


def test_titles_name_the_groups_of_the_column(lung: dict[str, Any]) -> None:
    html = render_report(Results.model_validate(lung))
    assert "Kaplan-Meier estimate for patients by is_male (female and male), with 95 % intervals" in html
    assert "<h3>Male against female</h3>" in html
    assert "<h2>Follow-up</h2>" in html
    follow_up = html.split('<section id="survival">')[1].split("</section>")[0]
    assert "gap" not in follow_up.replace("hazard ratio per unit (per year for gaps and age)", "")
    for section in ("learning", "ages", "gap", "planted"):
        assert f'<section id="{section}">' not in html


def test_one_curve_of_all_patients(lung: dict[str, Any]) -> None:
    curves = lung["survival"]["kaplan_meier"]
    curves.update(column=None, split_years=None, log_rank=None, groups=curves["groups"][:1])
    curves["groups"][0]["name"] = "all patients"
    section = curves_shown(Results.model_validate(lung)).sections[0]
    assert section.blocks[0].caption.startswith("Kaplan-Meier estimate for all patients, with")
    assert section.blocks[1].caption == "All patients"


def test_gaps_are_still_called_gaps(values: dict[str, Any]) -> None:
    section = curves_shown(Results.model_validate(values)).sections[0]
    assert section.blocks[0].caption.startswith(
        "Kaplan-Meier estimate for test patients with a high and a low corrected gap, split at 0.12 years"
    )
    assert section.blocks[1].caption == "High gap against low gap"
    assert section.heading == "Gap and follow-up"


def test_predictions_of_a_tables_own_keep_their_section(lung: dict[str, Any], values: dict[str, Any]) -> None:
    raw = values["evaluation"]["test"]["raw"]
    html = render_report(Results.model_validate({**lung, "evaluation": {"test": {"raw": raw}}}))
    assert '<section id="ages">' in html
    assert "after bias correction" not in html
    assert "Bias lines" not in html


def test_figures_by_age_say_that_they_are_of_everybody(values: dict[str, Any]) -> None:
    captions = captions_of(Results.model_validate(values))
    values["campaign"]["train_on"] = "healthy"
    healthy = captions_of(Results.model_validate(values))
    for figure in ("predicted-by-age", "gap-by-age"):
        assert captions[figure][0].startswith("All test patients by chronological age")
        assert healthy[figure][0].startswith("All test patients, healthy or not, by chronological age")
    assert captions["evaluation"][0].startswith("Test patients, raw")
    assert healthy["evaluation"][0].startswith("Healthy test patients, raw")
    assert healthy["evaluation"][-1].startswith("Healthy validation patients, raw")


def captions_of(results: Results) -> dict[str, list[str]]:
    """Captions of the figures and tables in each analysis' section, by analysis."""
    found: dict[str, list[str]] = {}
    for name, definition in registry.own().items():
        for section in definition.shown(results).sections:
            blocks = [
                inner for each in section.blocks for inner in (each.blocks if isinstance(each, Folded) else (each,))
            ]
            found[name] = [block.caption for block in blocks if isinstance(block, FigureBlock | TitledTable)]
    return found


def test_a_comparison_that_is_not_adjusted_is_not_called_so(values: dict[str, Any]) -> None:
    assert "all sites with site and age_years held fixed" in caption(Results.model_validate(values))
    values["groups"]["corrected"].update(adjusted=None, not_adjusted="age_years does not vary inside any site")
    results = Results.model_validate(values)
    assert "all sites with site held fixed" in caption(results)
    assert "It is not adjusted for age: age_years does not vary inside any site." in " ".join(
        _summary.sentences(results)
    )


@pytest.mark.parametrize(
    ("withheld", "held", "says"),
    [
        ((), "site and age_years, is_male", ""),
        (("is_male",), "site and age_years", "It is not adjusted for is_male, which is left out."),
        (("age_years",), "site and is_male", "It is not adjusted for age, which is left out."),
        (("age_years", "is_male"), "site", "It is not adjusted for age, is_male, which is left out."),
    ],
)
def test_what_sites_left_out_of_a_comparison_is_not_called_held_fixed(
    values: dict[str, Any], withheld: tuple[str, ...], held: str, says: str
) -> None:
    groups = values["groups"]
    groups["covariates"] = ["age_years", "is_male"]
    for compared in (groups["corrected"], groups["raw"]):
        compared["withheld_columns"] = list(withheld)
    results = Results.model_validate(values)
    assert f"all sites with {held} held fixed" in caption(results)
    said = " ".join(_summary.sentences(results))
    assert f"With {held.replace(' and', ',').replace('_years', '')} held fixed" in said
    assert says in said
    assert ("not adjusted" in said) == bool(says)
    adjusted = [row[1].text for row in group_difference(results).rows if row[0].text == "corrected"]
    assert adjusted == ([held.replace(" and", ",")] if held != "site" else []) + ["site"]


def test_a_caption_speaks_of_a_curve_only_beside_one(values: dict[str, Any]) -> None:
    curve = {"false_positive": [0.0, 1.0], "true_positive": [0.0, 1.0]}
    values["groups"]["corrected"]["roc"] = curve
    assert "Right: how well" in caption(Results.model_validate(values))
    values["groups"]["corrected"]["roc"] = None
    assert "Right:" not in caption(Results.model_validate(values))


def test_points_of_curves_fold_out_only_where_there_are_some(values: dict[str, Any]) -> None:
    def folded() -> list[str]:
        (section,) = curves_shown(Results.model_validate(values)).sections
        return [block.summary for block in section.blocks if isinstance(block, Folded)]

    assert folded() == ["Points of the curves"]
    values["survival"]["kaplan_meier"] = {"not_computed": "it needs table times"}
    assert folded() == []
