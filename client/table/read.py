"""A table file to a frame of text, and its columns to numbers, with what could not be read counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fedage.common.errors import FedAgeError
from fedage.common.statistic import FloatArray

SUFFIXES = (".csv", ".tsv", ".parquet")
_MOSTLY = 0.5


def read_frame(path: Path) -> pd.DataFrame:
    """A CSV, TSV or Parquet file as a frame; text stays text.

    Raises
    ------
    FedAgeError
        If it is not such a file, cannot be read, or names a column twice.
    """
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        elif path.suffix in (".csv", ".tsv"):
            frame = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", low_memory=False)
        else:
            raise FedAgeError(f"{path} is no table: allowed are {', '.join(SUFFIXES)}; convert it")
    except (OSError, ValueError, ImportError, UnicodeDecodeError) as error:
        raise FedAgeError(f"{path} cannot be read as a table ({type(error).__name__}); save it again as CSV") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    if repeated := sorted({name for name in frame.columns if list(frame.columns).count(name) > 1}):
        raise FedAgeError(f"{path} has the column {repeated[0]!r} twice; rename one of them")
    return frame


def numbers(column: pd.Series, *, missing: Sequence[float] = ()) -> tuple[FloatArray, int]:
    """A column as float64 (n,), NaN where missing, and how many cells hold something that is no number."""
    if pd.api.types.is_bool_dtype(column):
        column = column.astype(float)
    values = np.array(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    empty = column.isna().to_numpy()
    if column.dtype == object:
        empty |= (column.astype(str).str.strip() == "").to_numpy()
    wrong = int(np.count_nonzero(np.isnan(values) & ~empty))
    values[~np.isfinite(values)] = np.nan
    for code in missing:
        values[values == code] = np.nan
    return values, wrong


def is_numeric(values: FloatArray, wrong: int) -> bool:
    """Whether a column is meant to hold numbers: at least half of what is in it are some."""
    known = int(np.count_nonzero(np.isfinite(values)))
    return known > 0 and known >= _MOSTLY * (known + wrong)
