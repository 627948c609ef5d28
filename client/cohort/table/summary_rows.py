"""Rows at a table's end that summarise the others (Total, Mean), which must not be read as patients."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from fedage.client.cohort.table.header_rows import repeated_headers, unit_rows

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


def summary_rows(frame: pd.DataFrame, *, id_column: str | None, site_column: str | None = None) -> NDArray[np.bool_]:
    """Mask (n,) of summary rows at a table's end: every row below one is a summary row too, or blank.

    The identifier decides, without one the first column if the word stands nowhere above; the site where those are
    blank. Words that may be somebody's (`Max`, `SD`) count only beside one that is clear.
    """
    is_summary_row = np.zeros(len(frame), dtype=np.bool_)
    if frame.empty:
        return is_summary_row
    first = str(frame.columns[0])
    columns_to_check = [name for name in (id_column or first, site_column) if name and name in frame.columns]
    first_checked = max(0, len(frame) - _MOST_ROWS)
    has_clear_word = False
    for place in range(len(frame) - 1, first_checked - 1, -1):
        row = frame.iloc[place]
        if not any(str(cell).strip() for cell in row.dropna()):
            continue
        text = next(
            (plain for name in columns_to_check if isinstance(row[name], str) and (plain := _plain(row[name]))), ""
        )
        if not (_CLEAR.fullmatch(text) or _WEAK.fullmatch(text)):
            break
        has_clear_word = has_clear_word or bool(_CLEAR.fullmatch(text))
        is_summary_row[place] = True
    if id_column is None and is_summary_row.any():
        texts = frame[first].astype("string").fillna("").map(_plain)
        has_clear_word = has_clear_word and not set(texts[is_summary_row & (texts != "").to_numpy(dtype=bool)]) & set(
            texts[~is_summary_row]
        )
    return is_summary_row if has_clear_word and not is_summary_row.all() else np.zeros(len(frame), dtype=np.bool_)


def rows_of_nobody(
    frame: pd.DataFrame, *, id_column: str | None, site_column: str | None = None
) -> dict[str, NDArray[np.bool_]]:
    """Rows that are no patient's, (n,) by reason code, each row once: of the header, and summaries at the end."""
    headers = repeated_headers(frame)
    units = np.zeros(len(frame), dtype=np.bool_)
    units[~headers] = unit_rows(frame[~headers], id_column=id_column)
    rest = ~(headers | units)
    summaries = np.zeros(len(frame), dtype=np.bool_)
    summaries[rest] = summary_rows(frame[rest], id_column=id_column, site_column=site_column)
    return {"repeated-header": headers, "units-row": units, "summary-row": summaries}


def _plain(text: str) -> str:
    """A text in lower case with single blanks, without what may stand behind a word for a summary."""
    return _BEHIND.sub("", " ".join(text.split()).casefold())
