"""Ages by hand."""

from datetime import date

import pytest

from fedage.client.cohort.ages import Age, AgeSource, age_at_exam, first_date, parse_date
from fedage.client.cohort.reasons import Reason

BORN, SEEN = date(2000, 1, 1), date(2000, 1, 1)


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("004Y", Age(4.5, AgeSource.AGE_YEARS)),
        (" 4y ", Age(4.5, AgeSource.AGE_YEARS)),
        ("000Y", Age(0.5, AgeSource.AGE_YEARS)),
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


@pytest.mark.parametrize("text", ["", "45", "Y", "4 years", "-04Y", "٤Y", "1 2Y", "004X"])
def test_no_age(text: str) -> None:
    assert age_at_exam(birth=None, exam=SEEN, age_string=text) is Reason.NO_AGE
    assert age_at_exam(birth=BORN, exam=None, age_string=text) is Reason.NO_AGE


def test_dates_come_first_and_are_not_mended_by_the_age() -> None:
    assert age_at_exam(birth=BORN, exam=date(2001, 1, 1), age_string="089Y") == Age(366 / 365.25, AgeSource.DATES)
    assert age_at_exam(birth=BORN, exam=SEEN, age_string="") == Age(0.0, AgeSource.DATES)
    assert age_at_exam(birth=BORN, exam=date(1999, 12, 31), age_string="004Y") is Reason.IMPLAUSIBLE_AGE
    assert age_at_exam(birth=date(1900, 1, 1), exam=date(2020, 1, 1), age_string="") == Age(
        43829 / 365.25, AgeSource.DATES
    )
    assert age_at_exam(birth=date(1900, 1, 1), exam=date(2020, 1, 3), age_string="") is Reason.IMPLAUSIBLE_AGE


def test_dates() -> None:
    assert parse_date("20200229") == parse_date("2020.02.29") == parse_date(" 2020-02-29 ") == date(2020, 2, 29)
    for text in ("", "2020", "202002", "20190229", "20201301", "2020.0229", "00000000", "2020022a"):
        assert parse_date(text) is None, text
    assert first_date(["", "garbage", "20200101", "20210101"]) == date(2020, 1, 1)
    assert first_date([]) is None
