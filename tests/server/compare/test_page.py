"""The page draws the comparison: nothing loaded, phantoms said at every figure, the same bytes."""

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from fedage.common.errors import FedAgeError
from fedage.server.compare.cli import compare as compare_command
from fedage.server.compare.comparison import compare
from fedage.server.compare.page import render_comparison
from fedage.server.compare.runs import load_runs
from fedage.server.compare.table import print_comparison

PHANTOM, UNGUARDED = "Phantoms rendered by FedAge: images of nobody.", "Disclosure control was off."


def page(*folders) -> str:
    return render_comparison(compare(load_runs(folders)))


def figures(html: str) -> list[str]:
    return re.findall(r"<figure>.*?</figure>", html, flags=re.DOTALL)


def test_it_is_whole_and_loads_nothing(make_run) -> None:
    html = page(make_run("a"), make_run("b", mae=5.0))
    assert html.count("<svg") == 3
    assert "Traceback" not in html
    assert not re.search(r"<script|<link|<img|@import|src=|https?://(?!www\.w3\.org)", html)
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:url\(#|href="#)([^")]+)', html):
        assert reference in ids


def test_every_run_is_in_every_figure(make_run) -> None:
    html = page(make_run("first-run", mae=4.0), make_run("second-run", mae=5.0))
    for figure in figures(html):
        drawn = re.sub(r'aria-label="[^"]*"|<title>.*?</title>', "", figure, flags=re.DOTALL)
        assert "first-run" in drawn
        assert "second-run" in drawn
    assert 'data-value="4.0"' in html
    assert "first-run ends at 5.00 years; second-run ends at 6.00 years" in html


def test_the_same_runs_give_the_same_bytes(make_run) -> None:
    folders = make_run("a"), make_run("b", mae=5.0)
    assert page(*folders) == page(*folders)


def test_phantoms_and_a_guard_that_was_off_are_said_at_every_figure_that_shows_them(make_run, edit) -> None:
    honest, phantom, bare = make_run("honest"), make_run("phantom", phantoms=True, rounds=0), make_run("bare")
    edit(bare, run={"guard": False})
    plain = page(honest, make_run("other"))
    assert PHANTOM not in plain
    assert UNGUARDED not in plain
    assert 'role="note"' not in plain
    html = page(honest, phantom)
    assert "Images in phantom are phantoms rendered by FedAge" in html
    errors, sites, rounds = figures(html)
    assert PHANTOM in errors
    assert PHANTOM in sites
    assert PHANTOM not in rounds  # the phantoms' run has no round to draw
    assert "Not drawn, because the record does not have it: phantom." in rounds
    html = page(honest, bare)
    assert "Disclosure control was switched off in bare" in html
    assert all(UNGUARDED in figure for figure in figures(html))


def test_a_figure_that_no_run_has_is_said(make_run, edit) -> None:
    folders = [make_run("a", rounds=0), make_run("b", rounds=0)]
    for folder in folders:
        edit(folder, figures={"error_curve_raw": None, "error_curve_corrected": None}, survival=None)
    html = page(*folders)
    assert html.count("<svg") == 1
    assert "No figure: no run has an error by round." in html
    assert "No figure: no run has a cumulative score curve." in html
    assert 'id="survival"' not in html


def test_names_are_text_not_markup(make_run) -> None:
    html = page(make_run("<b>bold $x$ [red]"), make_run("b"))
    assert "<b>" not in html
    assert "&lt;b&gt;" in html


@pytest.mark.parametrize("count", [7, 14])
def test_many_runs_keep_looks_of_their_own(make_run, count: int) -> None:
    from fedage.common.presentation.looks import PlotStyle

    assert len({(look.colour, str(look.dash), look.marker) for look in map(PlotStyle.of, range(36))}) == 36
    html = page(*(make_run(f"run-{k:02d}", mae=4 + k / 10) for k in range(count)))
    assert all(f"run-{count - 1:02d}</" in figure for figure in figures(html))


def test_losses_to_a_mean_are_on_the_first_screen_and_marked(make_run, edit) -> None:
    a = make_run("a")
    found = {"n": 60, "mae_years": 3.0, "mae_of_mean_years": 5.0, "mae_of_site_mean_years": 2.0}
    raw = {"overall": found, "by_site": {"north": found}}
    edit(a, evaluation={"test": {"raw": raw, "corrected": raw}})
    html = page(a, make_run("b"))
    assert "<li>a loses to the site&#39;s own mean at north.</li>" in html
    assert '<td class="number bad" data-value="3.0">3.00*</td>' in html
    assert '<td class="bad">its own mean</td>' in html


@pytest.mark.parametrize(("out", "written"), [("cmp", "cmp.html"), ("a b", "a b.html"), ("x.html", "x.html")])
def test_the_page_is_a_file_that_a_browser_opens(make_run, tmp_path: Path, out: str, written: str) -> None:
    compare_command([make_run("a"), make_run("b")], out=tmp_path / out)
    assert (tmp_path / written).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not (tmp_path / "cmp").exists()


@pytest.mark.parametrize("out", ["cmp.json", "cmp.txt", "results.v2"])
def test_a_page_under_another_suffix_is_refused(make_run, tmp_path: Path, out: str) -> None:
    with pytest.raises(FedAgeError, match=r"its name ends in \.html"):
        compare_command([make_run("a"), make_run("b")], out=tmp_path / out)
    assert not (tmp_path / out).exists()


def test_a_share_that_a_run_has_bounds_of_is_shown_as_them(make_run, edit) -> None:
    told, bounds = make_run("told"), make_run("bounds")
    values = json.loads((bounds / "results.json").read_text())
    values["evaluation"]["test"]["raw"]["overall"] |= {"cs_5": None, "cs_5_low": 0.5, "cs_5_high": 0.9}
    edit(bounds, evaluation=values["evaluation"])
    console = Console(record=True, width=240)
    print_comparison(compare(load_runs([told, bounds])), console=console)
    for text in (page(told, bounds), console.export_text()):
        assert "50.0 % to 90.0 %" in text
        assert "70.0 %" in text
        assert "None" not in text
