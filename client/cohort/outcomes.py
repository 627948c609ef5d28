"""The hospital's CSV of outcomes: one row a patient, numeric columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from fedage.common.errors import FedAgeError
from fedage.common.statistic import FloatArray

_MISSING = frozenset(("", "na", "n/a", "nan", "none", "null", "."))
_TRUTH = {"true": "1", "false": "0"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_NUMERIC_FROM = 0.5
"""Share of numbers among a column's values from which it counts as numeric with mistakes in it, below as text."""


@dataclass(frozen=True)
class OutcomeTable:
    """Finite values by patient identifier, still in the clear, and column; and what was set aside.

    Parameters
    ----------
    values
        Identifier to column to value; the first row of a patient.
    duplicate_rows, rows_without_id
        Rows left out.
    not_numbers
        Cells of numeric columns that hold something else, by column; they count as missing.
    text_columns
        Columns of text, left out, with the number of cells filled.
    unusable_names
        How many columns were left out because a campaign file could not name them.
    """

    values: Mapping[str, Mapping[str, float]] = field(repr=False)
    duplicate_rows: int = 0
    rows_without_id: int = 0
    not_numbers: Mapping[str, int] = field(default_factory=dict)
    text_columns: Mapping[str, int] = field(default_factory=dict)
    unusable_names: int = 0

    def counts(self) -> dict[str, int]:
        """What was set aside, as flat counts; columns are named, nobody is."""
        return {
            "duplicate-rows": self.duplicate_rows,
            "rows-without-id": self.rows_without_id,
            "columns-with-unusable-name": self.unusable_names,
            **{f"not-a-number:{name}": count for name, count in self.not_numbers.items()},
            **{f"text-column:{name}": count for name, count in self.text_columns.items()},
        }


def read_outcomes(path: Path, *, id_column: str = "patient_id") -> OutcomeTable:
    """Read a table in UTF-8, separated by commas, semicolons or tabs, whichever its first line has most of.

    Raises
    ------
    FedAgeError
        If the file is missing, no such table, or without the identifier column.
    """
    table = _table(path)
    names = [str(name).strip() for name in table.columns]
    table.columns = pd.Index(names)
    if id_column not in names:
        raise FedAgeError(
            f"{path} has no column {id_column!r}, it has {', '.join(names)}; rename the column of patient identifiers"
        )
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise FedAgeError(f"{path} has columns of the same name ({', '.join(twice)}); rename or drop one of each")
    ids = table[id_column].str.strip()
    with_id = ids != ""
    first = with_id & ~ids.duplicated()
    kept = table[first]
    columns: dict[str, FloatArray] = {}
    not_numbers: dict[str, int] = {}
    text_columns: dict[str, int] = {}
    others = [name for name in names if name != id_column]
    for name in filter(_NAME.fullmatch, others):
        numbers, filled = _numbers(kept[name])
        wrong = filled - int(np.isfinite(numbers).sum())
        if filled and wrong > filled * (1 - _NUMERIC_FROM):
            text_columns[name] = filled
            continue
        if wrong:
            not_numbers[name] = wrong
        columns[name] = numbers
    return OutcomeTable(
        values={
            patient: {name: float(column[row]) for name, column in columns.items() if np.isfinite(column[row])}
            for row, patient in enumerate(ids[first])
        },
        duplicate_rows=int((with_id & ids.duplicated()).sum()),
        rows_without_id=int((~with_id).sum()),
        not_numbers=not_numbers,
        text_columns=text_columns,
        unusable_names=sum(_NAME.fullmatch(name) is None for name in others),
    )


def _table(path: Path) -> pd.DataFrame:
    """The file as texts, nothing interpreted. What the parser says is not repeated: it could quote a row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first_line = stream.readline()
            separator = max(",;\t", key=first_line.count)
            stream.seek(0)
            return pd.read_csv(stream, sep=separator, dtype=str, keep_default_na=False, index_col=False)
    except OSError as error:
        raise FedAgeError(f"{path} cannot be read ({error.strerror}); give the hospital's CSV of outcomes") from None
    except UnicodeDecodeError:
        raise FedAgeError(f"{path} is not UTF-8; save the table as CSV in UTF-8") from None
    except ValueError:  # pandas' ParserError and EmptyDataError are such
        raise FedAgeError(f"{path} is empty or its rows differ in length; save it as CSV, one row a patient") from None


def _numbers(column: pd.Series[str]) -> tuple[FloatArray, int]:
    """The column as numbers, NaN where it holds none that is finite, and how many cells hold anything."""
    text = column.str.strip()
    lower = text.str.lower()
    missing = lower.isin(list(_MISSING))
    numbers = pd.to_numeric(lower.replace(_TRUTH), errors="coerce").to_numpy(dtype=np.float64, copy=True)
    numbers[~np.isfinite(numbers) | missing.to_numpy()] = np.nan
    return numbers, int((~missing).sum())
