"""The hospital's table: what is read, what is set aside, what is refused."""

import time
from pathlib import Path

import pandas as pd
import pytest

from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.site.mapping import Mapped
from fedage.common.errors import FedAgeError


def table(tmp_path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = tmp_path / "outcomes.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_numbers_are_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    found = read_outcomes(
        table(
            tmp_path,
            "patient_id,time_years,event,grade,2\u00a0nd\n"
            "007,1.5,1,low,1\n"
            " a ,oops,0,high,1\n"
            "b,,true,,1\n"
            "007,9,9,low,1\n"
            ",3,1,low,1\n"
            "c,inf,NA,low,1\n"
            "d,4e-1,False,low,1\n",
        )
    )
    assert found.values == {
        "007": {"time_years": 1.5, "event": 1.0},
        "a": {"event": 0.0},
        "b": {"event": 1.0},
        "c": {},
        "d": {"time_years": 0.4, "event": 0.0},
    }
    assert found.counts() == {
        "duplicate-rows": 1,
        "rows-without-id": 1,
        "columns-with-unusable-name": 1,
        "infinite:time_years": 1,
        "not-a-number:time_years": 1,
        "text-column:grade": 4,
    }
    assert "007" not in repr(found)


@pytest.mark.parametrize(
    ("cell", "form"),
    [
        ("inf", "infinite"),
        ("-Infinity", "infinite"),
        ("∞", "infinite"),
        ("1e400", "infinite"),
        ("50%", "with-unit"),
        ("50 % ", "with-unit"),
        ("<5", "limit"),
        ("12 mm", "with-unit"),
        ("#N/V!", "spreadsheet-error"),
        ("#DIV/0!", "spreadsheet-error"),
    ],
)
def test_a_cell_that_is_read_as_nothing_is_counted_by_its_form(tmp_path: Path, cell: str, form: str) -> None:
    found = read_outcomes(table(tmp_path, f"patient_id;fev\na;{cell}\nb;3.5\nc;4\n"))
    assert found.not_numbers == {f"{form}:fev": 1}
    assert "a" not in found.values or "fev" not in found.values["a"]


@pytest.mark.parametrize(
    ("cell", "words"), [("50%", "a unit"), ("<5", "limits"), ("18-38", "ranges"), ("inf", "infin")]
)
def test_a_column_that_is_of_no_use_for_how_it_is_written_is_said(tmp_path: Path, cell: str, words: str) -> None:
    found = read_outcomes(table(tmp_path, f"patient_id;fev\na;{cell}\nb;{cell}\nc;{cell}\n"))
    assert found.text_columns == {"fev": 3}
    assert any("'fev'" in message and words in message for message in found.messages)
    plain = read_outcomes(table(tmp_path, "patient_id;town\na;Bern\nb;Basel\nc;Bern\n"))
    assert not plain.messages


