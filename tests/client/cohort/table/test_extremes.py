"""A value that may stand for "missing" is told only where it is nobody's own."""

from __future__ import annotations

import numpy as np
import pytest

from fedage.client.cohort.table.extremes import find_extremes

OTHERS = [2.1, 3.4, 2.8, 3.0, 2.9, 3.3]


@pytest.mark.parametrize("own", [1.234567e20, -4.21e25, 7.7e33, 77.7, 999.0, 88.8])
def test_one_patients_value_is_said_and_not_told(own: float) -> None:
    """A value that a single cell holds may be that patient's."""
    (found,) = find_extremes(np.array([*OTHERS, own]))
    assert (found.code, found.count) == ("", 1)


@pytest.mark.parametrize("own", [1.234567e20, -6.1e22, 5.5e29])
def test_a_value_of_few_patients_is_not_told_and_one_of_ten_is(own: float) -> None:
    assert [found.code for found in find_extremes(np.array([*OTHERS, *[own] * 9]))] == [""]
    assert [found.code for found in find_extremes(np.array([*OTHERS, *[own] * 10]))] == [f"{own:.10g}"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (9.96920996838687e36, "9.969209968e+36"),
        (1e30, "1e+30"),
        (-3.402823e38, "-3.402823e+38"),
        (1e20, "1e+20"),
        (-9999.0, "-9999"),
        (65535.0, "65535"),
    ],
)
def test_codes_that_no_measurement_gives_are_told(code: float, told: str) -> None:
    assert [found.code for found in find_extremes(np.array([*OTHERS, code]))] == [told]


def test_of_several_values_not_told_the_most_frequent_is_counted() -> None:
    found = find_extremes(np.array([*OTHERS, 1.5e20, 1.5e20, 2.5e21]))
    assert [(extreme.code, extreme.count) for extreme in found] == [("", 2)]
