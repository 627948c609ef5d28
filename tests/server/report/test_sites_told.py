"""Where a model loses to a mean and who withheld what: the report, and the end of a run in a terminal, say the same."""

import io
from html import unescape
from typing import Any

import pytest
from rich.console import Console

from fedage.common.analyses.evaluation import _metrics_shown as _evaluation_shown
from fedage.common.analyses.evaluation import errors_text
from fedage.common.analyses.evaluation.results import Metrics
from fedage.server.cli.summary import print_summary
from fedage.server.record.results import Results
from fedage.server.report import _tables, render_report, withheld_text


def metrics(mae: float | None, pooled: float | None, own: float | None) -> dict[str, Any]:
    return {"n": 20, "mae_years": mae, "mae_of_mean_years": pooled, "mae_of_site_mean_years": own}


def with_errors(values: dict[str, Any], **by_site: dict[str, Any]) -> Results:
    values["evaluation"]["test"]["raw"] = {"overall": metrics(3.0, 5.0, 4.0), "by_site": by_site}
    return Results.model_validate(values)


def terminal(results: Results, *, markup: bool = False, width: int = 80) -> str:
    """In 80 columns; the commands' consoles know no markup."""
    console = Console(width=width, file=io.StringIO(), markup=markup)
    print_summary(results, console=console)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("mae", "pooled", "own", "lost"),
    [
        (2.0, 3.0, 3.0, ()),
        (2.0, 2.0, 2.0, ()),
        (2.5, 3.0, 2.0, ("its own mean",)),
        (2.5, 2.0, 3.0, ("the mean of all sites",)),
        (4.0, 3.0, 2.0, ("its own mean", "the mean of all sites")),
        (None, 3.0, 2.0, ()),
        (2.5, None, None, ()),
    ],
)
def test_which_means_do_better(mae: float, pooled: float, own: float, lost: tuple[str, ...]) -> None:
    assert errors_text.loses_to(Metrics.model_validate(metrics(mae, pooled, own))) == lost


def test_of_a_lower_bound_no_loss_is_claimed(values: dict[str, Any]) -> None:
    """A mean that misses by at least 2.0 may do better than 2.5 or not; one that misses by at least 3.0 does not."""
    bound = {"mae_of_mean_at_least": True}
    results = with_errors(
        values, north=metrics(2.5, 2.0, 2.1) | bound, south=metrics(2.5, 3.0, 4.0) | bound, west=metrics(2.0, 1.5, 3.0)
    )
    (said,) = errors_text.sentences(results)
    assert "loses to the mean age of all sites at west (2.00 against 1.50 years), not at the other one." in said
    assert (
        "Whether it loses to the mean age of all sites at north (2.50 against at least 2.00 years) is not kno" in said
    )
    table = _evaluation_shown.headline(results)
    shown = {row[0].text: (row[-4].text, row[-2].text, row[-2].mark) for row in table.rows}
    assert shown["north"] == ("≥ 2.00", "its own mean and perhaps the mean of all sites", "bad")
    assert shown["south"] == ("≥ 3.00", "neither", "")
    assert shown["west"] == ("1.50", "the mean of all sites", "bad")
    assert errors_text.AT_LEAST in table.note
    lines = terminal(results)
    assert "≥2.00 " in lines
    assert "≥2.00*" not in lines
    assert "fewer than the minimum count" in " ".join(lines.split())
    assert "≥ 2.00" in render_report(results)


def test_losses_are_said_with_their_numbers_and_marked(values: dict[str, Any]) -> None:
    results = with_errors(
        values, north=metrics(1.52, 6.38, 1.06), south=metrics(2.0, 4.0, 5.0), west=metrics(9.0, 8.0, 7.5)
    )
    (said,) = errors_text.sentences(results)
    assert "loses to the mean age of all sites at west (9.00 against 8.00 years), not at the other 2." in said
    assert "own mean age at north (1.52 against 1.06 years) and west (9.00 against 7.50 years), not at" in said
    marked = {row[0].text: (row[-2].text, row[-2].mark) for row in _evaluation_shown.headline(results).rows}
    assert marked == {
        "north": ("its own mean", "bad"),
        "south": ("neither", ""),
        "west": ("its own mean and the mean of all sites", "bad"),
        "all sites": ("neither", ""),
    }
    html = render_report(results)
    assert said in unescape(html)
    assert '<td class="bad">its own mean</td>' in html
    shown = terminal(results)
    assert "1.06*" in shown
    assert "8.00*" in shown
    assert "4.00*" not in shown
    assert "* is less than" in shown
    assert "…" not in shown  # nothing cut off in 80 columns
    assert said in " ".join(line.strip() for line in shown.splitlines())


@pytest.mark.parametrize("markup", [False, True])
def test_what_a_site_says_is_text_and_not_markup(values: dict[str, Any], markup: bool) -> None:
    values["sites"][0].update(name="[red]n", troubles=["[bold]late[/bold]"])
    values["survival"]["cox"][0]["model"] = "a[b]"
    results = with_errors(values, **{"[red]n": metrics(3.0, 2.0, 1.0)})
    shown = terminal(results, markup=markup)
    assert "[red]n: [bold]late[/bold]" in shown
    assert "│ [red]n" in shown
    assert "[red]1.00" not in shown
    assert "1.00*" in shown
    assert "a[b]" in shown
    assert "\\[" not in shown


