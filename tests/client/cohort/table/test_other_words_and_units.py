"""Sexes in another language's words and ages in another unit are refused: a part of them would be read, as others."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.bids.participants import AgeColumn, require_sexes, sex_codes
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.store.tables import index_table, read_table
from fedage.client.cohort.table.sex import kinds_of_words, words_problem
from fedage.client.cohort.table.sites import read_site_tables
from fedage.client.cohort.table.units import are_no_years
from fedage.client.site.mapping import TableSource
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError

CAMPAIGN = """
[campaign]
name = "words"
purpose = "Read sexes and ages of a small made-up table"
seed = 1
[estimator]
name = "table-ridge"
[estimator.options]
features = ["x"]
[table]
id = "who"
age = "age"
sex = "sex"
"""
SPANISH, OTHER_SPANISH, GERMAN, DUTCH = ["M", "H"] * 6, ["V", "m"] * 6, ["w", "m"] * 6, ["man", "M"] * 6
FRENCH, TURKISH = ["F", "H"] * 6, ["E", "K"] * 5 + ["M", "F"]


def frame(**columns: Any) -> pd.DataFrame:
    given = {"sex": ["M", "F"] * 6, "age": np.arange(40.0, 52.0), **columns}
    return pd.DataFrame({"who": [f"p{k}" for k in range(12)], "hospital": ["a", "b"] * 6, "x": range(12), **given})


def simulated(table: pd.DataFrame, folder: Path) -> None:
    table.to_csv(folder / "t.csv", index=False)
    read_site_tables(folder / "t.csv", parse_campaign(CAMPAIGN), site_column="hospital")


def deployed(table: pd.DataFrame, folder: Path, **settings: Any) -> list[Any]:
    table.to_csv(folder / "t.csv", index=False)
    source = TableSource(path=str(folder / "t.csv"), id="who", age="age", **{"sex": "sex", **settings})
    with CohortStore.open(folder / "home", key=bytes(32)) as store:
        index_table(store, source)
        found = read_table(store)
    assert found is not None
    return sorted(found.frame["sex"].tolist())


@pytest.mark.parametrize("words", [SPANISH, OTHER_SPANISH, GERMAN, DUTCH, FRENCH, TURKISH, ["M", "vrouwelijk"] * 6])
def test_words_of_another_language_beside_m_or_f_are_refused(words: list[str], tmp_path: Path) -> None:
    mixed = frame(sex=words)
    mixed["hospital"] = ["a"] * 6 + ["b"] * 6
    for read in (simulated, deployed):
        with pytest.raises(FedAgeError, match="column 'sex' holds M or F beside other words for a sex") as refused:
            read(mixed, tmp_path)
        assert "write male and female" in str(refused.value)


def test_one_site_with_other_words_is_refused_by_its_name(tmp_path: Path) -> None:
    table = frame(sex=["M", "M", "F", "H"] * 3)  # every second row is of site b
    with pytest.raises(FedAgeError, match=r"t\.csv, site 'b': column 'sex' holds M or F") as refused:
        simulated(table, tmp_path)
    assert "site 'a'" not in str(refused.value)


def test_a_site_may_say_what_its_words_mean(tmp_path: Path) -> None:
    assert deployed(frame(sex=SPANISH), tmp_path, male="H", female="M") == ["f"] * 6 + ["m"] * 6


def test_a_column_that_the_site_does_not_call_its_sex_gives_none_either(tmp_path: Path) -> None:
    assert set(deployed(frame(sex=SPANISH), tmp_path, sex=None)) == {"?"}


@pytest.mark.parametrize(
    "words",
    [
        ["M", "F", "diverse"] * 4,
        ["M"] * 10 + ["unknown", "X"],
        ["female"] * 9 + ["?", "other", ""],
        [*["M", "F"] * 5, "letter", "see file"],
        [1.0, 0.0] * 6,
        ["M", "F"] * 30 + ["W"],
        ["Frau", "Mann"] * 6,  # neither M nor F: nobody is read as anything
    ],
)
def test_few_other_words_and_words_for_neither_are_no_other_language(words: list[Any]) -> None:
    assert words_problem(kinds_of_words(pd.Series(words))) == ""


@pytest.mark.parametrize(
    ("ages", "wrong"),
    [
        (np.arange(60.0, 205.0, 12.0), True),  # children in months
        (np.arange(18.0, 80.0) * 365.25, True),
        (np.arange(1950.0, 1990.0), True),
        (np.array([41.0, np.nan, 55.0, 999.0, 999.0, 999.0]), False),
        (np.array([41.0, 380.0, 999.0]), False),
        (np.concatenate([np.arange(20.0, 90.0), [450.0, 600.0, 612.0]]), False),
        (np.arange(0.0, 130.0), False),
        (np.array([]), False),
    ],
)
def test_many_different_ages_above_130_are_another_unit(ages: np.ndarray, wrong: bool) -> None:
    assert are_no_years(ages) == wrong


@pytest.mark.parametrize("ages", [np.arange(60, 204, 12), np.arange(12) * 365 + 9000, np.arange(1950, 1962)])
def test_ages_in_another_unit_are_refused_at_both_kinds_of_sites(ages: np.ndarray, tmp_path: Path) -> None:
    for read in (simulated, deployed):
        with pytest.raises(FedAgeError, match="column 'age' holds many ages above 130"):
            read(frame(age=ages), tmp_path)


def test_of_a_bids_data_set_too() -> None:
    months = [str(age) for age in range(60, 204, 12)]
    with pytest.raises(FedAgeError, match=r"column 'age' holds many ages above 130.*Units"):
        AgeColumn.from_texts(months, unit="year").require_plausible(months, file="participants.tsv")
    AgeColumn.from_texts(months, unit="month").require_plausible(months, file="participants.tsv")
    AgeColumn.from_texts(months, unit="year").require_plausible([f"{age}M" for age in months], file="participants.tsv")


@pytest.mark.parametrize("words", [["H", "M"] * 3, ["V", "M"] * 3, ["w", "m"] * 3])
def test_sexes_of_a_bids_data_set_are_those_its_json_says(words: list[str]) -> None:
    with pytest.raises(FedAgeError, match=r"column 'sex' holds M or F beside other words.*Levels"):
        require_sexes(words, sex_codes({}), file="participants.tsv")
    female, male = ("M", words[0]) if words[0] in "HV" else ("w", "m")
    for names in (("mujer", "hombre"), ("female", "male"), ("Frau", "Mann")):
        codes = sex_codes({"sex": {"Levels": {female: names[0], male: names[1]}}})
        assert (codes[female.casefold()], codes[male.casefold()]) == ("F", "M")
        require_sexes(words, codes, file="participants.tsv")
    assert "m" not in sex_codes({"sex": {"Levels": {"M": "missing"}}})


@pytest.mark.parametrize(
    ("levels", "codes"),
    [
        ({"M": "Masculine", "F": "Feminine"}, {"m": "M", "f": "F"}),
        ({"1": "men", "2": {"Description": "women"}}, {"1": "M", "2": "F", "m": "M", "f": "F"}),
        ({"M": "männlich", "W": "weiblich"}, {"m": "M", "w": "F", "f": "F"}),
        ({"M": "", "F": None}, {"m": "M", "f": "F"}),
        ({"M": "missing"}, {"f": "F"}),
    ],
)
def test_levels_of_sexes_in_other_words(levels: dict[str, Any], codes: dict[str, str]) -> None:
    found = sex_codes({"sex": {"Levels": levels}})
    assert {code: sex for code, sex in found.items() if len(code) == 1} == codes
