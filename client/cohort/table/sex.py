"""A table's sex column as 1 for male and 0 for female: words, or the campaign's numbers; nothing else is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedage.client.cohort.table.read import Mask, numbers
from fedage.common.campaign.types import TableChoice
from fedage.common.errors import FedAgeError
from fedage.common.statistics.statistic import FloatArray

if TYPE_CHECKING:
    import pandas as pd

USUAL = (0.0, 1.0, 2.0, -1.0)
"""Codes for female that need no `table.female`, whichever of them are not `table.male`."""
_WORDS = {"m": 1.0, "male": 1.0, "f": 0.0, "female": 0.0}
_SHOWN = 6


def sexes(column: pd.Series, table: TableChoice) -> tuple[FloatArray, Mask, frozenset[float]]:
    """1 male, 0 female, NaN unknown, (n,); which cells are neither, (n,); and the numbers that are read as female.

    Without `table.female` any number beside `table.male` is female here; `require_known` then says whether that may be.
    """
    import pandas as pd

    words = column.astype("string").str.strip().str.lower().map(_WORDS)
    known = np.array(pd.to_numeric(words, errors="coerce"), dtype=np.float64)
    in_words = np.isfinite(known)
    codes, odd = numbers(column.where(~in_words), missing=table.missing)
    male, code = codes == table.male, np.isfinite(codes)
    female = code & ~male if table.female is None else codes == table.female
    odd = (odd & ~in_words) | (code & ~male & ~female)
    values = np.where(in_words, known, np.where(male, 1.0, np.where(female, 0.0, np.nan)))
    return values, odd, frozenset(np.unique(codes[female]).tolist())


def require_known(found: Sequence[frozenset[float]], *, anybody: bool, table: TableChoice) -> None:
    """Refuse numbers that nobody said are female.

    Parameters
    ----------
    found
        What was read as female in each file.
    anybody
        Whether any cell of any file says male or female.

    Raises
    ------
    FedAgeError
        In one line, with the codes allowed.
    """
    allowed = f"M, F, male, female, table.male ({table.male:g}) and {_female(table)}"
    if not anybody:
        raise FedAgeError(
            f"column {table.sex!r} says of nobody who is male or female (allowed are {allowed}); "
            "correct table.sex, or set table.male and table.female to the column's codes"
        )
    codes = sorted(frozenset().union(*found))
    if table.female is not None or not codes or (len(codes) == 1 and codes[0] in USUAL):
        return
    shown = ", ".join(f"{code:g}" for code in codes[:_SHOWN]) + (" …" if len(codes) > _SHOWN else "")
    raise FedAgeError(
        f"column {table.sex!r} holds {shown} beside table.male = {table.male:g}, and which of them is female is not "
        f"known (allowed are {allowed}); set table.female, and put codes for unknown into table.missing"
    )


def _female(table: TableChoice) -> str:
    if table.female is not None:
        return f"table.female ({table.female:g})"
    return "one of " + ", ".join(f"{code:g}" for code in USUAL if code != table.male)
