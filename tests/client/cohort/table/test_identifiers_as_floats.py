"""Identifiers that a Parquet file holds as floating-point numbers: whole ones are read as such, others refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.table.read import parse_labels
from fedage.common.errors import FedAgeError


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1.0, 2.0, np.nan]),
        pd.Series([1, 2, None], dtype="Float64"),
        pd.Series([1.0, 2.0, np.nan], dtype="float32"),
        pd.Series([1.0, 2.0, np.nan]).astype("category"),
    ],
)
def test_whole_ones_are_those_of_a_file_of_whole_numbers(column: pd.Series) -> None:
    assert parse_labels(column).fillna("").tolist() == ["1", "2", ""]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1.0, 2.5]),
        pd.Series([1.0, 9007199254740993.0]),  # 2^53 + 1 became 2^53
        pd.Series([1, 16777217], dtype="float32"),
        pd.Series([1.0, np.inf]),
        pd.Series([1.0, 0.1]).astype("category"),
    ],
)
def test_others_are_refused(column: Any) -> None:
    with pytest.raises(FedAgeError, match="save the column as text"):
        parse_labels(column.rename("subject"))
