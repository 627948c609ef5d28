"""Records at the edge: long names, wide ranges, one site, nothing computed. Pages are read as text here."""

import re
from typing import Any

import pytest

from fedage.common.analyses.survival._cox_figure import _MOST_TICKS, _ticks
from fedage.common.presentation.wording import shortened
from fedage.server.record.results import Results
from fedage.server.report.render import render_report

LONG = "st-elisabeth-universitaetsklinikum-mit-allen-aussenstellen-0123"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("gap: age_years", "gap: age_years"),
        ("x" * 32, "x" * 32),
        ("x" * 16 + "y" * 17, "x" * 16 + "…" + "y" * 15),
        (LONG, "st-elisabeth-uni…senstellen-0123"),
    ],
)
def test_labels_leave_a_figure_its_place(text: str, label: str) -> None:
    assert shortened(text) == label
    assert len(label) <= 32


@pytest.mark.parametrize(
    ("low", "high"), [(1e-8, 1400.0), (1e-300, 1e300), (1e-300, float("inf")), (0.5, 1e9), (1e-6, 1.0)]
)
def test_ticks_of_a_wide_range_are_few_and_inside(low: float, high: float) -> None:
    ticks = _ticks(low, high)
    assert 1.0 in ticks
    assert len(ticks) <= _MOST_TICKS + 3
    assert all(low <= tick <= high for tick in ticks)


def text_of(values: dict[str, Any]) -> str:
    html = render_report(Results.model_validate(values))
    return " ".join(re.sub(r"<[^>]+>", " ", html[html.index("<body>") :]).split())


def of_one_site(values: dict[str, Any]) -> dict[str, Any]:
    """The record as if north alone had answered."""
    for site in values["sites"][1:]:
        site.update(status="absent", patients=None, patients_by_part={}, withheld=[], troubles=[])
        site.update(dropped_out_in_round=None, reason="no answer before the deadline")
    for finished in values["rounds"]:
        finished["sites"] = ["north"]
        finished["validation_mae_years_by_site"] = {"north": finished["validation_mae_years"]}
    for part in values["evaluation"].values():
        for judged in part.values():
            judged["by_site"] = {"north": judged["by_site"]["north"]}
            judged["overall"] = judged["by_site"]["north"]
    return {**values, "bias": {"lines": {"north": values["bias"]["lines"]["north"]}}, "survival": None, "groups": None}


def test_of_one_site_nothing_is_said_of_sites_together(values: dict[str, Any]) -> None:
    told = text_of(of_one_site(values))
    assert "north (offered to south, west too) ·" in told
    assert "it was not trained on, at north, the only site that tells it. Right: the training loss." in told
    assert "The model loses to the mean age nowhere: it is at least as good at north." in told
    assert "the sites together" not in told
    assert "mean age of all sites" not in told
    assert "the sites together (bold) and at each site" in text_of(_fresh())


def _fresh() -> dict[str, Any]:
    from tests.server.report.conftest import example_values

    return example_values()


def test_groups_of_one_answering_site_are_not_called_all_sites(values: dict[str, Any]) -> None:
    assert "Difference of the gap, all sites" in text_of(values)
    for gap in ("corrected", "raw"):
        values["groups"][gap]["by_site"] = {"south": values["groups"][gap]["by_site"]["south"]}
    told = text_of({**values, "contributors": {"group-difference": ["south"], "group-difference:raw": ["south"]}})
    assert "Difference of the gap, south" in told
    assert "Difference of the gap, all sites" not in told


def test_a_section_without_content_is_one_reason_not_a_row_of_boxes(values: dict[str, Any]) -> None:
    for site in values["sites"]:
        site.update(status="absent", patients=None, patients_by_part={}, withheld=[], troubles=[])
    nothing = {"rounds": [], "evaluation": {}, "bias": {}, "figures": {}, "survival": None, "groups": None}
    told = text_of({**values, **nothing, "run": {**values["run"], "status": "failed", "reason": "no quorum"}})
    assert "Learning No round of training was finished. Predicted age No site released it." in told
    assert told.count("No site released it.") == 2
    for claim in ("A correction uses the true age", "Fitted on held-out", "Every round in numbers", "Validation pat"):
        assert claim not in told
    assert "none took part (offered to north, south, west too)" in told


def test_a_long_name_may_break_in_every_table_that_it_stands_in(values: dict[str, Any]) -> None:
    values["survival"]["cox"][0]["sites"] = ["north"]
    html = render_report(Results.model_validate(values))
    rows = re.findall(r'<table id="table-(?:gap-)?hazards">.*?</tr>\n<tr[^>]*>(.*?)</tr>', html, flags=re.DOTALL)
    places = [re.findall(r"<t[hd][^>]*>", row) for row in rows]
    heads = re.findall(r'<table id="table-(?:gap-)?hazards">\n<thead><tr>(.*?)</tr>', html, flags=re.DOTALL)
    assert [re.findall(r">([^<]+)</th>", head).index("sites") + 1 for head in heads] == [6, 9]
    assert all(places)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "#table-hazards td.number:nth-child(9), #table-gap-hazards td.number:nth-child(6)" in style
    assert ".purpose, h1 { overflow-wrap: anywhere; }" in style
