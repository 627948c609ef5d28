"""Sites, identifiers and first lines of tables are read as what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.table.sites import read_site_tables
from tests.client.cohort.table.tables import campaign, read

SEPARATOR_LINES = {
    "sep=,": ",",
    "sep=;": ";",
    '"sep=;"': ";",
    '"sep=,"': ",",
    "SEP=\t": "\t",
    "sep=|": "|",
    "sep=;;;;;;;;": ";",
}


@pytest.mark.parametrize("line", SEPARATOR_LINES)
@pytest.mark.parametrize("begins", ["", "\ufeff", "\r\n"], ids=["plain", "mark of UTF-8", "blank line"])
def test_excel_s_first_line_is_read_as_what_it_is(frame: pd.DataFrame, tmp_path: Path, line: str, begins: str) -> None:
    expected = read(frame, tmp_path)
    text = frame.to_csv(index=False, sep=SEPARATOR_LINES[line], lineterminator="\r\n")
    (tmp_path / "t.csv").write_text(f"{begins}{line}\r\n{text}", encoding="utf-8", newline="")
    found = read_site_tables(tmp_path / "t.csv", campaign(), site_column="site")
    assert found.messages == []
    assert {name: table.snapshot for name, table in found.sites.items()} == {
        name: table.snapshot for name, table in expected.sites.items()
    }


@pytest.mark.parametrize(
    ("title", "name"),
    [("NA", "na"), ("None", "none"), ("null", "null"), ("nan", "nan"), ("1e5", "1e5"), ("007", "007"),
     ("True", "true"), ("N/A", "n-a"), ("-", "site"), ("1.0", "1-0"), ("<NA>", "na"), ("inf", "inf")],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_a_site_keeps_its_name(frame: pd.DataFrame, tmp_path: Path, title: str, name: str, suffix: str) -> None:
    frame.loc[frame["site"] == "b", "site"] = title
    path = tmp_path / f"t.{suffix}"
    numbers = frame.astype({"area": float, "other": float, "status": int, "age": float})
    if suffix == "parquet":
        numbers.to_parquet(path)
    else:
        numbers.to_csv(path, index=False, sep="," if suffix == "csv" else "\t")
    found = read_site_tables(path, campaign(), site_column="site")
    assert sorted(found.sites) == sorted(["a", name])
    assert found.sites[name].split_uniform.size == 20
    assert all(line.startswith("site ") for line in found.messages)


def test_sites_that_are_numbers_keep_their_zeros(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["site"] = ["007"] * 20 + ["7"] * 20
    assert sorted(read(frame, tmp_path).sites) == ["007", "7"]


@pytest.mark.parametrize(
    ("here", "there", "differ"),
    [("00010", "10", 1), ("P007", "P7", 1), ("0", "000", 1), ("00010", "00010", 0), ("10", "100", 0), ("A1", "A-1", 0)],
)
def test_identifiers_that_differ_in_zeros_are_neither_joined_nor_lost(
    frame: pd.DataFrame, tmp_path: Path, here: str, there: str, differ: int
) -> None:
    frame.loc[3, "who"], frame.loc[27, "who"] = here, there
    for site, rows in frame.groupby("site"):
        (tmp_path / str(site)).mkdir()
        rows.drop(columns="site").to_csv(tmp_path / str(site) / "t.csv", index=False)
    found = read_site_tables(tmp_path, campaign(), site_column=None)
    assert found.sites["b"].split_uniform.size == (19 if here == there else 20)
    assert found.sites["b"].rejected.get("kept-identifier-differs-in-zeros", 0) == differ
    said = "b: 1 row of a patient whose identifier differs from an earlier one in leading zeros only"
    assert any(line.startswith(said) for line in found.messages) is bool(differ)
    assert not any(here in line.replace("00010 and 10", "") for line in found.messages)


def test_numbers_in_parquet_and_texts_in_csv_are_compared_as_texts(frame: pd.DataFrame, tmp_path: Path) -> None:
    plain = frame.drop(columns=["site", "other", "status"]).astype({"area": float, "age": float})
    for site in ("a", "b"):
        (tmp_path / site).mkdir()
    plain[:20].assign(who=[f"{number:05}" for number in range(20)]).to_csv(tmp_path / "a" / "t.csv", index=False)
    plain[20:].assign(who=np.arange(20)).to_parquet(tmp_path / "b" / "t.parquet")
    found = read_site_tables(tmp_path, campaign(), site_column=None)
    assert found.sites["b"].rejected == {"kept-identifier-differs-in-zeros": 20}
    assert found.sites["b"].split_uniform.size == 20
