"""Role and audit head of each site, in the report and in a terminal, and whose figures the curves are."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest

from fedage.server.record.results import Results
from fedage.server.report import _tables, render_report
from fedage.server.report.site_text import HEADS, PURPOSE
from tests.server.report.test_sites_told import terminal

CURVES = "The figures by round are of the sites that train; "


@pytest.fixture
def deployed(values: dict[str, Any]) -> dict[str, Any]:
    """North trains, south only evaluates and gave no head, west is as it was."""
    north, south, _ = values["sites"]
    north["role"] = "training and evaluation"
    north["audit_head"] = {"sequence": 42, "hash": "3f0c9a1b22de" + "00" * 26, "time_utc": "2026-03-02T09:04:00Z"}
    south["role"] = "evaluation only"
    return values


def test_the_sites_table_tells_role_and_head_with_what_they_are_for(deployed: dict[str, Any]) -> None:
    results = Results.model_validate(deployed)
    table = _tables.sites(results)
    told = {row[0].text: dict(zip(table.headers, (cell.text for cell in row), strict=True)) for row in table.rows}
    assert [told[name]["role"] for name in ("north", "south", "west")] == [
        "training and evaluation",
        "evaluation only",
        "–",
    ]
    aside = _tables.set_aside(results)
    told = {row[0].text: dict(zip(aside.headers, (cell.text for cell in row), strict=True)) for row in aside.rows}
    assert [told[name]["audit log"] for name in ("north", "south", "west")] == ["line 42, 3f0c9a1b22de…", "–", "–"]
    html = unescape(render_report(results))
    assert html.count(PURPOSE) == 1
    assert PURPOSE in html.split('<section id="sites">')[1]


def test_the_terminal_tells_them_too(deployed: dict[str, Any]) -> None:
    shown = " ".join(line.strip() for line in terminal(Results.model_validate(deployed)).splitlines())
    assert f"Audit logs: north line 42, 3f0c9a1b22de…. {HEADS}" in shown
    assert "The role is" not in shown, "a terminal has no such column"
    assert "evaluation only" in re.sub(r"[│\s]+", " ", shown)


def test_a_simulation_has_neither(values: dict[str, Any]) -> None:
    for site in values["sites"]:
        site["role"] = "training and evaluation"
    results = Results.model_validate(values)
    assert {"role", "audit log"}.isdisjoint({*_tables.sites(results).headers, *_tables.set_aside(results).headers})
    assert PURPOSE not in unescape(render_report(results))
    assert "Audit logs" not in terminal(results)


@pytest.mark.parametrize(
    ("folds", "final"),
    [(None, "those of the last round, and the final figures, are of all"), (5, "the final figures are of all")],
)
def test_whose_figures_the_curves_are(deployed: dict[str, Any], folds: int | None, final: str) -> None:
    deployed["campaign"]["folds"] = folds
    html = unescape(render_report(Results.model_validate(deployed)))
    assert f"{CURVES}{final} sites that evaluate (south only evaluates)." in html
    deployed["sites"][1]["role"] = ""
    assert f"{CURVES}{final} sites that evaluate." in unescape(render_report(Results.model_validate(deployed)))
