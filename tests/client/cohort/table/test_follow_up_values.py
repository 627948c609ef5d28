"""Events and times of follow-up that are written otherwise: refused with the mapping, or read as what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.common.errors import FedAgeError
from tests.client.cohort.table.tables import ABOUT, SURVIVAL, read


@pytest.mark.parametrize("word", ["gestorben", "event", "relapse", "1 (dead)", "?"])
@pytest.mark.parametrize("rows", [[25, 27], range(21, 40, 2)], ids=["few", "all who died"])
def test_words_for_an_event_are_refused_and_not_left_out(
    frame: pd.DataFrame, tmp_path: Path, word: str, rows: list[int]
) -> None:
    """Without those patients, nobody at the site would have died."""
    frame.loc[rows, "status"] = word
    with pytest.raises(FedAgeError, match=r"site 'b': column 'status' holds .*, where numbers belong; write"):
        read(frame, tmp_path, ABOUT + SURVIVAL)


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
