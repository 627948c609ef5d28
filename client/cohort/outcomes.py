"""The hospital's CSV of outcomes and diagnoses: one row a patient, numeric columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from fedage.common.errors import FedAgeError


@dataclass(frozen=True)
class Outcomes:
    """Values by patient identifier (still in the clear) and column, with what was set aside.

    Parameters
    ----------
    values
        Patient identifier to column to finite value.
    not_numbers
        Cells that hold text where a number belongs, by column.
    duplicates
        Rows of a patient who already had one; the first is kept.
    without_id
        Rows without an identifier.
    """

    values: dict[str, dict[str, float]]
    not_numbers: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    without_id: int = 0


def read_outcomes(path: Path, *, id_column: str = "patient_id") -> Outcomes:
    """Read a CSV of outcomes.

    Raises
    ------
    FedAgeError
        If the file cannot be read as a table or has no identifier column.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise FedAgeError(
            f"{path} cannot be read as CSV ({type(error).__name__}); give a comma-separated table"
        ) from None
    if id_column not in table.columns:
        raise FedAgeError(
            f"{path} has no column {id_column!r} (it has {', '.join(map(str, table.columns))}); "
            "name the patients' column so, or rename it"
        )
    ids = table[id_column].str.strip()
    with_id = ids != ""
    first = with_id & ~ids.duplicated()
    kept = table[first]
    columns: dict[str, np.ndarray] = {}
    not_numbers: dict[str, int] = {}
    for name in table.columns:
        if name == id_column:
            continue
        text = kept[name].str.strip()
        numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
        numbers[~np.isfinite(numbers)] = np.nan
        wrong = int(np.count_nonzero(np.isnan(numbers) & (text != "").to_numpy()))
        if wrong:
            not_numbers[str(name)] = wrong
        columns[str(name)] = numbers
    values = {
        patient: {name: float(column[row]) for name, column in columns.items() if np.isfinite(column[row])}
        for row, patient in enumerate(ids[first])
    }
    return Outcomes(
        values=values,
        not_numbers=not_numbers,
        duplicates=int((with_id & ids.duplicated()).sum()),
        without_id=int((~with_id).sum()),
    )
