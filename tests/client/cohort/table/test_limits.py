"""Tables larger than the limits are refused before they are read, whatever shape their first line has."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from fedage.client.cohort.bids import participants
from fedage.client.cohort.bids.participants import read_rows
from fedage.client.cohort.recipes._base import table
from fedage.client.cohort.table import _outcome_text, read
from fedage.client.cohort.table.limits import OUTCOMES, PARTICIPANTS, TABLE, first_line, require_bounded
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.read import read_frame
from fedage.common.errors import FedAgeError

MANY = 20_001
WIDE = {
    "plain": "\t".join(["participant_id", *(f"c{number}" for number in range(MANY - 1))]),
    "after blank lines": "\n  \n\r\n" + "\t".join(["participant_id"] * MANY),
    "after a carriage return": "\r" + "\t".join(["participant_id"] * MANY),
    "after a byte order mark and a blank line": "\ufeff\n" + "\t".join(["participant_id"] * MANY),
    "a line end in a name": '"participant\n_id"\t' + "\t".join(["a"] * (MANY - 1)),
    "doubled quotes": '"a""\n""b"\t' + "\t".join(["a"] * (MANY - 1)),
    "a name of 200,000 characters": f'"{"n" * 100_000}\n{"n" * 100_000}"\t' + "\t".join(["a"] * (MANY - 1)),
}


@pytest.mark.parametrize("name", WIDE)
def test_every_reader_counts_the_columns_first(tmp_path: Path, name: str) -> None:
    text = f"{WIDE[name]}\n1\n"
    (tmp_path / "wide.tsv").write_bytes(text.encode())
    (tmp_path / "wide.csv").write_bytes(text.replace("\t", ",").encode())
    began = time.process_time()
    with pytest.raises(FedAgeError, match=f"{MANY} columns; allowed are {PARTICIPANTS.columns}"):
        read_rows(tmp_path / "wide.tsv", key="participant_id")
    with pytest.raises(FedAgeError, match=f"{MANY} columns; allowed are {OUTCOMES.columns}"):
        read_outcomes(tmp_path / "wide.csv")
    for file in ("wide.csv", "wide.tsv"):
        with pytest.raises(FedAgeError, match=f"{MANY} columns; allowed are {TABLE.columns}"):
            read_frame(tmp_path / file)
    with pytest.raises(FedAgeError, match=f"{MANY} columns; allowed are"):
        table(tmp_path, "wide.csv", ("a",))
    assert time.process_time() - began < 5


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("before", ["", "{e}", "{e}  {e}{e}"])
def test_a_header_after_blank_lines_is_the_header(tmp_path: Path, ends: str, before: str) -> None:
    """It was read as a patient, under the names of the line before it."""
    text = before.format(e=ends) + f"id,age{ends}a,61{ends}b,62{ends}"
    (tmp_path / "t.csv").write_bytes(text.encode())
    frame = read_frame(tmp_path / "t.csv", text=["id"])
    assert frame.to_dict("list") == {"id": ["a", "b"], "age": [61, 62]}
    assert read_outcomes(tmp_path / "t.csv", id_column="id").values == {"a": {"age": 61.0}, "b": {"age": 62.0}}


def test_rows_cells_and_bytes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(TABLE, rows=1000, cells=5000, size_bytes=20_000)
    for module, name in ((read, "TABLE"), (_outcome_text, "OUTCOMES"), (participants, "PARTICIPANTS")):
        monkeypatch.setattr(module, name, few)

    def refused(text: str, *, why: str) -> None:
        for suffix, sign in ((".csv", ","), (".tsv", "\t")):
            (tmp_path / f"t{suffix}").write_bytes(text.replace(",", sign).encode())
        for suffix in (".csv", ".tsv"):
            with pytest.raises(FedAgeError, match=why):
                read_frame(tmp_path / f"t{suffix}")
            with pytest.raises(FedAgeError, match=why):
                read_outcomes(tmp_path / f"t{suffix}", id_column="id")
        with pytest.raises(FedAgeError, match=why):
            read_rows(tmp_path / "t.tsv", key="id")

    refused("id,x\n" + "1,2\n" * 1001, why="more than 1000 rows and 2 columns; allowed are 1000 rows")
    refused("id,x\r" + "1,2\r" * 1001, why="more than 1000 rows")
    refused("id,x\r\n" + "1,2\r\n" * 1001, why="more than 1000 rows")
    refused("id,a,b,c,d,e,f,g,h,i\n" + "1\n" * 501, why="more than 500 rows and 10 columns; .* 5000 cells")
    refused("id,x\n" + "1," + "2" * 30_000 + "\n", why="bytes; allowed are 20000: divide it")
    pd.DataFrame({"id": range(1001)}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(FedAgeError, match="1001 rows and 1 column; allowed are 1000 rows"):
        read_frame(tmp_path / "t.parquet")
    pd.DataFrame({"id": ["x" * 100 + str(k) for k in range(900)]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(FedAgeError, match="bytes; allowed are 20000"):
        read_frame(tmp_path / "t.parquet")
    for text in ("id,x\n" + "1,2\n" * 1000, "id,x\n" + "1,2\n" * 999 + "1,2"):
        (tmp_path / "t.csv").write_text(text)
        assert len(read_frame(tmp_path / "t.csv")) == 1000


def test_what_cannot_be_opened_is_for_its_reader_to_say(tmp_path: Path) -> None:
    assert require_bounded(tmp_path / "none.csv", TABLE).columns == 0
    (tmp_path / "broken.parquet").write_bytes(b"no footer")
    assert require_bounded(tmp_path / "broken.parquet", TABLE).columns == 0


def test_a_first_line_is_counted_as_its_reader_does(tmp_path: Path) -> None:
    for text, columns in (
        ("a,b", 2),
        ('"a,b",c\n1,2,3,4', 2),
        ('a",b,c"\n', 3),
        ('"a""b,c",d\n', 2),
        ("a;b;c\n", 3),
        ("", 1),
    ):
        (tmp_path / "t.csv").write_text(text)
        assert first_line(tmp_path / "t.csv", most_columns=10).columns == columns, text


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("name", "reading"),
    [
        ("o.csv", read_outcomes),
        ("t.csv", read_frame),
        ("t.parquet", read_frame),
        ("participants.tsv", lambda path: read_rows(path, key="participant_id")),
        ("r.csv", lambda path: table(path.parent, path.name, ("a",))),
    ],
)
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(
    tmp_path: Path, name: str, reading: Callable[[Path], object]
) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(FedAgeError, match="is a pipe, a socket or a device"):
        reading(tmp_path / name)
    with pytest.raises(FedAgeError, match="is a pipe, a socket or a device"):
        require_bounded(Path("/dev/null"), TABLE)
