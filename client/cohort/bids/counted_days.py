"""Days that a BIDS table of sessions counts from a participant's first session, such as `days_since_baseline`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from fedage.client.cohort.ages import DAYS_PER_YEAR, OLDEST_YEARS

_DAYS = {"day": 1.0, "week": 7.0, "month": DAYS_PER_YEAR / 12, "year": DAYS_PER_YEAR}
_COLUMN = re.compile(
    r"(?P<unit>day|week|month|year)s?[ _-]?(?:since|from|after|post)[ _-]?"
    r"(?:the[ _-]?)?(?:baseline|bl|base|first|1st|initial|inclusion|enrol\w*|entry|start)\w*"
)


def days_since_first(rows: Iterable[Mapping[str, str]]) -> float | None:
    """Days since the first session that a session's rows state; None where they state none, or differ.

    Examples
    --------
    >>> days_since_first([{"days_since_baseline": "731"}]), days_since_first([{"months_from_bl": "12"}])
    (731.0, 365.25)
    >>> days_since_first([{"age": "50"}]) is None
    True
    """
    stated = {
        number * _DAYS[match["unit"]]
        for row in rows
        for column, text in row.items()
        if (match := _COLUMN.fullmatch(column)) and (number := _number(text)) is not None
    }
    return stated.pop() if len(stated) == 1 else None


def _number(text: str) -> float | None:
    if not re.fullmatch(r"-?\d{1,6}(\.\d{1,9})?", text.strip(), re.ASCII):
        return None
    number = float(text)
    return number if abs(number) <= OLDEST_YEARS * DAYS_PER_YEAR else None
