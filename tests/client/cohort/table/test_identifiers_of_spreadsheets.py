"""Identifiers that a spreadsheet has changed on the way: never two patients read as one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.read import parse_labels
from fedage.common.errors import FedAgeError

CHANGED = ["1.23457E+11", "1E+15", "1,23E+12", "12-Mar", "3-Okt", "01.Dez"]
AS_THEY_ARE = ["1E5", "12E4", "MAR-01", "P1E+", "E+12", "12-Mars-3", "1.2", "DEC-001"]


@pytest.mark.parametrize("identifier", CHANGED)
def test_a_changed_one_is_refused_without_being_told(tmp_path: Path, identifier: str) -> None:
    (tmp_path / "t.csv").write_text(f'id;event\nP1;0\n"{identifier}";1\n')
    with pytest.raises(FedAgeError, match=r"column 'id'.* as text") as refused:
        read_outcomes(tmp_path / "t.csv", id_column="id")
    assert identifier not in str(refused.value).replace("(12-Mar)", "")
    with pytest.raises(FedAgeError, match="export the table again"):
        parse_labels(pd.Series(["P1", identifier], name="id"))


@pytest.mark.parametrize("identifier", AS_THEY_ARE)
def test_an_ordinary_one_is_kept(tmp_path: Path, identifier: str) -> None:
    (tmp_path / "t.csv").write_text(f'id;event\nP1;0\n"{identifier}";1\n')
    assert set(read_outcomes(tmp_path / "t.csv", id_column="id").values) == {"P1", identifier}
    assert parse_labels(pd.Series(["P1", identifier])).tolist() == ["P1", identifier]


@pytest.mark.parametrize("mark", ["#N/A", "#REF!", "#NAME?", "#DIV/0!", "#BEZUG!"])
def test_a_failed_formula_names_nobody(tmp_path: Path, mark: str) -> None:
    (tmp_path / "t.csv").write_text(f"id,event\nP1,0\n{mark},1\n{mark},0\n")
    found = read_outcomes(tmp_path / "t.csv", id_column="id")
    assert (set(found.values), found.rows_without_id) == ({"P1"}, 2)
    assert parse_labels(pd.Series(["P1", mark])).isna().tolist() == [False, True]
