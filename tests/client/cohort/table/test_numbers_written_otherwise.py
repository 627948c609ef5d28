"""Cells that are numbers to whoever wrote them, and rows that sum up others, are read rightly or named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.bids.session_files import STANDARD, FolderWalk
from fedage.client.cohort.bids.sessions import read_sessions
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.store.tables import TableReport, index_table, read_table
from fedage.client.cohort.table.cell_forms import description_and_remedy, form_code
from fedage.client.cohort.table.messages import reason_text
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.read import parse_numbers
from fedage.client.cohort.table.sites import SiteTables, read_site_tables
from fedage.client.cohort.table.summary_rows import summary_rows
from fedage.client.site.mapping import TableSource
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from tests.client.cohort.bids.test_sessions import tree

CAMPAIGN = parse_campaign(
    """
[campaign]
name = "tables"
purpose = "Try what a table may hold"
seed = 1
[estimator]
name = "table-ridge"
[estimator.options]
features = ["thick"]
[table]
id = "who"
age = "age"
"""
)
FORMS = {
    "minus-behind": ["3.2-", "( 83.7 )", "(3.2)", "5–"],
    "raised-point": ["3·2", "-83•7", "∙5"],
    "with-mark": ["3.2*", "*83.7", "3.2 (H)", "'3.2", '="3.2"', "$83.7", "3.2†", "3.2\u200b"],
    "power-of-ten": ["1.2x10^3", "8.3×10-3", "1.2 * 10**3", "1.2D3"],
    "range": ["3.2 ± 0.4", "3.2 +/- 0.4"],
    "limit": ["<0.1", "> 100", "≤5"],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_cell_has_its_form(form: str) -> None:
    assert {cell: form_code(cell) for cell in FORMS[form]} == dict.fromkeys(FORMS[form], form)


@pytest.mark.parametrize(("form", "cell"), [(form, cells[1]) for form, cells in FORMS.items()])
def test_the_form_is_named_and_the_cell_is_not(tmp_path: Path, form: str, cell: str) -> None:
    frame = table(thick=[cell, *[f"{2 + number / 10:.1f}" for number in range(19)]])
    if form in ("range", "limit"):
        found = read(frame, tmp_path)
        assert (
            f"a: 1 cell of column 'thick' holds {description_and_remedy(form)[0]} and counts as missing; write"
            in "".join(found.messages)
        )
        assert indexed(frame, tmp_path).rejected == {f"{form}:thick": 1}
        return
    with pytest.raises(FedAgeError, match=r"column 'thick' holds numbers with .*, where numbers belong; write") as no:
        read(frame, tmp_path)
    assert "83" not in str(no.value).partition(".csv")[2]
    assert indexed(frame, tmp_path).rejected == {f"left-out-{form}:thick": 1}
    frame.rename(columns={"who": "patient_id"}).to_csv(tmp_path / "o.csv", index=False)
    assert set(read_outcomes(tmp_path / "o.csv").left_out) == {f"left-out-{form}:thick"}


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1e3", 1000.0), (" +5. ", 5.0), ("\u00a05", 5.0), ("5\u202f", 5.0), (".5", 0.5), ("-1E-2", -0.01)],
)
def test_what_is_a_number_is_read(tmp_path: Path, cell: str, value: float) -> None:
    values, odd = parse_numbers(pd.Series([cell, "x", "7"]))
    assert (values[0], odd.tolist()) == (value, [False, True, False])
    (tmp_path / "o.csv").write_text(f"patient_id,x\na,{cell}\nb,7\nc,oops\n", encoding="utf-8")
    assert read_outcomes(tmp_path / "o.csv").values["a"] == {"x": value}


def table(**columns: list[str]) -> pd.DataFrame:
    number = len(next(iter(columns.values()))) if columns else 20
    ages = [f"{20 + 2.5 * k}" for k in range(number)]
    thick = [f"{2 + k / 10:.1f}" for k in range(number)]
    people = [f"p{k}" for k in range(number)]
    return pd.DataFrame({"who": people, "site": "a", "age": ages, "thick": thick, **columns})


def read(frame: pd.DataFrame, folder: Path) -> SiteTables:
    frame.to_csv(folder / "t.csv", index=False)
    return read_site_tables(folder / "t.csv", CAMPAIGN, site_column="site")


def indexed(frame: pd.DataFrame, folder: Path) -> TableReport:
    frame.to_csv(folder / "t.csv", index=False)
    with CohortStore.open(folder / "home", key=bytes(range(32))) as store:
        return index_table(store, TableSource(path=str(folder / "t.csv"), id="who", age="age"))


SUMMARIES = [
    [("Total", "", "1500", "3.0")],
    [("Mean", "a", "45.0", "3.0"), ("SD", "a", "11", "0.2"), ("Max", "a", "70", "4")],
    [("Summe:", "Summe", "900", "60")],
    [("n = 20", "", "", "20"), ("Mittelwert", "", "45", "3")],
    [("mean (SD)", "a", "45 (11)", "3 (0.2)")],
    [("", "Total", "45.0", "3.0"), ("", "", "", "")],
    [("Moyenne", "a", "45", "3"), ("Écart-type", "a", "10", "1")],
]


@pytest.mark.parametrize("rows", SUMMARIES)
def test_rows_that_sum_up_the_others_are_nobody(tmp_path: Path, rows: list[tuple[str, str, str, str]]) -> None:
    plain = table()
    frame = pd.concat([plain, pd.DataFrame(rows, columns=plain.columns)], ignore_index=True)
    found = read(frame, tmp_path)
    assert list(found.sites) == ["a"]
    assert found.sites["a"].columns["age_years"].tolist() == plain["age"].astype(float).tolist()
    count = sum(any(row) for row in rows)
    expected = f"t.csv: {'1 row' if count == 1 else f'{count} rows'} at the end that summarise those above"
    assert any(line.startswith(expected) for line in found.messages)
    report = indexed(frame.drop(columns="site"), tmp_path)
    assert report.patients == 20
    with_id = sum(bool(row[0]) for row in rows)
    assert report.rejected.get("summary-row", 0) == with_id
    assert report.rejected.get("row-without-id", 0) == len(rows) - with_id
    with CohortStore.open(tmp_path / "home") as store:
        assert (stored := read_table(store)) is not None
        assert sorted(stored.frame["age"]) == plain["age"].astype(float).tolist()
    frame.rename(columns={"who": "patient_id"}).to_csv(tmp_path / "o.csv", index=False)
    outcomes = read_outcomes(tmp_path / "o.csv")
    assert len(outcomes.values) == 20
    assert outcomes.counts().get("summary-rows", 0) == with_id


@pytest.mark.parametrize("last", [["Max"], ["Max", "Min"], ["Tom", "All"], ["Total", "p99"], ["Meaney"], ["SD"]])
def test_somebody_s_identifier_is_no_summary(last: list[str]) -> None:
    frame = table()
    frame.loc[20 - len(last) :, "who"] = last
    assert not summary_rows(frame, id_column="who").any()


@pytest.mark.parametrize(("above", "found"), [("partial", 1), ("total", 0)])
def test_a_word_in_a_first_column_of_other_texts_counts_if_it_stands_nowhere_above(above: str, found: int) -> None:
    frame = pd.DataFrame({"resection": [above, "partial", "biopsy"] * 20, "age": range(60)})
    frame.loc[59, "resection"] = "total"
    assert not summary_rows(frame.assign(who=[f"p{k}" for k in range(60)]), id_column="who").any()
    assert summary_rows(frame, id_column=None).sum() == found


def test_a_mean_below_whole_ages_leaves_them_whole(tmp_path: Path) -> None:
    rows = "sub-a\t40\nsub-b\t50\n"
    root = tree(tmp_path, {"a": [""], "b": [""]}, {"participants.tsv": f"participant_id\tage\n{rows}Mean\t45.3\n"})
    ages = [session.age.years for session in read_sessions(FolderWalk(root), STANDARD)]  # type: ignore[union-attr]
    assert ages == [40.5, 50.5]
    assert np.isfinite(ages).all()


def test_a_summary_is_said_in_words() -> None:
    assert reason_text("summary-row", 1) == (
        "1 row at the end that summarise those above (Total, Mean and the like), set aside"
    )
