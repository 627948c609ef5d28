"""What stands in a table's cells is read as what it is, or refused with the site, the column and the mend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.table.cell_forms import form_code
from fedage.client.cohort.table.messages import reason_text
from fedage.client.cohort.table.sites import SiteTables, read_site_tables
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.server.sites.site_info import SiteInfo

ABOUT = """
[campaign]
name = "tables"
purpose = "Try what a table may hold"
seed = 1
[table]
id = "who"
age = "age"
"""
FEATURES = """
[estimator]
name = "table-ridge"
[estimator.options]
features = ["thick", "area"]
"""
SURVIVAL = """
[survival]
time = "time"
event = "status"
[[survival.models]]
name = "area"
covariates = ["area"]
"""


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "who": [f"p{number}" for number in range(40)],
            "site": ["a"] * 20 + ["b"] * 20,
            "age": rng.uniform(20, 80, 40).round(1),
            "thick": rng.normal(3, 0.3, size=40).round(3),
            "area": rng.normal(1500, 300, size=40).round(1),
            "other": rng.normal(1500, 300, size=40).round(1),
            "time": rng.uniform(0.1, 9, size=40).round(2),
            "status": [0, 1] * 20,
        }
    ).astype({"area": object, "other": object, "status": object, "age": object})


def campaign(text: str = ABOUT + FEATURES) -> Campaign:
    return parse_campaign(text)


def read(frame: pd.DataFrame, folder: Path, text: str = ABOUT + FEATURES) -> SiteTables:
    frame.to_csv(folder / "t.csv", index=False)
    return read_site_tables(folder / "t.csv", campaign(text), site_column="site")


MISWRITTEN = {
    "1,534.5": "between thousands",
    "1.534,5": "between thousands",
    "1 534": "between thousands",
    "1\u202f534,5": "between thousands",
    "1'534.5": "between thousands",
    "12,34,534.0": "between thousands",
    "1534,5": "comma before the decimals",
    ",75": "comma before the decimals",
    "−1534.5": "minus that is no hyphen",
}


@pytest.mark.parametrize("cell", MISWRITTEN)
@pytest.mark.parametrize("column", ["area", "age", "time"])
@pytest.mark.parametrize("rows", [[25], range(20, 40)], ids=["one cell", "the whole site"])
def test_numbers_written_otherwise_are_refused_where_they_stand(
    frame: pd.DataFrame, tmp_path: Path, cell: str, column: str, rows: list[int]
) -> None:
    frame[column] = frame[column].astype(object)
    frame.loc[rows, column] = cell
    with pytest.raises(FedAgeError) as refused:
        read(frame, tmp_path, ABOUT + (FEATURES if column == "area" else SURVIVAL))
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{tmp_path / 't.csv'}, site 'b': column {column!r} holds numbers with a ")
    assert MISWRITTEN[cell] in line
    assert "write" in line
    assert "site 'a'" not in line
    assert "534" not in line


@pytest.mark.parametrize("word", ["gestorben", "event", "relapse", "1 (dead)", "?"])
@pytest.mark.parametrize("rows", [[25, 27], range(21, 40, 2)], ids=["few", "all who died"])
def test_words_for_an_event_are_refused_and_not_left_out(
    frame: pd.DataFrame, tmp_path: Path, word: str, rows: list[int]
) -> None:
    """Without those patients, nobody at the site would have died."""
    frame.loc[rows, "status"] = word
    with pytest.raises(FedAgeError, match=r"site 'b': column 'status' holds .*, where numbers belong; write"):
        read(frame, tmp_path, ABOUT + SURVIVAL)


def in_parquet(frame: pd.DataFrame, folder: Path, text: str) -> SiteTables:
    plain = frame.astype({name: float for name in ("age", "other", "status") if name in frame})
    plain.to_parquet(folder / "t.parquet")
    return read_site_tables(folder / "t.parquet", campaign(text), site_column="site")


@pytest.mark.parametrize("cell", MISWRITTEN)
def test_categories_of_parquet_are_read_as_what_they_hold(frame: pd.DataFrame, tmp_path: Path, cell: str) -> None:
    frame["area"] = frame["area"].astype(str).astype("category")
    found = in_parquet(frame, tmp_path, ABOUT + FEATURES)
    np.testing.assert_array_equal(found.sites["b"].columns["feature:area"], frame["area"][20:].astype(float))
    frame["area"] = frame["area"].astype(str).where(frame.index < 25, cell).astype("category")
    with pytest.raises(FedAgeError, match="site 'b': column 'area' holds numbers with a "):
        in_parquet(frame, tmp_path, ABOUT + FEATURES)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(pd.date_range("2020-01-01", periods=40)),
        pd.Series(pd.date_range("2020-01-01", periods=40, tz="UTC")).where(lambda column: column.index != 30),
        pd.Series(pd.to_timedelta(range(40), unit="D")).where(lambda column: column.index != 30),
        pd.Series(pd.period_range("2020-01-01", periods=40, freq="D")),
        pd.Series(pd.date_range("2020-01-01", periods=40)).astype("category"),
    ],
    ids=["days", "times", "durations", "periods", "categories of days"],
)
def test_days_and_durations_of_parquet_are_no_numbers(frame: pd.DataFrame, tmp_path: Path, values: pd.Series) -> None:
    """As nanoseconds they would be a covariate, and one that is missing -9.2e18."""
    frame["area"] = values
    found = in_parquet(frame, tmp_path, ABOUT + FEATURES)
    assert "feature:area" not in found.sites["b"].columns
    assert any("area" in line and "hold text" in line for line in found.messages)
    with pytest.raises(FedAgeError, match=r"column 'area' holds .*, where numbers belong; write"):
        in_parquet(frame, tmp_path, ABOUT + SURVIVAL)


def test_a_column_that_nobody_reads_may_hold_what_it_likes(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[25:, "other"] = "1,234.5"
    assert read(frame, tmp_path).messages == []


def test_all_mistakes_of_all_sites_come_at_once(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["thick"] = frame["thick"].astype(object)
    frame.loc[3, "area"], frame.loc[25:, ["area", "thick"]] = "1.234,5", "3,2"
    with pytest.raises(FedAgeError) as refused:
        read(frame, tmp_path)
    first, second = str(refused.value).splitlines()
    assert "site 'a': column 'area' holds numbers with a sign between thousands" in first
    assert "site 'b': columns 'area', 'thick' hold numbers with a comma before the decimals" in second


FORMS = {
    "18-38": "range",
    "18 – 38": "range",
    "40 to 49": "range",
    "[18,38]": "not-a-number",
    "89+": "limit",
    ">=90": "limit",
    "<0.5": "limit",
    "045Y": "with-unit",
    "61.5 years": "with-unit",
    "12 %": "with-unit",
    "1961-05-07": "date",
    "7.5.1961": "date",
    "5/7/61": "date",
    "#DIV/0!": "spreadsheet-error",
    "yes": "yes-or-no",
    "DEAD": "yes-or-no",
    "see letter": "not-a-number",
}


@pytest.mark.parametrize("cell", FORMS)
def test_a_few_ages_of_another_form_are_counted_by_that_form(frame: pd.DataFrame, tmp_path: Path, cell: str) -> None:
    assert form_code(cell) == FORMS[cell]
    frame.loc[[21, 22, 23], "age"] = cell
    found = read(frame, tmp_path)
    assert found.sites["b"].rejected == {f"{FORMS[cell]}:age": 3, "no-age": 3}
    assert found.sites["b"].split_uniform.size == 17
    line = found.messages[0]
    assert line.startswith("b: 3 cells of column 'age' hold ")
    assert "18-38" not in cell or 'ranges (such as "18-38")' in line


@pytest.mark.parametrize("cell", ["18-38", "60 bis 69", "89+", "1961-05-07", "61 y"])
def test_a_whole_column_of_another_form_is_refused_with_its_cause(
    frame: pd.DataFrame, tmp_path: Path, cell: str
) -> None:
    frame.loc[frame["site"] == "b", "age"] = cell
    with pytest.raises(FedAgeError, match=r"site 'b': column 'age' holds .*, where numbers belong; write"):
        read(frame, tmp_path)


EVENTS = {
    "yes no": ("yes", "no", '"yes" = 1, "no" = 0'),
    "Y N": ("Y", "N", '"y" = 1, "n" = 0'),
    "dead alive": ("Dead", "Alive", '"dead" = 1, "alive" = 0'),
    "positive negative": ("positive", "negative", '"positive" = 1, "negative" = 0'),
    "died censored": ("died", "censored", '"died" = 1, "censored" = 0'),
    "ja nein": ("ja", "nein", '"ja" = 1, "nein" = 0'),
}


@pytest.mark.parametrize("words", EVENTS)
@pytest.mark.parametrize("some", [True, False], ids=["in some cells", "in all"])
def test_events_in_words_are_refused_with_the_mapping(
    frame: pd.DataFrame, tmp_path: Path, words: str, some: bool
) -> None:
    event, none, mapping = EVENTS[words]
    rows = [22, 25] if some else range(20, 40)
    frame.loc[rows, "status"] = frame.loc[rows, "status"].map({1: event, 0: none})
    with pytest.raises(FedAgeError) as refused:
        read(frame, tmp_path, ABOUT + SURVIVAL)
    assert "t.csv, site 'b': column 'status' holds words " in str(refused.value)
    assert f"values = {{ {mapping} }}" in str(refused.value)


@pytest.mark.parametrize(("event", "none"), [("True", "False"), ("TRUE", "FALSE"), (1.0, 0.0), ("1", "0")])
def test_events_that_say_one_thing_are_read(frame: pd.DataFrame, tmp_path: Path, event: object, none: object) -> None:
    expected = read(frame, tmp_path, ABOUT + SURVIVAL).sites["b"].columns["status"]
    frame["status"] = frame["status"].map({1: event, 0: none})
    np.testing.assert_array_equal(read(frame, tmp_path, ABOUT + SURVIVAL).sites["b"].columns["status"], expected)


@pytest.mark.parametrize(
    ("codes", "mapping", "more"),
    [
        ([1, 2], '"1" = ?, "2" = ?', "where each ? is 1 or 0 (a value"),
        ([0, 1, 2], '"0" = ?, "1" = ?, "2" = ?', "where each ? is 1 or 0 (a value"),
        ([-1, 0, 1], '"-1" = ?, "0" = ?, "1" = ?', "where each ? is 1 or 0 (a value"),
        ([1, 2, 3, 4, 9], '"1" = ?, "2" = ?, "3" = ?, "4" = ?, "9" = ?', "where each ? is 1 or 0 (a value"),
        ([0, 1, 2, 3, 4, 5], '"A VALUE" = ?, "ANOTHER VALUE" = ?', "it holds 6 different values"),
        ([0, 0.5, 1], '"A VALUE" = ?, "ANOTHER VALUE" = ?', "with every value of the column"),
        ([0, 1, 7041], '"A VALUE" = ?, "ANOTHER VALUE" = ?', "it holds 3 different values"),
    ],
)
def test_events_of_other_codes_are_refused_with_every_code_to_be_mapped(
    frame: pd.DataFrame, tmp_path: Path, codes: list[float], mapping: str, more: str
) -> None:
    """An example with two of three codes, pasted, makes everybody with the third missing."""
    at_b = frame["site"] == "b"
    frame["status"] = frame["status"].astype(float)
    frame.loc[at_b, "status"] = np.resize(codes, int(at_b.sum()))
    with pytest.raises(FedAgeError) as refused:
        read(frame, tmp_path, ABOUT + SURVIVAL)
    told = str(refused.value)
    assert "t.csv, site 'b': column 'status' holds other values than 1 (event) and 0 (censored); say what" in told
    assert f'{{ column = "status", values = {{ {mapping} }} }}' in told
    assert more in told
    assert "7041" not in told


@pytest.mark.parametrize(
    ("value", "code"),
    [(-9999, "-9999"), (999, "999"), (-9, "-9"), (99.9, "99.9"), (-1, "-1"), (9.96921e36, "9.96921e+36"), (0, "")],
)
def test_a_repeated_extreme_that_nobody_declared_is_said_and_kept(
    frame: pd.DataFrame, tmp_path: Path, value: float, code: str
) -> None:
    frame.loc[[21, 22, 23], "thick"] = value
    found = read(frame, tmp_path)
    assert found.messages == [f"b: {reason_text(f'kept-extreme:{code}:thick', 3)}"]
    assert "column 'thick'" in found.messages[0]
    assert "missing of [table]" in found.messages[0]
    assert "fewer than 10 cells" in found.messages[0]
    assert found.sites["b"].rejected == {f"kept-extreme:{code}:thick": 3}
    assert (found.sites["b"].columns["feature:thick"] == value).sum() == 3
    declared = read(frame, tmp_path, ABOUT + f"missing = [{value}]\n" + FEATURES)
    assert declared.messages == []
    assert np.isnan(declared.sites["b"].columns["feature:thick"]).sum() == 3


def test_a_patient_s_own_extreme_is_not_quoted(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[[21, 22, 23], "thick"] = 71.53
    (line,) = read(frame, tmp_path).messages
    assert "71" not in line
    assert line.startswith("b: column 'thick' holds one value, far beyond all others, in fewer than 10 cells")


def test_ten_and_more_are_counted_and_many_columns_stay_within_an_answer(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    wide = pd.DataFrame(rng.normal(size=(40, 90)), columns=[f"{'x' * 70}{k}" for k in range(90)])
    wide.iloc[:12] = -999999
    wide.insert(0, "who", range(40))
    wide.insert(1, "age", 50.0 + np.arange(40))
    wide.insert(2, "site", "a")
    found = read(wide, tmp_path, ABOUT + FEATURES.replace('"thick", "area"', '"*"')).sites["a"].rejected
    assert len(found) == 11
    assert found["kept-extremes-in-other-columns"] == 80 * 12
    assert max(map(len, found)) <= 80
    SiteInfo(patients=40, smallest_cell=10, rejected_files=found)
    assert any("holds -999999, far beyond the others, in 12 cells" in reason_text(code, found[code]) for code in found)


@pytest.mark.parametrize("kind", ["normal", "counts", "binary", "skewed", "few values", "twice the same"])
def test_ordinary_columns_are_not_suspected(frame: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(4)
    made = {
        "normal": rng.normal(size=40),
        "counts": rng.poisson(2, size=40),
        "binary": rng.integers(0, 2, size=40),
        "skewed": rng.exponential(size=40),
        "few values": rng.choice([1, 2, 3, 9], size=40),
        "twice the same": np.repeat(rng.normal(size=20), 2),
    }
    frame["thick"] = made[kind]
    assert read(frame, tmp_path).messages == []


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


NO_YEARS = {
    "days": lambda years: round(years * 365.25),
    "months, one beyond a life": lambda years: round(years * 12 + 30, 1),
    "a date of eight digits": lambda years: 20_120_304 + int(years),
    "a day number of a spreadsheet": lambda years: 41_000 + int(years * 365),
    "a code that nobody declared": lambda years: 9999 if years > 8.5 else years,
}


@pytest.mark.parametrize("unit", NO_YEARS)
def test_follow_up_that_is_no_years_is_refused_with_the_mapping(frame: pd.DataFrame, tmp_path: Path, unit: str) -> None:
    """Days at one site beside years at the others made one curve of both."""
    there = frame["site"] == "b"
    frame.loc[there, "time"] = frame.loc[there, "time"].map(NO_YEARS[unit])
    assert (frame["time"] > 130).any()
    with pytest.raises(FedAgeError, match=r"site 'b': column 'time' holds times above 130, which are no years") as said:
        read(frame, tmp_path, ABOUT + SURVIVAL)
    assert "divide_by = 365.25" in str(said.value)
    assert "site 'a'" not in str(said.value)
    frame.loc[there, "time"] = frame.loc[there, "time"].clip(upper=130)
    assert read(frame, tmp_path, ABOUT + SURVIVAL).sites.keys() == {"a", "b"}


def test_a_declared_code_of_a_time_is_missing(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[[21, 22], "time"] = 9999
    found = read(frame, tmp_path, ABOUT + "missing = [9999]\n" + SURVIVAL)
    assert np.isnan(found.sites["b"].columns["time"]).sum() == 2


@pytest.mark.parametrize("nothing", ["", "NA", None, "  "])
def test_an_event_column_without_a_0_is_refused_where_censored_are_left_empty(
    frame: pd.DataFrame, tmp_path: Path, nothing: str | None
) -> None:
    """Those censored were missing, and all others had the event."""
    there = (frame["site"] == "b") & (frame["status"] == 0)
    frame.loc[there, "status"] = nothing
    with pytest.raises(
        FedAgeError, match=r"site 'b': column 'status' holds 1 or nothing where follow-up times"
    ) as said:
        read(frame, tmp_path, ABOUT + SURVIVAL)
    assert '{ column = "status", values = { "1" = 1, "" = 0 } }' in str(said.value)
    assert "site 'a'" not in str(said.value)


@pytest.mark.parametrize("change", ["one is known", "no time either", "few"])
def test_missing_events_are_missing_where_they_are_no_code(frame: pd.DataFrame, tmp_path: Path, change: str) -> None:
    there = (frame["site"] == "b") & (frame["status"] == 0)
    rows = list(frame.index[there])
    if change == "few":
        frame.loc[rows[:5], "status"] = 1
    frame.loc[rows[5 if change == "few" else 1 if change == "one is known" else 0 :], "status"] = None
    if change == "no time either":
        frame.loc[rows, "time"] = None
    found = read(frame, tmp_path, ABOUT + SURVIVAL)
    known = {"one is known": 11, "no time either": 10, "few": 15}[change]
    assert np.isfinite(found.sites["b"].columns["status"]).sum() == known


@pytest.mark.parametrize("code", [-9999, 999, 9999.9, -77])
def test_a_column_of_nothing_but_a_code_is_said(frame: pd.DataFrame, tmp_path: Path, code: float) -> None:
    frame.loc[frame["site"] == "b", "area"] = code
    (line,) = read(frame, tmp_path).messages
    assert line.startswith(f"b: column 'area' holds {code:g}, far beyond the others, in 20 cells")


@pytest.mark.parametrize("value", [0, 1, -1, 7, 88, 1500.5])
def test_a_column_of_one_plain_value_is_not(frame: pd.DataFrame, tmp_path: Path, value: float) -> None:
    frame.loc[frame["site"] == "b", "area"] = value
    assert read(frame, tmp_path).messages == []
