"""What stands in a site's own tables is read as what it is, or told with column and mend; identifiers are texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.bids.participants import read_rows
from fedage.client.cohort.indexing.join_outcomes import OTHER_ZEROS
from fedage.client.cohort.recipes._base import table as recipe_table
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.store.tables import TableReport, index_table, read_table
from fedage.client.cohort.table.messages import reason_text
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.consent.site_cohorts import TableCohorts
from fedage.client.site.mapping import Mapped, TableSource
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.protocol.messages import RequestRefused
from tests.client.cohort.bids.test_bids import data_set, t1w
from tests.client.cohort.dicoms import write
from tests.client.test_indexing import index

MISWRITTEN = ["1,534.5", "1.534,5", "1 534", "1'534.5", "1534,5", ",75", "−1534.5"]


def outcomes(folder: Path, **columns: list[object]) -> Path:
    number = len(next(iter(columns.values())))
    frame = pd.DataFrame({"patient_id": [f"p{k}" for k in range(number)], **columns})
    frame.to_csv(folder / "o.csv", index=False, sep=";")
    return folder / "o.csv"


VOLUMES = [f"{value:.1f}" for value in np.linspace(900, 1900, 15)]


@pytest.mark.parametrize("cell", MISWRITTEN)
@pytest.mark.parametrize("cells", [1, 15])
def test_outcomes_written_otherwise_are_left_out_and_named(tmp_path: Path, cell: str, cells: int) -> None:
    path = outcomes(tmp_path, volume=[*[cell] * cells, *VOLUMES[cells:]], event=[0, 1, 1] * 5)
    found = read_outcomes(path)
    assert all(set(row) == {"event"} for row in found.values.values())
    assert sum(found.left_out.values()) == cells
    (line,) = found.messages
    assert line.startswith("column 'volume' is left out because it holds numbers with a ")
    assert "write" in line
    assert "534" not in line
    with pytest.raises(FedAgeError, match=r"o\.csv: column 'volume' holds numbers with a .*, where numbers belong"):
        read_outcomes(path, columns={"brain": "volume"})
    with pytest.raises(FedAgeError, match=r"o\.csv: column 'volume' holds numbers with a .*, where numbers belong"):
        read_outcomes(path, columns={"brain": Mapped(column="volume", divide_by=1000.0)})


@pytest.mark.parametrize(
    ("event", "none", "values"),
    [("yes", "no", '"yes" = 1, "no" = 0'), ("Y", "N", '"y" = 1, "n" = 0'),
     ("dead", "alive", '"dead" = 1, "alive" = 0'), ("pos", "neg", '"pos" = 1, "neg" = 0')],
)  # fmt: skip
def test_events_in_words_come_with_their_mapping(tmp_path: Path, event: str, none: str, values: str) -> None:
    path = outcomes(tmp_path, event=[event, none, none] * 5)
    found = read_outcomes(path)
    assert found.text_columns == {"event": 15}
    assert found.messages[0].startswith("column 'event' holds words (")
    assert f"values = {{ {values} }}" in found.messages[0]
    with pytest.raises(FedAgeError, match=r"column 'event' holds words .*, where numbers belong") as refused:
        read_outcomes(path, columns={"event": "event"})
    assert f"values = {{ {values} }}" in str(refused.value)
    mapped = read_outcomes(path, columns={"event": Mapped(column="event", values={event: 1.0, none: 0.0})})
    assert sum(row["event"] for row in mapped.values.values()) == 5


@pytest.mark.parametrize(
    ("cell", "form"), [("18-38", "range"), ("89+", "limit"), ("3 y", "with-unit"), ("2020-01-31", "date"), ("oops", "")]
)
def test_other_forms_are_counted_by_form(tmp_path: Path, cell: str, form: str) -> None:
    found = read_outcomes(outcomes(tmp_path, time_years=[cell, cell, *range(13)]))
    assert found.counts()[f"{form or 'not-a-number'}:time_years"] == 2
    assert not any("oops" in line for line in found.messages)


@pytest.mark.parametrize("code", [-9999, 999, -77777, 99.9])
def test_an_undeclared_code_is_kept_and_said(tmp_path: Path, code: float) -> None:
    path = outcomes(tmp_path, thick=[code, code, *np.linspace(2, 3, 13)])
    found = read_outcomes(path)
    assert found.counts()[f"kept-extreme:{code:g}:thick"] == 2
    assert found.values["p0"] == {"thick": code}
    assert found.messages == (
        f"column 'thick' holds {code:g}, far beyond the others, in fewer than 10 cells, which counts as a value; if it "
        "stands for missing, add it to missing of [outcome_columns] in site.toml",
    )
    declared = read_outcomes(path, missing=[code])
    assert (declared.messages, declared.values["p0"], declared.not_numbers) == ((), {}, {})


@pytest.mark.parametrize("line", ["sep=;", '"sep=,"', "SEP=\t", "sep=|"])
@pytest.mark.parametrize("begins", ["", "\ufeff", "\n"])
def test_excel_s_first_line(tmp_path: Path, line: str, begins: str) -> None:
    sign = line.strip('"')[-1]
    text = f"{begins}{line}\npatient_id,event\nNA,1\n007,0\n".replace(",", sign if "sep=," not in line else ",")
    (tmp_path / "o.csv").write_text(text, encoding="utf-8")
    assert read_outcomes(tmp_path / "o.csv").values == {"NA": {"event": 1.0}, "007": {"event": 0.0}}
    (tmp_path / "r.csv").write_text(text.lstrip("\n"), encoding="utf-8")
    assert recipe_table(tmp_path, "r.csv", ("patient_id",))["patient_id"].tolist() == ["NA", "007"]


def test_participants_after_excel_s_first_line(tmp_path: Path) -> None:
    file = tmp_path / "participants.tsv"
    file.write_text("sep=\t\nparticipant_id\tage\nsub-01\t45\n", encoding="utf-8")
    assert [dict(row) for row in read_rows(file, key="participant_id")] == [{"participant_id": "sub-01", "age": "45"}]
    file.write_text("sep=;\nparticipant_id;age\nsub-01;45\n", encoding="utf-8")
    with pytest.raises(FedAgeError, match="says that its cells are separated by ';', and BIDS separates them by tabs"):
        read_rows(file, key="participant_id")


@pytest.mark.parametrize(("image", "row"), [("00010", "10"), ("10", "0010"), ("P-007", "P-7"), ("10", "10.0")])
def test_outcomes_and_images_that_differ_in_zeros(tmp_path: Path, image: str, row: str) -> None:
    write(tmp_path / "data/a.dcm", image)
    write(tmp_path / "data/b.dcm", "b")
    (tmp_path / "outcomes.csv").write_text(f"patient_id,event\n{row},1\nb,1\nz,1\n")
    found = index(tmp_path / "home", data=str(tmp_path / "data"), outcomes=str(tmp_path / "outcomes.csv"))
    assert found.outcomes["patients-with-outcomes"] == 1
    assert found.outcomes["unknown-patients"] == 2
    assert found.outcomes["unknown-but-for-leading-zeros"] == 1
    assert found.messages == (OTHER_ZEROS,)


def test_outcomes_that_have_both_spellings_are_counted(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text("patient_id,event\n10,1\n00010,0\n010,1\n7,1\n")
    found = read_outcomes(tmp_path / "o.csv")
    assert found.counts()["identifiers-differ-in-zeros"] == 2
    assert len(found.values) == 4


@pytest.mark.parametrize("row", ["10", "sub-10", "sub-0010"])
def test_participants_whose_folders_differ_in_zeros(tmp_path: Path, row: str) -> None:
    root = data_set(tmp_path / "data", f"participant_id\tage\n{row}\t45.5\nsub-b\t45.5\n")
    for name in ("00010", "b", "c"):
        t1w(root, name)
    found = index(tmp_path / "home", data=str(root))
    assert found.images is not None
    assert found.images.rejected == {"leading-zeros-differ": 1, "not-in-table": 1}
    assert found.images.patients == 1


# -- a site's own table


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "who": [f"{number:03}" for number in range(30)],
            "age": rng.uniform(20, 80, 30).round(1),
            "volume": rng.normal(1500, 300, size=30).round(1),
            "thick": rng.normal(3, 0.3, size=30).round(3),
            "event": [0, 1, 1] * 10,
            "time": rng.uniform(0.1, 9, size=30).round(2),
        }
    ).astype({"age": object, "volume": object, "event": object})


def indexed(frame: pd.DataFrame, folder: Path, **settings: object) -> TableReport:
    frame.to_csv(folder / "t.csv", index=False)
    with CohortStore.open(folder / "home", key=bytes(range(32))) as store:
        return index_table(store, TableSource(path=str(folder / "t.csv"), id="who", age="age", **settings))


def stored_columns(folder: Path) -> set[str]:
    with CohortStore.open(folder / "home") as store:
        stored = read_table(store)
    assert stored is not None
    return set(stored.frame.columns)


@pytest.mark.parametrize("cell", MISWRITTEN)
@pytest.mark.parametrize("cells", [1, 30])
def test_a_table_s_columns_written_otherwise(frame: pd.DataFrame, tmp_path: Path, cell: str, cells: int) -> None:
    frame.loc[: cells - 1, "volume"] = cell
    report = indexed(frame, tmp_path)
    assert stored_columns(tmp_path) == {"age", "thick", "event", "time"}
    ((reason, count),) = report.rejected.items()
    assert count == cells
    assert reason_text(reason, count).startswith("column 'volume' is left out because it holds numbers with a ")
    with pytest.raises(FedAgeError, match=r"t\.csv: column 'volume' holds numbers with a .*, where numbers belong"):
        indexed(frame, tmp_path, columns={"brain": "volume"})
    frame.loc[: cells - 1, "age"] = "45,5"
    with pytest.raises(FedAgeError, match=r"t\.csv: column 'age' holds numbers with a comma before the decimals"):
        indexed(frame, tmp_path)


@pytest.mark.parametrize("cell", ["18-38", "40–49", "89+", "045Y", "1961-05-07"])
def test_a_table_s_ages_of_another_form(frame: pd.DataFrame, tmp_path: Path, cell: str) -> None:
    frame.loc[:3, "age"] = cell
    (reason,) = (report := indexed(frame, tmp_path)).rejected
    assert reason.endswith(":age")
    assert "write" in reason_text(reason, report.rejected[reason])
    frame["age"] = cell
    with pytest.raises(FedAgeError, match=r"t\.csv: column 'age' holds .*, where numbers belong; write"):
        indexed(frame, tmp_path)


CAMPAIGN = parse_campaign(
    """
