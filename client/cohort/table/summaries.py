"""Rows at a table's end that sum up the others (Total, Mean): read as patients they would be one of a sum's size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_CLEAR = re.compile(
    r"(?:grand |sub-?|overall )?(?:totals?|totale|totaux|sum|summe|gesamt(?:summe)?|insgesamt|somme|suma|soma|razem)"
    r"|(?:arithm\w*\.? |overall )?(?:means?|mittelwert|mittel|durchschnitt|average|avg|moyenne|m[eé]dia|promedio"
    r"|median|m[eé]diane?|mediana|mw)"
    r"|std|stdev|std\.? ?dev(?:iation)?|standard ?(?:deviation|error)|standardabweichung|[eé]cart[- ]type|variance"
    r"|anzahl|number of (?:patients|subjects|rows)|n ?= ?\d+",
)
_WEAK = re.compile(r"n|sd|se|sem|min|max|minimum|maximum|count|all|overall|range|iqr|p-?values?|q[1-3]|\d+ ?%")
_BEHIND = re.compile(r"\s*(?:[:=]\s*$|[(±+].*$)")
"""What may stand behind the word: a colon, or `(SD)`, `± SD`."""
_MOST_ROWS = 30


def is_summary(text: str) -> bool:
    """Whether an identifier, or a site's name, is a word that stands for a sum or a mean of the rows above.

    Examples
    --------
    >>> [is_summary(text) for text in ("Total", "Mean (SD)", "SUMME:", "n = 60", "Max", "Tom", "P-17")]
    [True, True, True, True, False, False, False]
    """
    return bool(_CLEAR.fullmatch(_plain(text)))


def summary_rows(frame: pd.DataFrame, *, labels: Sequence[str]) -> NDArray[np.bool_]:
    """Rows at the end that sum up the others, (n,): every row below them is such a one too, or blank.

    Words that may be somebody's (`Max`, `SD`) count only beside one that is clear.

    Parameters
    ----------
    labels
        Columns of identifiers and sites; the first column counts too if its word stands nowhere above.
    """
    found = np.zeros(len(frame), dtype=np.bool_)
    if frame.empty:
        return found
    columns = [name for name in labels if name in frame.columns]
    first = str(frame.columns[0])
    tail = frame.iloc[-_MOST_ROWS:]
    if first not in columns:
        columns.append(first)
        above = {_plain(text) for text in frame[first].iloc[:-_MOST_ROWS].dropna().astype("string").unique()}
    else:
        above = set()
    clear = False
    for place in range(len(tail) - 1, -1, -1):
        row = tail.iloc[place]
        texts = [_plain(str(row[name])) for name in columns if isinstance(row[name], str)]
        if row.isna().all() or not any(str(cell).strip() for cell in row.dropna()):
            continue
        said = [text for text in texts if text not in above and (_CLEAR.fullmatch(text) or _WEAK.fullmatch(text))]
        if not said:
            break
        clear = clear or any(_CLEAR.fullmatch(text) for text in said)
        found[len(frame) - len(tail) + place] = True
    rest = {_plain(str(text)) for text in frame[first][~found].iloc[-_MOST_ROWS:] if isinstance(text, str)}
    repeated = first not in labels and any(_plain(str(text)) in rest for text in frame[first][found])
    return found if clear and not repeated and not found.all() else np.zeros(len(frame), dtype=np.bool_)


def _plain(text: str) -> str:
    """A text in lower case with single blanks, without what may stand behind a word for a summary."""
    return _BEHIND.sub("", " ".join(text.split()).casefold())
