"""Thousands with an underscore between them, as programmers write them, are numbers written otherwise."""

import pytest

from fedage.client.cohort.table.cell_forms import MISWRITTEN, form_code


@pytest.mark.parametrize("text", ["1_200", "12_345.6", "-1_234_567", "999_000"])
def test_they_are_miswritten(text: str) -> None:
    assert form_code(text) == "digits-grouped"
    assert form_code(text) in MISWRITTEN


@pytest.mark.parametrize("text", ["1_2", "a_200", "1__200", "2020_01"])
def test_other_words_are_not(text: str) -> None:
    assert form_code(text) == "not-a-number"