[campaign]
name = "tables"
purpose = "Try what a table may hold"
seed = 1
[table]
id = "id"
age = "age"
[survival]
time = "time"
event = "event"
[[survival.models]]
name = "thick"
covariates = ["thick"]
"""
)


@pytest.mark.parametrize("words", [("yes", "no"), ("dead", "alive"), ("Y", "N")])
def test_a_table_s_events_in_words(frame: pd.DataFrame, tmp_path: Path, words: tuple[str, str]) -> None:
    plain = frame["event"]
    frame["event"] = plain.map({1: words[0], 0: words[1]})
    report = indexed(frame, tmp_path)
    assert report.rejected == {"yes-or-no:event": 30}
    assert "say what the words mean in the site's site.toml" in reason_text("yes-or-no:event", 30)
    with pytest.raises(RequestRefused, match="column 'event' of this site's table holds texts"):
        TableCohorts(tmp_path / "home").read(CAMPAIGN)
    mapping = {"event": {"column": "event", "values": {words[0]: 1.0, words[1]: 0.0}}}
    indexed(frame, tmp_path, columns=mapping)
    assert TableCohorts(tmp_path / "home").read(CAMPAIGN).cohort["event"].sum() == plain.sum()


@pytest.mark.parametrize("code", [-9999, 999, -88])
def test_a_table_s_undeclared_code_is_said_at_the_site_and_in_the_answer(
    frame: pd.DataFrame, tmp_path: Path, code: float
) -> None:
    frame.loc[:11, "thick"] = code
    assert indexed(frame, tmp_path).rejected == {f"kept-extreme:{code}:thick": 12}
    assert "in 12 cells" in reason_text(f"kept-extreme:{code}:thick", 12)
    cohort = TableCohorts(tmp_path / "home").read(CAMPAIGN)
    assert cohort.rejected_files == {f"kept-extreme:{code}:thick": 12}
    assert (cohort.cohort["thick"] == code).sum() == 12
    assert indexed(frame, tmp_path, missing=(code,)).rejected == {}
    assert np.isnan(TableCohorts(tmp_path / "home").read(CAMPAIGN).cohort["thick"]).sum() == 12


def test_a_code_in_days_is_missing_before_it_is_divided(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["days"] = frame.pop("time") * 365.25
    frame.loc[:4, "days"] = -9999
    indexed(frame, tmp_path, missing=(-9999.0,), columns={"time": {"column": "days", "divide_by": 365.25}})
    assert np.isnan(TableCohorts(tmp_path / "home").read(CAMPAIGN).cohort["time"]).sum() == 5


def test_identifiers_of_a_table_stay_texts(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["who"] = ["00010", "10", "010", *[f"x{k}" for k in range(27)]]
    assert indexed(frame, tmp_path).patients == 30
