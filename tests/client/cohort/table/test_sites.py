"""Tables to sites: every oddity is counted and said in one line, and what cannot be used is refused in one."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.table.messages import NO_ID
from fedage.client.cohort.table.sites import SiteTables, read_site_tables
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.server.sites.site_info import SiteInfo

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
    assert found.messages == []
    assert {name: table.split_uniform.size for name, table in found.sites.items()} == {"a": 6, "b": 6}
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
    with pytest.raises(FedAgeError, match=r"has no column 'age', 'sex' \(it has 5 columns, "):
        read(frame.rename(columns={"age": "years"}).drop(columns="sex"), tmp_path)


def test_a_string_in_a_number_is_missing_and_said(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["thick"] = frame["thick"].astype(object)
    frame.loc[2, "thick"] = "n/a?"
    found = read(frame, tmp_path)
    assert found.messages == ["a: 1 cell of column 'thick' holds no number and counts as missing"]
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
    assert found.messages == [
        "a: 1 row of a patient who has an earlier row, set aside (the first row is kept)",
        "b: 1 row without an identifier, set aside",
        "b: 2 rows of a patient who is at an earlier site too, set aside",
    ]
    assert [table.split_uniform.size for table in found.sites.values()] == [5, 3]


def test_numbers_as_identifiers_are_the_same_patients_in_every_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    """A gap in a column of whole numbers makes them 7.0 in one file and 7 in another."""
    for site, ids in (("a", [7.0, 8.0, None]), ("b", [7, 9, 10])):
        (tmp_path / site).mkdir()
        frame[:3].drop(columns="site").assign(who=ids).to_csv(tmp_path / site / "t.csv", index=False)
    found = read_site_tables(tmp_path, campaign(), site_column=None)
    assert "b: 1 row of a patient who is at an earlier site too, set aside" in found.messages


def test_an_age_of_340_is_set_aside(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[0, "age"], frame.loc[1, "age"] = 340, -9999
    found = read(frame, tmp_path)
    assert found.messages == [
        "a: 1 row with an age below 0 or above 130 years, set aside",
        "a: 1 row without an age, set aside",
    ]
    assert found.sites["a"].columns["age_years"].tolist() == frame.age[2:6].tolist()


def test_sex_in_letters_is_understood(frame: pd.DataFrame, tmp_path: Path) -> None:
    expected = read(frame, tmp_path).sites["a"].columns["is_male"]
    frame["sex"] = ["F", "male"] * 6
    found = read(frame, tmp_path)
    assert found.messages == []
    np.testing.assert_array_equal(found.sites["a"].columns["is_male"], expected)


def sexes(frame: pd.DataFrame, values: list[object], folder: Path, *, more: str = "") -> tuple[list[float], list[str]]:
    """`is_male` of all twelve patients, and what was said."""
    path = folder / "t.csv"
    frame.assign(sex=values).to_csv(path, index=False)
    text = CAMPAIGN.replace('sex = "sex"\n', f'sex = "sex"\n{more}')
    found = read_site_tables(path, campaign(text), site_column="site")
    columns = [table.columns["is_male"] for table in found.sites.values()]
    return [-1 if np.isnan(value) else value for value in np.concatenate(columns)], found.messages


def test_sexes_that_are_neither_are_missing_and_said(frame: pd.DataFrame, tmp_path: Path) -> None:
    found, said = sexes(frame, ["M", "diverse", "F", " f ", "Male", "?", *["m"] * 6], tmp_path)
    assert found == [1, -1, 0, 0, 1, -1, *[1] * 6]
    assert said == [
        "a: 2 cells of column 'sex' are neither M, F, male, female nor a code of table.male or table.female, and count "
        "as missing"
    ]


@pytest.mark.parametrize(
    ("values", "more"),
    [
        ([1, 2] * 6, ""),
        ([1, 0] * 6, ""),
        ([1, -1] * 6, ""),
        ([2, 1] * 6, "male = 2\n"),
        ([7, 9] * 6, "male=7\nfemale=9\n"),
    ],
)
def test_the_usual_codes_and_those_that_the_file_names(
    values: list[object], more: str, frame: pd.DataFrame, tmp_path: Path
) -> None:
    assert sexes(frame, values, tmp_path, more=more) == ([1, 0] * 6, [])


def test_a_code_that_the_file_does_not_name_is_missing_if_it_names_both(frame: pd.DataFrame, tmp_path: Path) -> None:
    found, said = sexes(frame, [1, 2, 9, *[1] * 9], tmp_path, more="female = 2\n")
    assert found == [1, 0, -1, *[1] * 9]
    assert said[0].startswith("a: 1 cell of column 'sex' is neither")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            [1, 2, 9] * 4,
            r"holds 2, 9 beside table.male = 1, and which of them is female is not known \(allowed are M, F",
        ),
        ([1, 3] * 6, r"holds 3 beside table.male = 1.*one of 0, 2, -1\); set table.female"),
        (["Mann", "Frau"] * 6, "says of nobody who is male or female"),
        ([""] * 12, "says of nobody"),
    ],
)
def test_codes_that_cannot_be_told_are_refused_in_one_line(
    values: list[object], told: str, frame: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(FedAgeError, match=told) as refused:
        sexes(frame, values, tmp_path)
    assert "\n" not in str(refused.value)


def test_columns_of_text_and_empty_ones_are_said_where_the_features_would_have_them(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    frame.assign(scanner="vendor", nothing=None).to_csv(path, index=False)
    lines = [
        "columns that hold text and therefore cannot be features: 'scanner'",
        "columns that hold no number at all and therefore cannot be features: 'nothing'",
    ]
    assert read_site_tables(path, campaign(), site_column="site").messages == lines
    named = campaign(CAMPAIGN.replace('["*"]', '["thick", "area"]'))
    assert read_site_tables(path, named, site_column="site").messages == []
    without = campaign(CAMPAIGN.replace('["*"]', '["*"]\nexclude = ["scan*", "nothing"]'))
    assert read_site_tables(path, without, site_column="site").messages == []


def test_row_numbers_and_names_without_end_are_left_out_and_said(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    frame.assign(**{"x" * 201: 1.0, "y" * 200: 2.0}).to_csv(path)
    found = read_site_tables(path, campaign(), site_column="site")
    assert found.messages == [
        "t.csv: 1 column without a name is left out",
        "t.csv: 1 column with a name longer than 200 characters is left out",
    ]
    assert found.sites["a"].features == ("area", "thick", "y" * 200)


def test_without_identifiers_it_is_said_that_nobody_is_noticed_twice(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.concat([frame, frame]).drop(columns="who").to_csv(path, index=False)
    found = read_site_tables(path, campaign(CAMPAIGN.replace('id = "who"\n', "")), site_column="site")
    assert found.messages == [NO_ID]
    assert [table.split_uniform.size for table in found.sites.values()] == [12, 12]


def test_a_hundred_bad_columns_with_long_names_are_an_answer_that_a_server_takes(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    bad = {f"{'long' * 20}{k:03d}": [*["?"] * (1 + k % 5), *[1.0] * 11][:12] for k in range(100)}
    found = read(pd.concat([frame, pd.DataFrame(bad)], axis=1), tmp_path)
    rejected = dict(found.sites["a"].rejected)
    assert len(rejected) == 21
    assert sum(rejected.values()) == sum(1 + k % 5 for k in range(100))
    assert all(len(code) <= 80 for code in rejected)
    assert rejected["not-a-number-in-other-columns"] == 20 * (1 + 2 + 3 + 4)
    assert found.messages[-1] == "a: 200 cells of other columns hold no number and count as missing"
    told, left_out = SiteInfo.of({"rejected_files": rejected})
    assert (told.rejected_files, left_out) == (rejected, ())


def test_names_with_blanks_and_umlauts_are_told(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["site"] = frame["site"].map({"a": "Universität München", "b": "Ålesund"})
    found = read(frame, tmp_path)
    assert list(found.sites) == ["universitaet-muenchen", "aalesund"]
    assert "site 'Universität München' is called universitaet-muenchen in the results" in found.messages


def test_a_site_with_one_row_is_said_and_rows_without_a_site_too(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[0, "site"], frame.loc[[1, 2], "site"] = "c", None
    found = read(frame, tmp_path)
    assert found.messages[0] == "2 rows name no site in column 'site', set aside"
    assert any(line.startswith("c: a single row") for line in found.messages)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("who,site,age,sex,thick,thick\n1,a,40,1,2,3\n", r"has a column twice \('thick' at places 5 and 6\)"),
        ("who,site,age,sex,thick\n", "has no row"),
        ("", "is empty; give a table"),
        ("who;site;age;sex\n1;a;40;1\n", "has only one column, and its name contains ';'"),
        ("who,site,age,sex\n1,a,40,5,1\n2,a,40,1\n", "line 2 has more cells than the header has names; write numbers"),
        ("who,site,age,sex\n2,a,40,1\n1,a,40,5,1\n", "line 3 has more cells than the header has names"),
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
    assert "Mustermann" not in " ".join(read(frame, tmp_path).messages)


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
    assert sum(site.split_uniform.size for site in found.sites.values()) == rows
    assert seconds < 20
