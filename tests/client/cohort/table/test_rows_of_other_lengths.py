"""A row of fewer cells than the header has names is refused by its line: cells behind a missing separator move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fedage.client.cohort.recipes._base import table as recipe_table
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.read import read_frame
from fedage.common.errors import FedAgeError

HEADER = "id,note,age"
READERS: dict[str, Callable[[Path], object]] = {
    "site or simulation": lambda path: read_frame(path, text=["id"]),
    "outcomes": lambda path: read_outcomes(path, id_column="id"),
    "recipe": lambda path: recipe_table(path.parent, path.name, ("id", "age")),
}
SHORT = {
    "a missing separator": (["a,x,40", "b,41", "c,x,42"], "line 3 has"),
    "the first row": (["a,40", "b,x,41"], "line 2 has"),
    "an identifier alone": (["a,x,40", "b,x,41", "c", "d,x,43"], "line 4 has"),
    "after a blank line": (["a,x,40", "", "b,41", "c,x,42"], "line 4 has"),
    "a separator in quotes": (["a,x,40", 'b,"x,41"', "c,x,42"], "line 3 has"),
    "behind a cell over two lines": (['a,"x\ny",40', "b,41", "c,x,42"], "line 4 has"),
    "a cell over two lines": (["a,x,40", 'b,"x\n41"', "c,x,42"], "line 3 has"),
    "several": (["a,40", "b,x,41", "c,42", "d,x,43"], "lines 2, 4 have"),
    "many": ([*["a,40"] * 7, "d,x,43"], "lines 2, 3, 4, 5, 6 and 2 more have"),
}


@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", SHORT)
def test_rows_of_too_few_cells_are_refused_by_line(tmp_path: Path, case: str, reader: str, ending: str) -> None:
    rows, told = SHORT[case]
    path = tmp_path / "table.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n", newline=ending)
    with pytest.raises(FedAgeError, match=f"{told} fewer cells than the header has names") as refused:
        READERS[reader](path)
    assert "41" not in str(refused.value).removeprefix(str(path))


WHOLE = {
    "empty cells": ["a,,40", "b,x,", ",,"],
    "blank lines": ["a,x,40", "", "  ", "b,x,41", ""],
    "marks within cells": ['a,5" ft,40', 'b,6" ft,41', 'c,"x, y",42'],
    "a quoted cell of separators": ['a,",,",40', 'b,"x\n,,y",41'],
}


@pytest.mark.parametrize("reader", ["site or simulation", "recipe"])
@pytest.mark.parametrize("case", WHOLE)
def test_whole_rows_are_read(tmp_path: Path, case: str, reader: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join([HEADER, *WHOLE[case]]) + "\n")
    READERS[reader](path)


@pytest.mark.parametrize(("header", "row"), [("id,age,", "a,40"), ("id,age,,", "a,40,"), ('"id","age",', '"a",40')])
def test_blank_names_at_the_end_need_no_cell(tmp_path: Path, header: str, row: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"{header}\n{row}\n{row.replace('a', 'b', 1)}\n")
    assert read_frame(path, text=["id"])["age"].tolist() == [40, 40]
