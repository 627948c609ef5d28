"""Ages by hand."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from fedage.client.cohort.ages import Age, AgeSource, age_at_exam, exam_date, parse_date
from fedage.client.cohort.dicom.facts import read_facts
from fedage.client.cohort.reasons import Reason, Rejected
from tests.client.cohort.dicoms import write

BORN, SEEN = date(2000, 2, 1), date(2000, 2, 1)


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("004Y", Age(4.5, AgeSource.AGE_YEARS)),
        (" 4y ", Age(4.5, AgeSource.AGE_YEARS)),
        ("001Y", Age(1.5, AgeSource.AGE_YEARS)),
        ("018M", Age(18.5 / 12, AgeSource.AGE_MONTHS)),
        ("010W", Age(10.5 * 7 / 365.25, AgeSource.AGE_WEEKS)),
        ("010D", Age(10.5 / 365.25, AgeSource.AGE_DAYS)),
        ("088Y", Age(88.5, AgeSource.AGE_YEARS)),
        ("089Y", Age(89.0, AgeSource.AGE_YEARS, capped=True)),
        ("090Y", Age(90.0, AgeSource.AGE_YEARS, capped=True)),
        ("091Y", Age(91.5, AgeSource.AGE_YEARS)),
        ("089M", Age(89.5 / 12, AgeSource.AGE_MONTHS)),
    ],
)
def test_patient_age(text: str, age: Age) -> None:
    found = age_at_exam(birth=None, exam=SEEN, age_string=text)
    assert isinstance(found, Age)
    assert (found.source, found.capped) == (age.source, age.capped)
    assert found.years == pytest.approx(age.years, rel=1e-14)


@pytest.mark.parametrize("text", ["000Y", "000M", "000W", "000D", "0Y", " 000y"])
def test_an_age_of_zero_counts_only_where_dates_confirm_it(text: str) -> None:
    for birth, exam in ((None, SEEN), (BORN, None), (None, None), (date(1900, 1, 1), SEEN), (date(1970, 1, 1), SEEN)):
        assert age_at_exam(birth=birth, exam=exam, age_string=text) is Reason.ZERO_AGE
    assert age_at_exam(birth=BORN, exam=SEEN, age_string=text, trusted=False) is Reason.ZERO_AGE
    assert age_at_exam(birth=date(1960, 1, 5), exam=SEEN, age_string=text) is Reason.CONTRADICTORY_AGE
    next_day = age_at_exam(birth=BORN, exam=date(2000, 2, 2), age_string=text)
    assert next_day == Age(1 / 365.25, AgeSource.DATES)


@pytest.mark.parametrize("text", ["45", "Y", "4 years", "-04Y", "٤Y", "1 2Y", "004X", "018-038"])
def test_an_age_that_cannot_be_read_is_no_missing_one(text: str) -> None:
    assert age_at_exam(birth=None, exam=SEEN, age_string=text) is Reason.UNREADABLE_AGE
    assert age_at_exam(birth=BORN, exam=None, age_string=text) is Reason.UNREADABLE_AGE
    assert age_at_exam(birth=BORN, exam=date(2001, 2, 1), age_string=text) == Age(366 / 365.25, AgeSource.DATES)
    for missing in ("", "  "):
        assert age_at_exam(birth=BORN, exam=None, age_string=missing) is Reason.NO_AGE


def years(birth: str, exam: str, age: str, *, trusted: bool = True) -> float | Reason:
    """The age on 2026-11-30, or why there is none."""
    found = age_at_exam(
        birth=parse_date(birth), exam=parse_date(exam), age_string=age, trusted=trusted, today=date(2026, 11, 30)
    )
    return found if isinstance(found, Reason) else found.years


def days(count: int) -> float:
    return count / 365.25


@pytest.mark.parametrize(
    ("birth", "exam", "age", "expected"),
    [
        # Dates that PatientAge does not contradict: its interval, and one unit on either side.
        ("19600101", "20200101", "", days(21915)),
        ("19600102", "20200101", "059Y", days(21914)),
        ("19600101", "20200101", "060Y", days(21915)),
        ("19600101", "20200101", "061Y", days(21915)),
        ("19600101", "20200101", "059Y", days(21915)),
        ("20190101", "20200101", "011M", 365 / 365.25),
        ("20100101", "20200101", "121M", days(3652)),  # months of 30 days
        ("20200101", "20200111", "010D", days(10)),
        ("20200101", "20200111", "001W", days(10)),
        ("19300601", "20200101", "089Y", days(32721)),  # "at least 89"
        ("19300601", "20200101", "090Y", days(32721)),
        # Dates that it contradicts.
        ("19600101", "20200101", "058Y", Reason.CONTRADICTORY_AGE),
        ("19600101", "20200101", "062Y", Reason.CONTRADICTORY_AGE),
        ("19600101", "20200101", "089Y", Reason.CONTRADICTORY_AGE),
        ("19600101", "20200101", "000Y", Reason.CONTRADICTORY_AGE),
        ("19600101", "20200101", "060M", Reason.CONTRADICTORY_AGE),
        ("20200101", "20200111", "013D", Reason.CONTRADICTORY_AGE),
        ("20190101", "20200101", "003M", Reason.CONTRADICTORY_AGE),
        # A PatientAge that nobody reaches says nothing.
        ("19600101", "20200101", "999Y", days(21915)),
        # Placeholders for the birth date.
        ("19000101", "20190601", "045Y", 45.5),
        ("00010101", "20190601", "045Y", 45.5),
        ("11111111", "20190601", "045Y", 45.5),
        ("18000101", "20190601", "018M", 18.5 / 12),
        ("19000101", "20190601", "", Reason.UNRELIABLE_DATES),
        ("00010101", "20190601", "", Reason.UNRELIABLE_DATES),
        ("19000101", "20190601", "119Y", Reason.UNRELIABLE_DATES),  # computed from the placeholder
        ("19000101", "20190601", "45", Reason.UNRELIABLE_DATES),
        ("19000101", "20190601", "999Y", Reason.UNRELIABLE_DATES),
        ("19000102", "19850601", "085Y", days(31196)),  # somebody
        ("18991230", "20150601", "", Reason.UNRELIABLE_DATES),  # day 0 of a spreadsheet: 115.4 years
        ("18991231", "20150601", "115Y", Reason.UNRELIABLE_DATES),
        ("18991230", "20150601", "045Y", 45.5),
        ("19010101", "20010601", "018M", 18.5 / 12),
        ("19111111", "20190601", "", Reason.UNRELIABLE_DATES),
        ("19111111", "20190601", "045Y", 45.5),
        ("19111112", "20010601", "089Y", days(32709)),
        # Born on the day of the exam.
        ("20190601", "20190601", "045Y", 45.5),
        ("20190601", "20190601", "", Reason.UNRELIABLE_DATES),
        ("20190601", "20190601", "000Y", Reason.UNRELIABLE_DATES),  # what a scanner computes from such a date
        ("20190601", "20190601", "000D", 0.0),
        ("20190601", "20190601", "000M", 0.0),
        ("20190601", "20190601", "010D", 10.5 / 365.25),
        # An exam that has not been yet.
        ("19740101", "20490601", "045Y", 45.5),
        ("19740101", "20490601", "", Reason.UNRELIABLE_DATES),
        ("19740101", "20490601", "075Y", Reason.UNRELIABLE_DATES),  # a scanner's clock
        ("19740101", "20261201", "052Y", days(19327)),  # tomorrow, by another time zone
        ("21100101", "21800601", "070Y", Reason.UNRELIABLE_DATES),
        # Born after the exam.
        ("20300101", "20210317", "045Y", Reason.IMPLAUSIBLE_AGE),
        ("18990101", "20210317", "045Y", Reason.IMPLAUSIBLE_AGE),
    ],
)
def test_dates_count_where_they_are_plausible_and_the_age_does_not_contradict(
    birth: str, exam: str, age: str, expected: float | Reason
) -> None:
    assert years(birth, exam, age) == (expected if isinstance(expected, Reason) else pytest.approx(expected, rel=1e-12))


def test_dates_that_are_not_trusted_give_way_to_the_age() -> None:
    assert years("19950101", "20190801", "068Y", trusted=False) == 68.5
    assert years("19510101", "20190801", "068Y", trusted=False) == 68.5
    assert years("19510101", "20190801", "089Y", trusted=False) == 89.0
    assert years("19510101", "20190801", "", trusted=False) is Reason.UNRELIABLE_DATES
    assert years("19510101", "20190801", "68", trusted=False) is Reason.UNRELIABLE_DATES
    assert years("", "20190801", "", trusted=False) is Reason.NO_AGE


def test_exam_dates_far_apart_do_not_agree() -> None:
    a, b, c = date(2020, 1, 1), date(2020, 2, 1), date(2020, 2, 2)
    assert exam_date(study=a, acquisition=b, series=None) == (a, True)
    assert exam_date(study=b, acquisition=a, series=a) == (b, True)
    assert exam_date(study=None, acquisition=None, series=b) == (b, True)
    assert exam_date(study=None, acquisition=None, series=None) == (None, True)
    assert exam_date(study=a, acquisition=c, series=None) == (a, False)
    assert exam_date(study=a, acquisition=b, series=date(2049, 1, 1)) == (a, False)
    assert exam_date(study=date(2049, 1, 1), acquisition=a, series=a) == (date(2049, 1, 1), False)


def test_dates() -> None:
    assert parse_date("20200229") == parse_date("2020.02.29") == parse_date(" 2020-02-29 ") == date(2020, 2, 29)
    for text in ("", "2020", "202002", "20190229", "20201301", "2020.0229", "00000000", "2020022a"):
        assert parse_date(text) is None, text


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, 60.0),
        ({"DeidentificationMethodCodeSequence": ["113100", "113107"]}, "unreliable-dates"),
        ({"DeidentificationMethodCodeSequence": ["113107"], "PatientAge": "068Y"}, 68.5),
        ({"DeidentificationMethodCodeSequence": ["113106"]}, 60.0),  # full dates
        ({"DeidentificationMethodCodeSequence": []}, 60.0),
        (
            {"DeidentificationMethodCodeSequence": ["113107"], "LongitudinalTemporalInformationModified": "UNMODIFIED"},
            60,
        ),
        ({"LongitudinalTemporalInformationModified": "MODIFIED", "PatientAge": "068Y"}, 68.5),
        ({"PatientBirthDate": "1961"}, "no-age"),
        ({"PatientBirthDate": "196103", "PatientAge": "059Y"}, 59.5),
    ],
)
def test_a_file_says_by_code_too_that_its_dates_were_modified(
    tmp_path: Path, elements: dict[str, Any], expected: float | str
) -> None:
    method = "DeidentificationMethodCodeSequence"
    if method in elements:
        codes = []
        for value in elements[method]:
            code = Dataset()
            code.CodeValue, code.CodingSchemeDesignator = value, "DCM"
            codes.append(code)
        elements = {**elements, method: codes}
    write(tmp_path / "a.dcm", **elements)
    found = read_facts(tmp_path / "a.dcm")
    assert (found.code if isinstance(found, Rejected) else pytest.approx(found.age.years, abs=0.01)) == expected


@pytest.mark.parametrize(
    "birth",
    ["19700101", "20000101", "19000102", "19691231", "19800101", "19040101", "19991231", "19101010", "20010101"],
)
@pytest.mark.parametrize("text", ["", "45", "999Y"])
def test_a_birth_date_that_is_often_a_placeholder_needs_a_patient_age(birth: str, text: str) -> None:
    day = date.fromisoformat(birth)
    exam = date(day.year + 15, 12, 31)
    ages = {"": "", "agrees": "015Y", "says otherwise": "034Y"}
    assert age_at_exam(birth=day, exam=exam, age_string=text) is Reason.UNRELIABLE_DATES
    agreed = age_at_exam(birth=day, exam=exam, age_string=ages["agrees"])
    assert agreed == Age((exam - day).days / 365.25, AgeSource.DATES)
    assert age_at_exam(birth=day, exam=exam, age_string=ages["says otherwise"]) == Age(34.5, AgeSource.AGE_YEARS)


@pytest.mark.parametrize("birth", ["19700102", "20000102", "19800102", "19700201", "19600101", "20020101", "19900101"])
def test_other_birth_dates_need_none(birth: str) -> None:
    day, exam = date.fromisoformat(birth), date(2019, 6, 1)
    assert age_at_exam(birth=day, exam=exam, age_string="") == Age((exam - day).days / 365.25, AgeSource.DATES)


@pytest.mark.parametrize("birth", ["11111111", "19010101", "00010101", "17530101"])
def test_a_birth_date_that_is_nobody_s_gives_no_age(birth: str) -> None:
    day, exam = parse_date(birth), date(2019, 6, 1)
    assert age_at_exam(birth=day, exam=exam, age_string="") is Reason.UNRELIABLE_DATES
    assert age_at_exam(birth=day, exam=exam, age_string="045Y") == Age(45.5, AgeSource.AGE_YEARS)


@pytest.mark.parametrize("exam", [date(1900, 1, 1), date(1899, 12, 30), date(1858, 11, 17), date(1, 1, 1)])
def test_an_exam_on_a_placeholder_leaves_the_stated_age(exam: date) -> None:
    """It was an implausible age, though the file states a plausible one."""
    birth = date(1950, 6, 1)
    found = age_at_exam(birth=birth, exam=exam, age_string="045Y")
    assert found == Age(45.5, AgeSource.AGE_YEARS)
    assert age_at_exam(birth=birth, exam=exam, age_string="") is Reason.UNRELIABLE_DATES
