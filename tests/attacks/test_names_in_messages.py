"""A table without a header holds a patient where its columns' names should be: no message quotes that line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fedage.client.cohort.bids.participants import read_rows
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.store.tables import index_table
from fedage.client.cohort.table.header import columns_text, repeated_name_text
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.sites import read_site_tables
from fedage.client.site.mapping import TableSource
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError

PATIENT = ["MRN-7714423", "Zwyntarow^Quillemina", "19610317", "61", "1", "F"]
HEADERLESS = {
    "identifier first": PATIENT,
    "text only": ["Zwyntarow^Quillemina", "MRN-7714423", "F"],
    "one column": ["MRN-7714423"],
    "identifier twice": ["MRN-7714423", "MRN-7714423", "61"],
    "numbers": ["7714423", "19610317", "61"],
    "surname twice": ["Zwyntarow", "Quillemina", "Zwyntarow", "F"],
    "surname twice, with blanks and capitals": ["Zwyntarow", "61", " Zwyntarow", "ZWYNTAROW"],
    "surname like a column": ["Pageworth", "Page", "Sexx", "Participantid"],
    "town twice": ["Oberammergau", "Oberammergau"],
    "surname like the identifier's column": ["Patientide", "Agee", "Eventt", "Timee_years"],
}
CAMPAIGN = """
[campaign]
name = "a"
purpose = "a table without a header"
seed = 1
[table]
id = "patient_id"
age = "age"
sex = "sex"
[survival]
time = "time_years"
event = "event"
"""


@pytest.mark.parametrize("name", HEADERLESS)
def test_a_table_without_a_header_prints_nobody(tmp_path: Path, name: str) -> None:
    row = HEADERLESS[name]
    for suffix, sign in ((".csv", ","), (".tsv", "\t")):
        (tmp_path / f"table{suffix}").write_text(f"{sign.join(row)}\n{sign.join(row)}\n")
    site = tmp_path / "sites" / "one"
    site.mkdir(parents=True)
    (site / "table.csv").write_text((tmp_path / "table.csv").read_text())
    said = []

    def refused(read: object, *arguments: object, **named: object) -> None:
        assert callable(read)
        with pytest.raises(FedAgeError) as raised:
            read(*arguments, **named)
        said.append(str(raised.value))

    refused(read_outcomes, tmp_path / "table.csv")
    refused(read_outcomes, tmp_path / "table.tsv", columns={"event": "event"})
    refused(read_rows, tmp_path / "table.tsv", key="participant_id")
    refused(read_rows, tmp_path / "table.tsv", key="session_id")
    with CohortStore.open(tmp_path / "home") as store:
        for suffix in (".csv", ".tsv"):
            source = TableSource(path=str(tmp_path / f"table{suffix}"), id="patient_id", age="age")
            refused(index_table, store, source)
    refused(read_site_tables, tmp_path / "sites", parse_campaign(CAMPAIGN), site_column=None)
    refused(read_site_tables, tmp_path / "table.csv", parse_campaign(CAMPAIGN), site_column="hospital")
    if len({cell.strip() for cell in row}) == len(row):
        pd.DataFrame([row], columns=row).to_parquet(tmp_path / "table.parquet")
        refused(read_site_tables, tmp_path / "table.parquet", parse_campaign(CAMPAIGN), site_column="hospital")
    assert len(said) >= 8
    for text in said:
        for value in (*row, "7714423", "Zwyntarow", "19610317"):
            assert len(value) < 4 or value.strip().casefold() not in text.casefold().replace("patient_id", ""), text


def test_a_header_is_quoted_where_it_is_one() -> None:
    assert repeated_name_text(["MRN", "volume 1", "volume 1"], known=["MRN"]) == "'volume 1' at places 2 and 3"
    assert repeated_name_text(["mrn", "Age", "age"], known=["MRN"], ignore_case=True) == "'Age' at places 2 and 3"
    assert repeated_name_text(["a", "", ""], known=["a"]) is None
    assert repeated_name_text(["Page", "Page"], known=["age"]) == (
        "at places 1 and 2; its first line must hold the columns' names"
    )
    assert columns_text(["patientid", "age"], wanted=["patient_id"], known=["patient_id", "age"]) == (
        "2 columns, of which 'patientid' is called nearly so"
    )
    assert "'" not in columns_text(["Page", "Agge"], wanted=["age"]).replace("columns' names", "")
