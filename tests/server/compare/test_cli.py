"""`fedage compare` as typed."""

import json
from pathlib import Path

import pytest

from fedage.deploy.cli import main
from fedage.server.compare.comparison import Comparison


@pytest.fixture
def fedage(monkeypatch, capsys, tmp_path):
    """Run the command line in an empty folder; returns status, stdout, stderr."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fedage", *map(str, words)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def test_a_table_and_a_page(fedage, make_run) -> None:
    status, out, err = fedage("compare", make_run("a", phantoms=True), make_run("b[red]", mae=5.25, strategy="fedprox"))
    assert (status, err) == (0, "")
    for said in (
        "b[red]",
        "fedprox",
        "5.25",
        "HR per de Lange year",
        "1.110 (1.060–1.160)",
        "north",
        "phantoms",
        "curves: compare.html",
    ):
        assert said in out
    assert Path("compare.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_is_one_document_and_nothing_else(fedage, make_run) -> None:
    a, b = make_run("a", phantoms=True), make_run("b", mae=5.0)
    status, out, err = fedage("compare", a, b, "--json")
    assert (status, err) == (0, "")
    values = json.loads(out)
    assert [run["mae_years_raw"] for run in values["runs"]] == [4.0, 5.0]
    assert values["runs"][0]["phantoms"] is True
    Comparison.model_validate(values)
    assert list(Path().iterdir()) == []
    status, again, _ = fedage("compare", a, b, "--json", "--out", "page.html")
    assert (status, again) == (0, out)
    assert [file.name for file in Path().iterdir()] == ["page.html"]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_missing_run_is_one_line_and_status_2(fedage, make_run, as_json: bool) -> None:
    status, out, err = fedage("compare", make_run("a"), "nowhere", *(["--json"] if as_json else []))
    assert (status, out) == (2, "")
    assert err == "fedage: nowhere does not exist; give the folder of a run, or its results.json\n"
    assert list(Path().iterdir()) == []


def test_a_page_that_cannot_be_written_is_one_line(fedage, make_run) -> None:
    status, _, err = fedage("compare", make_run("a"), make_run("b"), "--out", "no/such/folder.html")
    assert status == 2
    assert err.count("\n") == 1
    assert "cannot be written (No such file or directory)" in err
