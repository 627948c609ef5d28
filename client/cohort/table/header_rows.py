"""Rows below a table's header that belong to it: its names again, or the columns' units. They are no patients."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

_UNIT = re.compile(
    r"(?:years?|yrs?|y\.?o?|a|jahre?|ans|años|anos|anni|lata|months?|mo|monate?|mois|weeks?|wks?|wochen|days?|d|tage?"
    r"|jours|hours?|hrs?|h|min(?:utes)?|s(?:ec(?:onds)?)?|ms"
    r"|[munµμ]?m(?:\^?[23]|²|³)?|cm(?:\^?[23]|²|³)?|inch(?:es)?|[munµμcd]?l|cc|[mµμnk]?g|lbs?|%|percent|prozent"
    r"|(?:[mµμnk]?g|[mµμn]?mol|i?u|miu|cells|kcal|l|ml)/\S{1,12}|mm ?hg|kpa|bpm|1/min|/min|hz|khz|mhz|t|tesla|hu"
    r"|°?c|celsius|kg[ *·]m-2|iu|u|z|z-?scores?|score|points?|count|ratio|index|bool(?:ean)?|0/1|1/0|m/f|f/m|yes/no"
    r"|y/n|units?|einheit(?:en)?|unité|unidad|unità|text|string|str|int(?:eger)?|float|double|numeric|number|factor"
    r"|categorical|nominal|date|id)"
)
_BRACKETED = re.compile(r"\[[^\[\]]{0,30}\]|\([^()]{0,30}\)|<[^<>]{0,30}>|\{[^{}]{0,30}\}")
_NOTHING = frozenset(["", "-", "–", "—", "--", "n/a", "na", "nan", "none", ".", "1", "[-]", "[]"])
"""What stands where a column has no unit; 1 is the unit of a number without dimension."""
_NO_NAME = re.compile(r"(?:units?|einheit(?:en)?|unité|unidad|unità|id|string|str|text)")
_ROWS_OF_UNITS = 2
"""Units stand in one of the first rows."""
_FEWEST_REPEATED = 2


def repeated_headers(frame: pd.DataFrame) -> Mask:
    """Rows (n,) that hold the columns' names again, as where tables were put under each other; blanks aside."""
    found = np.zeros(len(frame), dtype=np.bool_)
    names = [_plain(str(name)) for name in frame.columns]
    if frame.empty:
        return found
    first = frame.astype("string").iloc[:, : min(len(names), 8)]
    alike = np.zeros(len(frame), dtype=np.intp)
    for place in range(first.shape[1]):
        alike += (first.iloc[:, place].fillna("").str.strip().str.casefold() == names[place]).to_numpy(dtype=bool)
    for row in np.flatnonzero(alike):
        cells = [_plain(cell) for cell in frame.iloc[row].astype("string").fillna("")]
        same = sum(cell == name for cell, name in zip(cells, names, strict=True) if cell)
        found[row] = same >= min(_FEWEST_REPEATED, len(names)) and same == sum(map(bool, cells))
    return found


def unit_rows(frame: pd.DataFrame, *, id_column: str | None) -> Mask:
    """The row (n,) among the first that holds the columns' units: nothing else, no number, and no identifier.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"who": ["-", "p1"], "age": ["[years]", "61"], "length": ["mm", "41.5"]})
    >>> unit_rows(frame, id_column="who").tolist()
    [True, False]
    """
    found = np.zeros(len(frame), dtype=np.bool_)
    for row in range(min(_ROWS_OF_UNITS, len(frame) - 1)):
        cells = dict(
            zip(map(str, frame.columns), map(_plain, frame.iloc[row].astype("string").fillna("")), strict=True)
        )
        who = cells.pop(id_column, "") if id_column else ""
        if who not in _NOTHING - {"1"} and not _NO_NAME.fullmatch(who) and not _BRACKETED.fullmatch(who):
            continue
        units = [cell for cell in cells.values() if cell not in _NOTHING]
        clear = [cell for cell in units if _BRACKETED.fullmatch(cell) or len(cell) > 1]
        if clear and all(_UNIT.fullmatch(cell) or _BRACKETED.fullmatch(cell) for cell in units):
            found[row] = True
            break
    return found


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
