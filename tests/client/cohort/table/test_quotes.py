"""A quotation mark that is not closed is refused by its line; a cell in quotes over several lines moves nobody."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedage.client.cohort.recipes._base import table as recipe_table
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.read import read_frame
from fedage.common.errors import FedAgeError

HEADER = "id,note,age"
STRAY = {
    "opens and never closes": (["a,x,40", 'b,"5 ft,41', "c,x,42", "d,x,43"], 3),
    "two in one column": (["a,x,40", 'b,"5 ft,41', 'c,"6 ft,42', "d,x,43"], 3),
    "two that are whole cells": (["a,x,40", 'b,",41', 'c,",42', "d,x,43"], 3),
    "before a legal cell in quotes": (['a,"5 ft,40', 'b,"north",41', "c,x,42"], 2),
    "after a legal cell over two lines": (['a,"north\nwest",40', 'b,"5 ft,41', "c,x,42"], 4),
    "in the last row": (["a,x,40", 'b,x,"41'], 3),
    "in the header's line": ([], 1),
    "text behind a cell in quotes": (['a,"he said "yes, no" to it",40', "b,x,41"], 2),
    "a first cell": (["a,x,40", '"b,x,41', "c,x,42"], 3),
}


def _frame(path: Path) -> list[tuple[str, float]]:
    frame = read_frame(path, text=["id"])
    return list(zip(frame["id"], frame["age"], strict=True))


def _outcomes(path: Path) -> list[tuple[str, float]]:
    return [(patient, row["age"]) for patient, row in read_outcomes(path, id_column="id").values.items()]


def _recipe(path: Path) -> list[tuple[str, float]]:
    frame = recipe_table(path.parent, path.name, ("id", "age"))
    return list(zip(frame["id"], map(float, frame["age"]), strict=True))


READERS: dict[str, Callable[[Path], list[tuple[str, float]]]] = {
    "site or simulation": _frame,
    "outcomes": _outcomes,
    "recipe": _recipe,
}


@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", STRAY)
def test_a_stray_mark_is_refused_by_its_line(tmp_path: Path, case: str, reader: str, ending: str) -> None:
    """Read on, the mark took the next patients into its cell."""
    rows, line = STRAY[case]
    header = HEADER if rows else 'id,"note,age'
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *(rows or ["a,x,40", "b,x,41"])]) + "\n", newline=ending)

    with pytest.raises(FedAgeError, match=rf"line {line} has a quotation mark"):
        READERS[reader](path)


LEGAL = {
    "a line break": ['a,"north\nwest",40', "b,x,41"],
    "an empty line inside": ['a,"north\n\n\nwest",40', "", "b,x,41"],
    "doubled marks and separators": ['a,"say ""yes"", twice",40', 'b,"""",41'],
    "a doubled mark at a line's end": ['a,"say ""\n"" no",40', 'b,"",41'],
    "all cells": ['"a","north","40"', '"b","x\ny","41"'],
    "a mark within a cell": ['a,5" ft,40', "b,x,41"],
    "several lines with separators": ['a,"one, two\nthree",40', "b,x,41"],
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", LEGAL)
def test_a_legal_cell_moves_nobody(tmp_path: Path, case: str, reader: str) -> None:
    """Both patients keep their own values."""
    path = tmp_path / "table.csv"
    path.write_text("\n".join([HEADER, *LEGAL[case]]) + "\n")

    assert READERS[reader](path) == [("a", 40.0), ("b", 41.0)]


@pytest.mark.parametrize(("separator", "before", "line"), [(";", "", 3), ("\t", "\n\n", 5), (";", "sep=;\n", 4)])
def test_lines_are_counted_as_an_editor_does(tmp_path: Path, separator: str, before: str, line: int) -> None:
    """Blank lines before the header and the line `sep=;` are counted; separators are the file's own."""
    path = tmp_path / ("table.tsv" if separator == "\t" else "table.csv")
    text = before + "\n".join([HEADER, "a,x,40", 'b,"x,41', "c,x,42"]).replace(",", separator) + "\n"
    if separator == ";" and not before:
        text = "sep=;\n" + text
        line += 1
    path.write_text(text)

    with pytest.raises(FedAgeError, match=rf"line {line} has"):
        read_frame(path, text=["id"])


def test_a_stray_mark_in_a_long_table_is_found_in_time(tmp_path: Path) -> None:
    """Each line is looked at once, whatever cell it may lie in."""
    path = tmp_path / "table.csv"
    rows = [f'{number},"x",{number % 90}' for number in range(200_000)]
    path.write_text("\n".join([HEADER, '0,"x,40', *[row.replace('"', "") for row in rows], *rows]))
    start = time.perf_counter()

    with pytest.raises(FedAgeError, match="line 2 has"):
        read_frame(path, text=["id"])

    assert time.perf_counter() - start < 20
