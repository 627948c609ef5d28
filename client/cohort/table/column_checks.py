"""What is refused in a table's columns before anything is computed: each with file, site, column and the mend."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.table.cell_forms import MISWRITTEN, Codes, is_miswritten, most_frequent, what_and_mend
from fedage.client.cohort.table.columns import Columns, named_columns
from fedage.client.cohort.table.read import is_text
from fedage.client.cohort.table.sex import words_problem
from fedage.client.cohort.table.units import ages_in_words, are_no_years
from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.statistics.cohort import (
    EVENT_MEANING,
    LONGEST_FOLLOW_UP_YEARS,
    not_binary_in_words,
    not_years_in_words,
    only_events_in_words,
    tells_only_events,
)
from fedage.common.statistics.statistic import FloatArray

Rows = NDArray[np.intp]
_MOST_SAID = 8


class Source(Protocol):
    """One file: its columns, and the rows of each site in it."""

    @property
    def path(self) -> Path: ...

    @property
    def columns(self) -> Columns: ...

    @property
    def rows(self) -> Mapping[str, Rows]: ...


def require_usable(sources: Sequence[Source], campaign: Campaign, *, features: Collection[str]) -> None:
    """Refuse columns whose cells would be left out by their size, or be read as their opposite.

    Numbers written otherwise than with a point (1,234.5) would be missing where they are large; a column of words or of
    events coded 1 and 2 would make nobody, or the wrong patients, have the event.

    Parameters
    ----------
    features
        Columns that the campaign's features find.

    Raises
    ------
    FedAgeError
        With a line for each site and kind of mistake.
    """
    lines = [
        f"{source.path}{f', site {title!r}' if title else ''}: {line}"
        for source in sources
        for title, rows in source.rows.items()
        for line in _lines(source.columns, rows, campaign, features=features)
    ]
    if lines:
        more = [f"and {len(lines) - _MOST_SAID} more of such"] if len(lines) > _MOST_SAID else []
        raise FedAgeError("\n".join([*lines[:_MOST_SAID], *more]))


def _lines(columns: Columns, rows: Rows, campaign: Campaign, *, features: Collection[str]) -> Iterable[str]:
    table = campaign.table
    roles = {table.age: "age_years", table.predicted: "predicted_years"} if table else {}
    numeric = {column: column for column in named_columns(campaign)} | {c: at for c, at in roles.items() if c}
    event = campaign.survival.event if campaign.survival else None
    by_form: dict[str, list[str]] = defaultdict(list)
    if table and columns.sex_words is not None and (problem := words_problem(columns.sex_words[rows])):
        yield f"column {table.sex!r} {problem}"
    if table and table.age and "age_years" in columns.cohort and are_no_years(columns.cohort["age_years"][rows]):
        yield f"column {table.age!r} {ages_in_words()}"
    for column in dict.fromkeys([*numeric, *sorted(features)]):
        if table and column == table.sex:
            continue
        written = columns.written[column][rows] if column in columns.written else np.array([], dtype=object)
        odd = written != ""
        if column in columns.miswritten and np.isin(written, list(MISWRITTEN)).any():
            by_form[most_frequent(written, among=MISWRITTEN)].append(column)
        elif column in numeric:
            values = columns.cohort[numeric[column]][rows]
            if odd.any() and (is_text(values, odd) or column == event):  # a word for the event is no missing one
                by_form[most_frequent(written)].append(column)
            elif column == event and not np.isin(values[np.isfinite(values)], (0.0, 1.0)).all():
                codes = np.unique(values[np.isfinite(values)]).tolist()
                yield f"column {event!r} {not_binary_in_words(event, meaning=EVENT_MEANING, values=codes)}"
    if campaign.survival and campaign.survival.time in columns.cohort:
        time = columns.cohort[campaign.survival.time][rows]
        if event in columns.cohort and tells_only_events(time=time, event=columns.cohort[str(event)][rows]):
            yield f"column {event!r} {only_events_in_words(str(event))}"
        if (time > LONGEST_FOLLOW_UP_YEARS).any():
            yield f"column {campaign.survival.time!r} {not_years_in_words(campaign.survival.time)}"
    for form, found in by_form.items():
        what, mend = what_and_mend(form, texts=[word for column in found for word in columns.words.get(column, ())])
        yield f"{_named(found)} {what}, where numbers belong; {mend}"


def named_column_problem(
    name: str, codes: Codes, values: FloatArray, *, texts: Iterable[str], miswritten_only: bool = False
) -> str:
    """What is wrong with a column that is named as one of numbers, in a sentence; empty if it may be read.

    Parameters
    ----------
    codes, values
        Of its cells, (n,): the forms of those that hold no number, and numbers, NaN elsewhere.
    texts
        What it holds; only known words for yes and no are told.
    miswritten_only
        Whether a column of words is left to others.
    """
    odd = codes != ""
    if is_miswritten(codes, numbers=int(np.isfinite(values).sum())):
        form = most_frequent(codes, among=MISWRITTEN)
    elif not miswritten_only and is_text(values, odd):
        form = most_frequent(codes)
    else:
        return ""
    what, mend = what_and_mend(form, texts=list(texts))
    return f"{_named([name])} {what}, where numbers belong; {mend}"


def _named(columns: Sequence[str]) -> str:
    shown = ", ".join(map(repr, columns[:_MOST_SAID]))
    more = f" and {len(columns) - _MOST_SAID} more" if len(columns) > _MOST_SAID else ""
    return f"column {shown} holds" if len(columns) == 1 else f"columns {shown}{more} hold"
