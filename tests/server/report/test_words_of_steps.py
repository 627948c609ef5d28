"""The first screen speaks of steps in words, a section of its own steps only, and one site of no mean of all sites."""

from typing import Any

import pytest

from fedage.common.analyses.evaluation._metrics_shown import evaluation, headline
from fedage.common.analyses.evaluation.predicted_sd import ANALYSIS, NORMAL_SHARES, WITHIN_SDS, PredictedSDs
from fedage.common.analyses.evaluation.results import evaluation as evaluation_of
from fedage.common.analyses.survival._cox_shown import not_computed
from fedage.common.presentation.blocks import Display, Paragraph, Section
from fedage.server.record.results import Results
from fedage.server.report import render_report
from fedage.server.report.shown import notes_text
from fedage.server.report.withheld_text import sections_of


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ("cox:gap: it did not converge", "The Cox model gap: it did not converge"),
        ("cox:gap-unstratified: two", "The Cox model gap-unstratified: two"),
        ("kaplan-meier: no table times", "The Kaplan-Meier estimate: no table times"),
        ("somebodys:step: as it is", "somebodys:step: as it is"),
        ("Nothing of a step.", "Nothing of a step."),
    ],
)
def test_notes_begin_with_words(values: dict[str, Any], note: str, words: str) -> None:
    assert notes_text(Results.model_validate({**values, "notes": [note]})) == [words]


def test_a_section_tells_the_columns_withheld_from_its_own_steps(values: dict[str, Any]) -> None:
    values["groups"]["corrected"]["withheld_columns"] = ["smoker"]
    values["survival"]["cox"][0]["withheld_columns"] = ["education"]
    results = Results.model_validate(values)
    told = {}
    for step in ("cox:gap", "groups:gap", "kaplan-meier"):
        display = Display(sections=(Section("one", "One", (Paragraph("of it"),), withheld=(step,)),))
        (section,) = sections_of(results, [display])
        told[step] = " ".join(block.text for block in section.blocks if isinstance(block, Paragraph))
    assert ("education" in told["cox:gap"], "smoker" in told["cox:gap"]) == (True, False)
    assert ("education" in told["groups:gap"], "smoker" in told["groups:gap"]) == (False, True)
    assert "without" not in told["kaplan-meier"]


def test_the_mean_of_one_site_is_not_called_that_of_all(values: dict[str, Any]) -> None:
    assert "the mean of all sites" in headline(Results.model_validate(values)).headers
    for part in values["evaluation"].values():
        for judged in part.values():
            judged["by_site"] = {"north": {**judged["by_site"]["north"], "mae_of_mean_years": 0.1}}
    results = Results.model_validate(values)
    found = headline(results)
    assert "the mean of all sites" not in found.headers
    assert "the mean age" in found.headers
    assert not any("all sites" in cell.text for cell in found.rows[0])
    each = evaluation("raw", results, evaluation_of(results).test.raw, step="evaluation:test")
    assert "the mean of all sites" not in each.headers


def test_a_reason_of_several_models_is_given_once(values: dict[str, Any]) -> None:
    reasons = ("no column is left.", "no column is left", "", "too few events")
    cox = values["survival"]["cox"]
    cox[:] = [
        {"model": model["model"], "not_computed": why} if why else model
        for model, why in zip(cox, reasons, strict=False)
    ]
    assert not_computed(Results.model_validate(values)) == [
        "gap and gap-unstratified are not computed: no column is left.",
        "true-gap is not computed: too few events.",
    ]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.70, 0.70, "70 % are within 1 (68 % if errors were normal)"),
        (0.70, 0.80, "70 % to 80 % are within 1 (68 % if errors were normal)"),
        (None, None, "an unknown share is within 1 (68 % if errors were normal)"),
    ],
)
def test_the_report_says_how_true_a_predicted_sd_is(
    values: dict[str, Any], low: float | None, high: float | None, words: str
) -> None:
    within = PredictedSDs(
        n=90,
        mean_sd_years=6.6,
        within_sds=WITHIN_SDS,
        share_low=(low, 0.98, 1.0),
        share_high=(high, 0.98, 1.0),
        normal_shares=NORMAL_SHARES,
    )
    values["analyses"] = {
        "predicted-sd": {"analysis": "predicted-sd", "sites": ["north"], "result": within.model_dump(mode="json")}
    }
    results = Results.model_validate(values)
    (sentence,) = ANALYSIS.shown(results).sentences
    assert sentence == f"The model states an SD of 6.6 years on average; of the errors, {words} SD and {_TWO}."
    if low == high is not None:
        assert sentence in render_report(results)


_TWO = "98 % are within 2 (95 % if errors were normal) SDs"
