"""What stands in a table's cells is read as what it is, or refused with the site, the column and the mend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.table.cell_forms import form_code
from fedage.client.cohort.table.messages import reason_text
from fedage.common.errors import FedAgeError
from fedage.server.sites.site_info import SiteInfo
from tests.client.cohort.table.tables import ABOUT, FEATURES, SURVIVAL, in_parquet, read

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
    SiteInfo(patients=40, minimum_count=10, rejected_files=found)
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
