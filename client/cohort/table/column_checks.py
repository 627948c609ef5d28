"""Checks of a table's columns before anything is computed; each message names file, site, column and remedy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.table.cell_forms import (
    MISWRITTEN,
    Codes,
    description_and_remedy,
    is_miswritten,
    most_frequent,
)
from fedage.client.cohort.table.columns import Columns, named_columns
from fedage.client.cohort.table.read import is_text_column
from fedage.client.cohort.table.sex import words_problem
from fedage.client.cohort.table.units import NOT_FROM_BIRTH, ages_problem, counts_from_conception
from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.statistics.cohort import (
    EVENT_MEANING,
    LONGEST_FOLLOW_UP_YEARS,
    not_binary_text,
    not_years_text,
    only_events_text,
    tells_only_events,
)
from fedage.common.statistics.statistic import FloatArray

Rows = NDArray[np.intp]
_MAX_SHOWN = 8


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
    problems = [
        f"{source.path}{f', site {title!r}' if title else ''}: {line}"
        for source in sources
        for title, rows in source.rows.items()
        for line in _problems(source.columns, rows, campaign, features=features)
    ]
    if problems:
        more = [f"and {len(problems) - _MAX_SHOWN} more of such"] if len(problems) > _MAX_SHOWN else []
        raise FedAgeError("\n".join([*problems[:_MAX_SHOWN], *more]))


def _problems(columns: Columns, rows: Rows, campaign: Campaign, *, features: Collection[str]) -> Iterable[str]:
    table = campaign.table
    roles = {table.age: "age_years", table.predicted: "predicted_years"} if table else {}
    numeric = {column: column for column in named_columns(campaign)} | {
        column_name: cohort_column for column_name, cohort_column in roles.items() if column_name
    }
    event = campaign.survival.event if campaign.survival else None
    by_form: dict[str, list[str]] = defaultdict(list)
    if table and columns.sex_words is not None and (problem := words_problem(columns.sex_words[rows])):
        yield f"column {table.sex!r} {problem}"
    if table and table.age and counts_from_conception(table.age):
        yield f"column {table.age!r} {NOT_FROM_BIRTH} as table.age"
    ages = columns.cohort.get("age_years") if table and table.age else None
    if table and ages is not None and (problem := ages_problem(ages[rows])):
        yield f"column {table.age!r} {problem}"
    for column in dict.fromkeys([*numeric, *sorted(features)]):
        if table and column == table.sex:
            continue
        codes = columns.cell_codes[column][rows] if column in columns.cell_codes else np.array([], dtype=object)
        is_not_number = codes != ""
        if column in columns.miswritten and np.isin(codes, list(MISWRITTEN)).any():
            by_form[most_frequent(codes, among=MISWRITTEN)].append(column)
        elif column in numeric:
            values = columns.cohort[numeric[column]][rows]
            if is_not_number.any() and (
                is_text_column(values, is_not_number) or column == event
            ):  # a word for the event is no missing one
                by_form[most_frequent(codes)].append(column)
            elif column == event and not np.isin(values[np.isfinite(values)], (0.0, 1.0)).all():
                codes = np.unique(values[np.isfinite(values)]).tolist()
                yield f"column {event!r} {not_binary_text(event, meaning=EVENT_MEANING, values=codes)}"
    if campaign.survival and campaign.survival.time in columns.cohort:
        time = columns.cohort[campaign.survival.time][rows]
        if event in columns.cohort and tells_only_events(time=time, event=columns.cohort[str(event)][rows]):
            yield f"column {event!r} {only_events_text(str(event))}"
        if (time > LONGEST_FOLLOW_UP_YEARS).any():
            yield f"column {campaign.survival.time!r} {not_years_text(campaign.survival.time)}"
    for form, form_columns in by_form.items():
        description, remedy = description_and_remedy(
            form, texts=[word for column in form_columns for word in columns.yes_no_words.get(column, ())]
        )
        yield f"{_columns_hold_text(form_columns)} {description}, where numbers belong; {remedy}"


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
    is_not_number = codes != ""
    if is_miswritten(codes, numbers=int(np.isfinite(values).sum())):
        form = most_frequent(codes, among=MISWRITTEN)
    elif not miswritten_only and is_text_column(values, is_not_number):
        form = most_frequent(codes)
    else:
        return ""
    description, remedy = description_and_remedy(form, texts=list(texts))
    return f"{_columns_hold_text([name])} {description}, where numbers belong; {remedy}"


def _columns_hold_text(columns: Sequence[str]) -> str:
    shown = ", ".join(map(repr, columns[:_MAX_SHOWN]))
    more = f" and {len(columns) - _MAX_SHOWN} more" if len(columns) > _MAX_SHOWN else ""
    return f"column {shown} holds" if len(columns) == 1 else f"columns {shown}{more} hold"