def test_no_loss_is_said_too(values: dict[str, Any]) -> None:
    results = with_errors(values, a=metrics(1, 2, None), b=metrics(2, 3, None))
    (said,) = errors_text.sentences(results)
    assert "* is less than" not in terminal(results), "no figure has the star"
    assert (
        said == "The model loses to the mean age of all sites nowhere: it is at least as good at every one of 2 sites."
    )
    assert errors_text.sentences(with_errors(values, a=metrics(1, None, None))) == []


def test_folds_are_said_in_the_terminal(values: dict[str, Any]) -> None:
    assert "folds" not in terminal(Results.model_validate(values))
    values["campaign"]["folds"] = 5
    assert "With 5 folds: each patient is predicted by the model" in terminal(Results.model_validate(values))


@pytest.fixture
def small(values: dict[str, Any]) -> dict[str, Any]:
    """Two sites that withhold, for two reasons, and one that refused."""
    few, none = "minimum-count: fewer than 3 with an event", "minimum-count: fewer than 3 without"
    north, south, west = values["sites"]
    north["withheld"] = [{"step": "cox:gap", "reason": few}]
    south["withheld"] = [{"step": "cox:gap", "reason": none}, {"step": "kaplan-meier", "reason": none}]
    west.update(status="took part", dropped_out_in_round=None, reason="", troubles=[])
    west["withheld"] = [{"step": "cox:gap", "reason": few}, {"step": "groups:gap", "reason": few}]
    values["sites"].append({"name": "tiny", "status": "refused", "reason": "minimum-count: fewer than 3 patients"})
    values["survival"]["cox"][0]["sites"] = ["east"]
    values["survival"]["kaplan_meier"]["sites"] = ["north", "west"]
    return values


def test_who_withheld_what_and_why_is_said_in_full(small: dict[str, Any]) -> None:
    results = Results.model_validate(small)
    said = withheld_text.in_full(results)
    assert said == [
        "The Cox model gap is that of east alone, 1 of 3 sites, and pools nothing; withheld by north and west: "
        "minimum-count: fewer than 3 with an event; by south: minimum-count: fewer than 3 without.",
        "The comparison of groups by corrected gap: withheld by west: minimum-count: fewer than 3 with an event.",
        "The Kaplan-Meier estimate rests on 2 of 3 sites; withheld by south: minimum-count: fewer than 3 without.",
        "tiny took no part: minimum-count: fewer than 3 patients.",
    ]
    shown = " ".join(line.strip() for line in terminal(results).splitlines())
    assert all(sentence in shown for sentence in said)


def test_the_report_says_it_on_the_first_screen_at_the_figures_and_under_sites(small: dict[str, Any]) -> None:
    results = Results.model_validate(small)
    html = render_report(results)
    first, rest = html.split('<section id="run">')
    for said in withheld_text.in_short(results):
        assert said in first
    said = "The Cox model gap is that of east alone, 1 of 3 sites, and pools nothing; north, south and west withheld"
    assert said in first
    # The sentence of its hazard ratio and its row say it as well.
    assert "gap: of east alone, so nothing is pooled" in first
    assert "1 (only east)" in first
    assert "gap, by site; east alone, nothing pooled" in " ".join(
        cell.strip() for cell in terminal(results, width=200).replace("│", " ").split("  ")
    )
    follow_up = rest.split('<section id="survival">')[1].split("</section>")[0]
    assert "withheld by north and west: minimum-count" in follow_up
    assert "comparison of groups" not in follow_up
    assert "high and a low corrected gap, split at 0.12 years at 2 sites" in follow_up
    rows = [[cell.text for cell in row] for row in _tables.withheld(results).rows]
    assert rows[0] == [
        "cox:gap",
        "1 of 3 sites, east alone",
        "north, west",
        "minimum-count: fewer than 3 with an event",
    ]
    assert len(rows) == 4


def test_a_result_of_nobody_is_no_result(small: dict[str, Any]) -> None:
    small["survival"]["cox"][0].update(sites=[], covariates=[], not_computed="every site withheld its contribution")
    said = withheld_text.in_full(Results.model_validate(small))
    assert said[0].startswith("The Cox model gap has no result; withheld by north and west: minimum-count")


def test_one_set_of_sites_is_told_once(small: dict[str, Any]) -> None:
    for model in small["survival"]["cox"]:
        model["sites"] = ["east"]
    for site in small["sites"][:3]:
        site["withheld"] = [{"step": f"cox:{name}", "reason": "r"} for name in ("gap", "cole-gap")]
    first, *rest = withheld_text.in_short(Results.model_validate(small))
    assert first.startswith(
        "The Cox model cole-gap and the Cox model gap are those of east alone, 1 of 3 sites, and pool nothing; north, "
    )
    assert rest == ["tiny took no part: minimum-count: fewer than 3 patients."]


def test_a_terminal_gives_the_reason_of_a_refused_model_in_one_sentence_under_the_table(values: dict[str, Any]) -> None:
    model = values["survival"]["cox"][0]
    model.update(
        covariates=[], not_computed="the sites share no column: a reason [longer] than a cell of numbers is wide"
    )
    shown = terminal(Results.model_validate(values), width=100)
    row = next(line for line in shown.splitlines() if "not computed" in line)
    assert row.startswith("│")
    assert "share no column" not in row
    assert f"{model['model']} is not computed: the sites share no column: a reason [longer] than" in " ".join(
        shown.split()
    )
