"""A share that sites tell bounds of is shown as them, never as a number that nobody told."""

import pytest

from fedage.common.presentation.cells import left_out, reasons, share_between


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.5, 0.5, 0.5, "50.0 %"),
        (0.7, None, None, "70.0 %"),
        (None, None, None, "–"),
        (None, 0.0, 0.9577, "≤ 95.8 %"),
        (None, 0.8333, 1.0, "≥ 83.3 %"),
        (None, 0.2501, 0.7501, "25.0 % to 75.1 %"),
        (None, 0.1, 0.3, "10.0 % to 30.0 %"),
        (None, 0.0, 1.0, "withheld"),
    ],
)
def test_a_share_is_shown_as_its_bounds(value: float | None, low: float | None, high: float | None, text: str) -> None:
    assert share_between(value, low, high).text == text


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.96), (0.5, 1.0), (0.25, 0.75)])
def test_bounds_are_a_number_with_the_records_values(low: float, high: float) -> None:
    assert share_between(None, low, high).value == f"{low!r} {high!r}"


@pytest.mark.parametrize(
    ("told", "few_sites", "text"),
    [
        (0, 0, "0"),
        (12, 0, "12"),
        (0, 1, "fewer than the minimum count at 1 site"),
        (12, 3, "12, and fewer than the minimum count at 3 sites"),
    ],
)
def test_patients_left_out_are_no_0_where_a_site_does_not_tell_a_few(told: int, few_sites: int, text: str) -> None:
    assert left_out(told, few_sites=few_sites).text == text


@pytest.mark.parametrize(("minimum", "text"), [(10, "a 12, b fewer than 10"), (None, "a 12, b (withheld)")])
def test_a_reason_of_few_patients_is_said_without_their_number(minimum: int | None, text: str) -> None:
    assert reasons({"a": 12, "b": None, "c": 0}, minimum=minimum).text == text
