"""Numbers that read as other numbers: a point between thousands, years.months, 0 for an unknown age."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.client.cohort.bids.participants import AgeColumn, age_unit
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.table.grouped_digits import grouped_by_points
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.units import ages_problem
from fedage.client.site.mapping import Mapped
from fedage.common.errors import FedAgeError
from tests.client.cohort.table.test_numbers_written_otherwise import read, table

RNG = np.random.default_rng(5)
DAYS = RNG.integers(200, 2600, 40)


def as_written(values: np.ndarray) -> list[str]:
    """Whole numbers as a German or Dutch spreadsheet writes them."""
    return [f"{value:,}".replace(",", ".") for value in values.tolist()]


def test_follow_up_in_days_with_points_between_thousands_is_refused_with_the_mapping_that_divides(
    tmp_path: Path,
) -> None:
    lines = [f"p{row};{text}" for row, text in enumerate(as_written(DAYS))]
    (tmp_path / "o.csv").write_text("\n".join(["patient_id;days", *lines, ""]))
    with pytest.raises(FedAgeError, match="'days' holds numbers with a sign between thousands"):
        read_outcomes(tmp_path / "o.csv", columns={"time_years": Mapped(column="days", divide_by=365.25)})
    assert read_outcomes(tmp_path / "o.csv").values["p0"] == {}  # and is left out, named, where none is asked for


def test_a_feature_with_points_between_thousands_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FedAgeError, match="'thick' holds numbers with a sign between thousands"):
        read(table(thick=as_written(RNG.integers(700, 1400, 20))), tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        [*RNG.normal(2.5, 0.3, 40).round(3), 999, 998, 888, 777],  # codes beside measures of three decimals
        [0.123, *RNG.uniform(1, 999, 40).round(3), *range(100, 140)],  # from 0.1 on: nobody writes 0.123 for 123
        [*RNG.uniform(1, 99, 40).round(2), *range(100, 140)],  # two decimals
        [*(float(f"{value:.3g}") for value in RNG.uniform(1, 999, 90))],  # three digits, as many machines give
        [*RNG.uniform(1, 9, 40).round(3), *range(900, 1100)],  # whole numbers on either side of a thousand
    ],
    ids=["codes", "below one", "two decimals", "three digits", "above a thousand"],
)
def test_ordinary_columns_are_read(values: list[float]) -> None:
    assert not grouped_by_points(np.array(values, dtype=np.float64)).any()


@pytest.mark.parametrize(
    "values", [(10 ** RNG.uniform(1.5, 5, 200)).astype(int), RNG.integers(900, 1100, 30), -RNG.integers(500, 3000, 60)]
)
def test_columns_that_cross_a_thousand_are_seen(values: np.ndarray) -> None:
    read_as = np.array([float(text) for text in as_written(values)])
    found = grouped_by_points(read_as)
    assert found[read_as != values].all()


@pytest.mark.parametrize(
    ("ages", "wrong"),
    [
        ([6 + row + (5 * row % 12) / 100 for row in range(30)], True),
        ([40 + row % 3 + (row % 12) / 100 for row in range(40)], True),
        ([float(f"{9 + row % 4}.{row % 12:02d}") for row in range(24)], True),
        ([6 + row + (5 * row % 12) / 12 for row in range(30)], False),
        ([6 + row + (row % 2) / 10 for row in range(30)], False),  # tenths, by chance of 0 and 1 only
        ([20.0 + row for row in range(30)], False),
        ([*range(20, 60), 34.05, 51.11], False),
    ],
)
def test_ages_in_years_and_months_are_seen(ages: list[float], wrong: bool) -> None:
    assert ("years and months" in ages_problem(np.array(ages))) == wrong


def test_they_are_refused_in_a_table_and_in_a_bids_data_set(tmp_path: Path) -> None:
    texts = [f"{9 + row % 4}.{row % 12:02d}" for row in range(24)]
    with pytest.raises(FedAgeError, match="'age' seems to hold years and months"):
        read(table(age=texts[:20]), tmp_path)
    with pytest.raises(FedAgeError, match="'age' seems to hold years and months"):
        AgeColumn.from_texts(texts, unit="year").require_plausible(texts, file="participants.tsv")


@pytest.mark.parametrize(("youngest", "kept"), [(48.5, 18), (2.0, 18), (0.4, 20)])
def test_an_age_of_0_among_adults_is_set_aside_and_a_newborn_among_infants_is_not(
    tmp_path: Path, youngest: float, kept: int
) -> None:
    ages = [0, 0, youngest, *(50.5 + row for row in range(17))]
    found = read(table(age=ages), tmp_path)
    assert sum(site.split_uniform.size for site in found.sites.values()) == kept
    assert ("with an age of 0 where nobody" in " ".join(found.messages)) == (kept < 20)


@pytest.mark.parametrize(
    ("texts", "unit", "known"),
    [(["0", "45", "61"], "year", False), (["0", "30", "61"], "month", False), (["0", "14", "61"], "month", True)],
)
def test_so_it_is_in_a_bids_data_set(texts: list[str], unit: str, known: bool) -> None:
    found = AgeColumn.from_texts(texts, unit=unit).age("0")
    assert (found is not Reason.ZERO_AGE) == known


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"LongName": "Age (months)"}, "mentions months"),
        ({"Units": "years", "Description": "age in weeks"}, "gives the Units 'years'"),
        ({"LongName": "age", "Description": "Age at onset of the disease", "Units": "years"}, "another moment"),
        ({"Description": "age at first diagnosis", "Units": "years"}, "another moment"),
        ({"Description": "age, z-scored"}, "another moment"),
        ({"Description": "Age at scan in years; diagnosis in another column"}, ""),
        ({"LongName": "Age of the participant", "Description": "in years", "Units": "y"}, ""),
        ({"Units": "months", "Description": "age in months at enrolment"}, ""),
    ],
)
def test_what_describes_an_age_is_read_whole(column: dict[str, str], said: str) -> None:
    if said:
        with pytest.raises(FedAgeError, match=said):
            age_unit({"age": column}, file="participants.json")
    else:
        assert age_unit({"age": column}, file="participants.json") in ("year", "month")
