"""Tables to sites: every oddity is counted and said in one line, and what cannot be used is refused in one."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.table.sites import SiteTables, read_site_tables
from fedage.common.campaign import Campaign, parse_campaign
from fedage.common.errors import FedAgeError

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
sex = "sex"
missing = [-9999]
"""


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "who": [f"p{number}" for number in range(12)],
            "site": ["a"] * 6 + ["b"] * 6,
            "age": rng.uniform(20, 80, 12).round(1),
            "sex": [0, 1] * 6,
            "thick": rng.normal(size=12),
            "area": rng.normal(size=12),
        }
    )


def campaign(text: str = CAMPAIGN) -> Campaign:
    return parse_campaign(text)


def read(frame: pd.DataFrame, folder: Path, *, name: str = "t.csv", site_column: str | None = "site") -> SiteTables:
    path = folder / name
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return read_site_tables(path, campaign(), site_column=site_column)


def test_a_clean_table_says_nothing(frame: pd.DataFrame, tmp_path: Path) -> None:
    found = read(frame, tmp_path)
    assert found.said == []
    assert {name: table.unit.size for name, table in found.sites.items()} == {"a": 6, "b": 6}
    assert found.sites["a"].features == ("area", "thick")
    np.testing.assert_array_equal(found.sites["b"].columns["feature:thick"], frame.thick[6:])


def test_parquet_and_a_folder_a_site_are_the_same_sites(frame: pd.DataFrame, tmp_path: Path) -> None:
    snapshots = {name: table.snapshot for name, table in read(frame, tmp_path).sites.items()}
    parquet = read(frame, tmp_path, name="t.parquet")
    assert {name: table.snapshot for name, table in parquet.sites.items()} == snapshots
    for site, rows in frame.groupby("site"):
        (tmp_path / "sites" / str(site)).mkdir(parents=True)
        rows.drop(columns="site").to_csv(tmp_path / "sites" / str(site) / "table.csv", index=False)
    folders = read_site_tables(tmp_path / "sites", campaign(), site_column=None)
    assert {name: table.snapshot for name, table in folders.sites.items()} == snapshots


def test_missing_columns_are_named_together(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(FedAgeError, match=r"has no column 'age', 'sex' \(it has who, site, years, "):
        read(frame.rename(columns={"age": "years"}).drop(columns="sex"), tmp_path)


def test_a_string_in_a_number_is_missing_and_said(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["thick"] = frame["thick"].astype(object)
    frame.loc[2, "thick"] = "n/a?"
    found = read(frame, tmp_path)
    assert found.said == ["a: 1 cell of column 'thick' holds no number and counts as missing"]
    assert np.flatnonzero(np.isnan(found.sites["a"].columns["feature:thick"])).tolist() == [2]


def test_a_column_of_text_is_no_feature_anywhere(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["scanner"] = ["1.5"] * 5 + ["vendor"] * 7
    assert read(frame, tmp_path).sites["a"].features == ("area", "thick")


def test_a_column_empty_at_one_site_stays_a_feature_there(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[:5, "area"] = -9999
    found = read(frame, tmp_path)
    assert found.sites["a"].features == found.sites["b"].features == ("area", "thick")
    assert np.isnan(found.sites["a"].columns["feature:area"]).all()


def test_a_patient_is_kept_where_first_met(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[[1, 7, 8], "who"] = ["p0", " p0 ", "p3"]
    frame.loc[9, "who"] = None
    found = read(frame, tmp_path)
    assert found.said == [
        "a: 1 row of a patient who is there already, set aside (the first is kept)",
        "b: 1 row without an identifier, set aside",
        "b: 2 rows of a patient whom an earlier site has, set aside",
    ]
    assert [table.unit.size for table in found.sites.values()] == [5, 3]


def test_numbers_as_identifiers_are_the_same_patients_in_every_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    """A gap in a column of whole numbers makes them 7.0 in one file and 7 in another."""
    for site, ids in (("a", [7.0, 8.0, None]), ("b", [7, 9, 10])):
        (tmp_path / site).mkdir()
        frame[:3].drop(columns="site").assign(who=ids).to_csv(tmp_path / site / "t.csv", index=False)
    found = read_site_tables(tmp_path, campaign(), site_column=None)
    assert "b: 1 row of a patient whom an earlier site has, set aside" in found.said


def test_an_age_of_340_is_set_aside(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[0, "age"], frame.loc[1, "age"] = 340, -9999
    found = read(frame, tmp_path)
    assert found.said == [
        "a: 1 row with an age below 0 or above 130 years, set aside",
        "a: 1 row without an age, set aside",
    ]
    assert found.sites["a"].columns["age_years"].tolist() == frame.age[2:6].tolist()


def test_sex_in_letters_is_understood(frame: pd.DataFrame, tmp_path: Path) -> None:
    expected = read(frame, tmp_path).sites["a"].columns["is_male"]
    frame["sex"] = ["F", "male"] * 6
    found = read(frame, tmp_path)
    assert found.said == []
    np.testing.assert_array_equal(found.sites["a"].columns["is_male"], expected)


def test_names_with_blanks_and_umlauts_are_told(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["site"] = frame["site"].map({"a": "Universität München", "b": "Ålesund"})
    found = read(frame, tmp_path)
    assert list(found.sites) == ["universitaet-muenchen", "aalesund"]
    assert "site 'Universität München' is called universitaet-muenchen in the results" in found.said


def test_a_site_with_one_row_is_said_and_rows_without_a_site_too(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[0, "site"], frame.loc[[1, 2], "site"] = "c", None
    found = read(frame, tmp_path)
    assert found.said[0] == "2 rows name no site in column 'site', set aside"
    assert any(line.startswith("c: a single row") for line in found.said)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("who,site,age,sex,thick,thick\n1,a,40,1,2,3\n", "has the column 'thick' twice"),
        ("who,site,age,sex,thick\n", "has no row"),
        ("", "cannot be read as a table"),
        ("who;site;age;sex\n1;a;40;1\n", "has no column"),
    ],
)
def test_files_that_are_no_tables(content: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(FedAgeError, match=told):
        read_site_tables(path, campaign(), site_column="site")


def test_no_site_column_and_empty_folders_are_said(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(FedAgeError, match="--site-column"):
        read(frame, tmp_path, site_column=None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FedAgeError, match="has no sub-folders"):
        read_site_tables(tmp_path / "empty", campaign(), site_column=None)
    (tmp_path / "empty" / "a").mkdir()
    with pytest.raises(FedAgeError, match="must hold exactly one table"):
        read_site_tables(tmp_path / "empty", campaign(), site_column=None)


def test_nobody_is_named_in_what_is_said(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["who"] = ["Erika Mustermann"] * 12
    assert "Mustermann" not in " ".join(read(frame, tmp_path).said)


@pytest.mark.slow
def test_a_million_rows(tmp_path: Path) -> None:
    """Reading takes seconds."""
    rng, rows = np.random.default_rng(0), 1_000_000
    table = {"who": np.arange(rows), "site": rng.integers(0, 10, rows), "age": rng.uniform(20, 80, rows).round(1)}
    table |= {"sex": rng.integers(0, 2, rows)} | {f"x{k}": rng.normal(size=rows).round(3) for k in range(10)}
    path = tmp_path / "t.parquet"
    pd.DataFrame(table).to_parquet(path)
    began = time.monotonic()
    found = read_site_tables(path, campaign(), site_column="site")
    seconds = time.monotonic() - began
    print(f"{seconds:.1f} s for a million rows")
    assert sum(site.unit.size for site in found.sites.values()) == rows
    assert seconds < 20