def test_a_separator_at_the_end_of_each_row_names_no_column(tmp_path: Path) -> None:
    found = read_outcomes(table(tmp_path, "patient_id,event\na,1,\nb,0,\n"))
    assert found.values == {"a": {"event": 1.0}, "b": {"event": 0.0}}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_and_the_byte_order_mark(tmp_path: Path, separator: str, encoding: str) -> None:
    text = "Patient-Nr,event\r\nMüller,1\r\n".replace(",", separator)
    path = table(tmp_path, text, encoding=encoding)
    assert read_outcomes(path, id_column="Patient-Nr").values == {"Müller": {"event": 1.0}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mrn,event\n1,1\n", "no column 'patient_id', it has 2 columns"),
        ("", "is empty"),
        ("patient_id,event\nsecret,1,2\nx,1,2,3,4\n", "rows differ in length"),
        ("patient_id,time_years\nsecret,1,5\nx,2,5\n", "more cells than the header has names"),
        ("patient_id,event, event\n1,1,1\n", "has a column twice"),
        ("patient_id,event,event\n1,1,0\n", "has a column twice"),
        ("patient_id;event;time;event\n1;1;2;0\n", "has a column twice"),
        ('patient_id\tevent\t"event"\n1\t1\t0\n', "has a column twice"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(FedAgeError, match=says) as caught:
        read_outcomes(table(tmp_path, text))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_other_encoding(tmp_path: Path) -> None:
    with pytest.raises(FedAgeError, match=r"gone\.csv cannot be read"):
        read_outcomes(tmp_path / "gone.csv")
    with pytest.raises(FedAgeError, match="not UTF-8"):
        read_outcomes(table(tmp_path, "patient_id,event\nMüller,1\n", encoding="latin-1"))


MAPPED = {
    "time_years": Mapped(column="fu days", divide_by=2.0),
    "event": Mapped(column="Status", values={"Dead": 1, "alive ": 0}),
    "cancer": Mapped(column="finding", values={"malignant": 1, "": 0}, others=0.0, rows="max"),
    "worst": Mapped(column="score", rows="min"),
    "score": "score",
}


def test_columns_and_words_are_mapped_and_rows_of_a_patient_combined(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "MRN,fu days,Status,finding,score,name\n"
        "a,10,dead,benign,3,x\n"
        "b,9,ALIVE,Malignant,,y\n"
        "a,99,alive,malignant,2,x\n"
        ",1,dead,benign,1,x\n"
        "c,oops,lost,,NA,z\n",
    )
    found = read_outcomes(path, id_column="MRN", columns=MAPPED)
    assert found.values == {
        "a": {"time_years": 5.0, "event": 1.0, "cancer": 1.0, "worst": 2.0, "score": 3.0},
        "b": {"time_years": 4.5, "event": 0.0, "cancer": 1.0},
        "c": {"cancer": 0.0},
    }
    assert found.counts() == {
        "duplicate-rows": 0,
        "rows-without-id": 1,
        "columns-with-unusable-name": 0,
        "not-a-number:time_years": 1,
        "not-named:event": 1,
    }


def test_a_mapped_column_that_is_not_there_is_named_with_those_there_are(tmp_path: Path) -> None:
    path = table(tmp_path, "MRN,Status\na,dead\n")
    with pytest.raises(
        FedAgeError, match=r"no column 'fu days', 'finding', 'score', it has 2 columns, .*; correct outcome"
    ):
        read_outcomes(path, id_column="MRN", columns=MAPPED)
    with pytest.raises(FedAgeError, match=r"no column 'id', it has 2 columns, .*outcome_columns\.id"):
        read_outcomes(path, id_column="id", columns=MAPPED)


def test_words_among_numbers_are_read_as_alone(tmp_path: Path) -> None:
    """Numbers are read together and only the rest as words; either way a cell means the same."""
    cells = {
        " 1 ": 1.0, "1e3": 1000.0, "+2": 2.0, "-0.5": -0.5, "True": 1.0, " false": 0.0, "NA": None, ".": None,
        "inf": None, "-Infinity": None, "nan": None, "x": None, "": None, "0x10": None,
    }  # fmt: skip
    for text, value in cells.items():
        rows = [("a", text), *((f"p{number}", "3") for number in range(40))]
        (tmp_path / "o.csv").write_text("patient_id;x\n" + "".join(f"{who};{cell}\n" for who, cell in rows))
        found = read_outcomes(tmp_path / "o.csv")
        assert found.values["a"].get("x") == value, text
        assert found.values["p1"] == {"x": 3.0}
        wrong = value is None and text not in ("NA", ".", "nan", "")
        code = "infinite" if "inf" in text.lower() else "not-a-number"
        assert found.not_numbers == ({f"{code}:x": 1} if wrong else {}), text


def test_a_wide_table_is_read_in_the_time_that_its_texts_take(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(800)]
    rows = [",".join([f"p{row}", *([str(row * 0.5)] * 800)]) for row in range(800)]
    (tmp_path / "o.csv").write_text("\n".join([",".join(["patient_id", *names]), *rows]) + "\n")
    began = time.process_time()
    table = pd.read_csv(tmp_path / "o.csv", dtype=str, keep_default_na=False)
    texts = time.process_time() - began
    began = time.process_time()
    found = read_outcomes(tmp_path / "o.csv")
    assert time.process_time() - began < 8 * texts + 0.5
    assert found.values["p3"] == dict.fromkeys(names, 1.5)
    assert len(found.values) == len(table)


@pytest.mark.parametrize("name", ["tumour size", "ki-67", "Größe (cm)", "2nd visit", "[red]x[/]"])
def test_a_column_is_read_by_whatever_visible_name_it_has(tmp_path: Path, name: str) -> None:
    found = read_outcomes(table(tmp_path, f"patient_id,{name}\na,1\nb,2.5\n"))
    assert found.values == {"a": {name: 1.0}, "b": {name: 2.5}}
    assert found.counts()["columns-with-unusable-name"] == 0


@pytest.mark.parametrize(
    ("cells", "words", "others"),
    [
        (["2", "1", "", "2.0"], {"2": 1.0, "1": 0.0}, None),
        (["02", "01", "", "2"], {"2": 1.0, "1": 0.0}, None),
        (["2", "1", "", "2"], {"02": 1.0, "01": 0.0}, None),
        (["2.0", "1.0", "", "2.0"], {"2": 1.0}, 0.0),  # nobody had the event
        (["-1", "1", "", "-1.0"], {"-1": 1.0, "dead": 1.0}, 0.0),
    ],
)
def test_codes_are_the_same_however_a_number_is_written(
    tmp_path: Path, cells: list[str], words: dict[str, float], others: float | None
) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text("patient_id,status\n" + "".join(f"p{k},{cell}\n" for k, cell in enumerate(cells)))
    mapped = {"event": Mapped(column="status", values=words, others=others)}
    found = read_outcomes(path, columns=mapped)
    assert [row.get("event") for row in found.values.values()] == [1.0, 0.0, None, 1.0]


def test_a_code_written_as_told_comes_before_the_same_number(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text("patient_id,status\na,1\nb,01\nc,1.0\nd,1e0\n")
    mapped = {"event": Mapped(column="status", values={"1": 0.0, "01": 1.0})}
    found = read_outcomes(path, columns=mapped)
    assert found.values["a"] == {"event": 0.0}
    assert found.values["b"] == {"event": 1.0}
    assert found.values["d"] == {}


def test_an_empty_cell_may_be_given_a_meaning(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text("patient_id,status\na,1\nb,\nc, \nd,1.0\n")
    mapped = {"event": Mapped(column="status", values={"1": 1.0, "": 0.0})}
    found = read_outcomes(path, columns=mapped)
    assert [row["event"] for row in found.values.values()] == [1.0, 0.0, 0.0, 1.0]
