"""A text that is damaged, cut off or begins otherwise than a table is refused with its cause, never read in part."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedage.client.cohort.bids.participants import read_rows
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.read import read_frame
from fedage.common.errors import FedAgeError

HEADER = "id,age,time_years"
ROWS = "p1,61.25,3.5\np2,70.5,4.25\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{HEADER}\np1,6\x001.25,3.5\n", 2),  # 61.25 would be 6
        (f"{HEADER}\n{ROWS}p\x003,61,4\n", 4),  # the patient would be another
        (f"\n{HEADER}\r\np1,61,3.5\r\np2,\x00,4\r\n", 4),
        (f"i\x00d,age\n{ROWS}", 1),
    ],
)
def test_a_byte_of_zero_is_refused_by_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    (tmp_path / "t.tsv").write_bytes(text.replace(",", "\t").encode())
    for refused in (
        lambda: read_frame(path, text=["id"]),
        lambda: read_outcomes(path, id_column="id"),
        lambda: read_rows(tmp_path / "t.tsv", key="id"),
    ):
        with pytest.raises(FedAgeError, match=f"line {line} has a byte of zero"):
            refused()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_another_encoding_is_said_to_be_one(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f"{HEADER}\n{ROWS}".encode(encoding))
    with pytest.raises(FedAgeError, match=r"no text in UTF-8, or is damaged; save it again as CSV in UTF-8"):
        read_frame(path)


@pytest.mark.parametrize("end", ["p3,6", "p3", "p3,61.2\r\np4", "# end of export"])
def test_a_last_row_that_is_cut_off_is_refused(tmp_path: Path, end: str) -> None:
    """Its last number may be a part of the one that was meant."""
    path = tmp_path / "t.csv"
    path.write_bytes(f"{HEADER}\n{ROWS}{end}".encode())
    for read in (lambda: read_frame(path, text=["id"]), lambda: read_outcomes(path, id_column="id")):
        with pytest.raises(FedAgeError, match="may have been cut off; copy it again, or complete that line"):
            read()


@pytest.mark.parametrize("end", ["p3,61.2,4", "p3,61.2,4\n", 'p3,61.2,"4"', "p3,,", "  ", "\r\n"])
def test_a_whole_last_row_needs_no_line_end(tmp_path: Path, end: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f"{HEADER}\n{ROWS}{end}".encode())
    assert len(read_frame(path, text=["id"])) == 2 + ("p3" in end)


@pytest.mark.parametrize("between", ["\n", "\r\n\r\n", "  \n\t\n"])
@pytest.mark.parametrize("says", ["sep=,", '"sep=,"', "SEP=,"])
def test_blank_lines_below_the_separator_make_no_header_a_patient(tmp_path: Path, between: str, says: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f"{says}\n{between}{HEADER}\n{ROWS}".encode())
    assert read_frame(path, text=["id"]).to_dict("list")["id"] == ["p1", "p2"]
    assert list(read_outcomes(path, id_column="id").values) == ["p1", "p2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty; give a table with a header"),
        (f"Registry export,,\n{HEADER},sex\np1,61,3.5,M\n", "remove a title above the header"),
        ("p1,61,3.5,61\np2,70,4.25,70\n", r"\(at places 2 and 4; its first line must hold the columns' names\)"),
        (
            f"{HEADER}\n{ROWS}".replace(",", "|"),
            r"and its name contains '\|': cells are separated by ',' in a .csv file",
        ),
        (f"sep=;\n{HEADER}\n{ROWS}", "cells are separated by ';' as its line 'sep=' says"),
    ],
    ids=["empty", "title", "no header", "bars", "another separator than said"],
)
def test_what_is_no_table_is_refused_with_its_cause(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FedAgeError, match=says):
        read_frame(tmp_path / "t.csv", text=["id"])
