"""Rows that belong to the header, an index that holds identifiers, and ages that do not begin at birth."""

from pathlib import Path

import pandas as pd
import pytest

from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.store.tables import index_table, read_table
from fedage.client.cohort.table.header_rows import repeated_headers, unit_rows
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.read import read_frame
from fedage.client.site.mapping import TableSource
from fedage.common.errors import FedAgeError

AGES = [float(40 + k) for k in range(12)]


def _table() -> pd.DataFrame:
    return pd.DataFrame({"who": [f"p{k}" for k in range(12)], "age": AGES, "length": [41.5 + k for k in range(12)]})


def _index(path: Path, home: Path, **source: str) -> tuple[dict[str, int], pd.DataFrame]:
    with CohortStore.open(home, key=bytes(range(32))) as store:
        report = index_table(store, TableSource(**{"path": str(path), "id": "who", "age": "age", **source}))
        stored = read_table(store)
        assert stored is not None
        return report.rejected, stored.frame


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        (["-,[years],[mm]"], {"units-row": 1}),
        ([",years,mm"], {"units-row": 1}),
        (["Einheit,Jahre,mm³"], {"units-row": 1}),
        (["[-],(y),(ml/min)"], {"units-row": 1}),
        (["n/a,yr,n/a"], {"units-row": 1}),
        (["string,float,float"], {"units-row": 1}),
        (["who,age,length"], {"repeated-header": 1}),
        (["WHO, Age ,length", "who,,length"], {"repeated-header": 2}),
        (["who,age,length", "-,years,mm"], {"repeated-header": 1, "units-row": 1}),
        (["-,,"], {}),
        (["m1,61,mm"], {}),
    ],
)
def test_rows_of_the_header_are_nobody(tmp_path: Path, rows: list[str], reasons: dict[str, int]) -> None:
    header, *lines = _table().to_csv(index=False).splitlines()
    text = "\n".join([header, *rows, *lines, *(rows if "repeated-header" in reasons else [])][: 14 + len(rows)])
    (tmp_path / "t.csv").write_text(text)
    found, frame = _index(tmp_path / "t.csv", tmp_path / "home")
    told = {reason: found.get(reason, 0) for reason in ("units-row", "repeated-header")}
    assert bool(told["units-row"]) == ("units-row" in reasons)
    assert bool(told["repeated-header"]) == ("repeated-header" in reasons)
    if reasons:
        assert sorted(frame["age"]) == AGES
        assert not any(reason.startswith("not-a-number") for reason in found)
        (tmp_path / "o.csv").write_text(text.replace("who", "patient_id").replace("WHO", "Patient_ID"))
        assert len(read_outcomes(tmp_path / "o.csv").values) == 12


@pytest.mark.parametrize("first", ["p0,,", "7,61,mm", "m,f,a", "pat,mm,m"])
def test_a_patient_is_no_row_of_units(first: str) -> None:
    frame = pd.DataFrame([first.split(","), ["p1", "61", "2"]], columns=["who", "age", "sex"])
    assert not unit_rows(frame, id_column="who").any()
    assert not repeated_headers(frame).any()


@pytest.mark.parametrize("name", ["who", "index", "age"])
def test_an_index_with_a_name_is_a_column(tmp_path: Path, name: str) -> None:
    frame = _table().rename(columns={"who": name}) if name != "age" else _table()
    frame.set_index(name).to_parquet(tmp_path / "t.parquet")
    assert sorted(read_frame(tmp_path / "t.parquet", text=["who"]).columns) == sorted(frame.columns)


def test_an_index_without_a_name_is_named_as_the_cause(tmp_path: Path) -> None:
    _table().set_index("who").rename_axis(None).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(FedAgeError, match=r"no column 'who', and its rows have an index without a name.*rename_axis"):
        read_frame(tmp_path / "t.parquet", text=["who"])
    _table()[_table()["age"] > 45].to_parquet(tmp_path / "rows.parquet")  # rows taken out leave gaps in the index
    assert len(read_frame(tmp_path / "rows.parquet", text=["who"])) == 6


@pytest.mark.parametrize("name", ["pma_weeks", "ga", "PostmenstrualAge", "gestational_age", "post-conceptional age"])
def test_an_age_from_conception_is_no_age(tmp_path: Path, name: str) -> None:
    _table().rename(columns={"age": name}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(FedAgeError, match="not from birth: give the age since birth as table"):
        _index(tmp_path / "t.csv", tmp_path / "home", age=name)
