"""Identifiers and names of sites that are nearly alike are counted and said, and nobody is named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.sites import SiteTables, read_site_tables
from fedage.common.campaign_file import parse_campaign

CAMPAIGN = """
[campaign]
name = "tables"
purpose = "Try what a table may hold"
seed = 1

[estimator]
name = "table-ridge"
[estimator.options]
features = ["*"]

[table]
id = "who"
age = "age"
"""
ALIKE = {
    "capitals": ("Pat-x", "pat-X"),
    "a zero-width character": ("Pat-x", "Pat-x\u200b"),
    "a mark of byte order": ("\ufeffPat-x", "Pat-x"),
    "a blank that does not break": ("Pat x", "Pat\u00a0x"),
    "two blanks": ("Pat x", "Pat  x"),
    "wide letters": ("Pat-x", "\uff30at-x"),
}


def read(folder: Path, ids: list[str], sites: list[str]) -> SiteTables:
    path = folder / "t.csv"
    ages = [40.5 + at for at in range(len(ids))]
    pd.DataFrame({"who": ids, "site": sites, "age": ages, "thick": ages}).to_csv(path, index=False)
    return read_site_tables(path, parse_campaign(CAMPAIGN), site_column="site")


@pytest.mark.parametrize("case", ALIKE)
def test_identifiers_that_look_alike_are_counted(tmp_path: Path, case: str) -> None:
    found = read(tmp_path, ["p1", ALIKE[case][0], "p3", ALIKE[case][1]], ["a", "a", "b", "b"])
    (line,) = found.messages
    assert line.startswith("b: 1 row of a patient whose identifier differs from an earlier one in capitals, blanks")
    assert "Pat" not in line
    assert sum(table.split_uniform.size for table in found.sites.values()) == 4


@pytest.mark.parametrize("case", ALIKE)
def test_identifiers_of_outcomes_are_counted_too(tmp_path: Path, case: str) -> None:
    path = tmp_path / "outcomes.csv"
    pd.DataFrame({"who": ["p1", *ALIKE[case]], "x": [1, 2, 3]}).to_csv(path, index=False)
    assert read_outcomes(path, id_column="who").counts()["identifiers-differ-in-writing"] == 1


@pytest.mark.parametrize(
    ("names", "sites", "told"),
    [
        (("10", "10.0", "11", "11"), 2, 'written with and without ".0" (10.0 and 10), read as one site'),
        (("10", "00010", "11", "11"), 3, "differing from another in leading zeros only, counted as a separate site"),
        (("Nord", "nord", "x", "x"), 3, "differing from another in capitals, blanks or invisible characters"),
        (("Nord", "Nord\u200b", "x", "x"), 3, "differing from another in capitals, blanks or invisible characters"),
    ],
)
def test_names_of_sites_that_look_alike_are_counted(
    tmp_path: Path, names: tuple[str, ...], sites: int, told: str
) -> None:
    found = read(tmp_path, ["p1", "p2", "p3", "p4"], list(names))
    assert len(found.sites) == sites
    lines = [line for line in found.messages if line.startswith("1 name of sites in column 'site' ")]
    assert len(lines) == 1
    assert told in lines[0]


def test_names_of_folders_are_compared(tmp_path: Path) -> None:
    for at, name in enumerate(("10", "010")):
        (tmp_path / name).mkdir()
        pd.DataFrame({"who": [f"p{at}", f"q{at}"], "age": [40, 50], "x": [1.0, 2.0]}).to_csv(
            tmp_path / name / "t.csv", index=False
        )
    found = read_site_tables(tmp_path, parse_campaign(CAMPAIGN), site_column=None)
    assert any(line.startswith("1 name of folders of sites differing") for line in found.messages)
