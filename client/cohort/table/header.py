"""What messages may say of a table's column names: a table without a header has a patient where they should be."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence


def is_header(names: Sequence[str], *, known: Collection[str]) -> bool:
    """Whether a first line is one of names: it holds one of the columns that are known to be such, capitals ignored.

    Examples
    --------
    >>> is_header(["MRN", "Age"], known=["age"]), is_header(["Page", "61"], known=["age"])
    (True, False)
    """
    there = {name.strip().casefold() for name in names}
    return any(name.casefold() in there for name in known)


def columns_in_words(names: Sequence[str], *, wanted: Collection[str], known: Collection[str] = ()) -> str:
    """What to say of a table's columns where one is missing: how many there are, and those called nearly like it.

    Attack: a table without a header, or a surname that is nearly a column's name. Rule: names are quoted only where
    one of `known` shows that the first line holds names; otherwise places are told. Residual risk: a place tells that a
    value there is spelt nearly like a column's name.

    Parameters
    ----------
    names
        The first line's cells.
    wanted
        Columns that are missing.
    known
        Columns that are looked for, those that are there included.

    Examples
    --------
    >>> columns_in_words(["patientid", "age"], wanted=["patient_id"], known=["patient_id", "age"])
    "2 columns, of which 'patientid' is called nearly so"
    >>> columns_in_words(["Page", "61"], wanted=["age"])
    "2 columns, of which that at place 1 is called nearly so; its first line must hold the columns' names"
    >>> columns_in_words(["MRN-7714423", "61", "1"], wanted=["patient_id", "age"])
    "3 columns, none of which is called nearly so; its first line must hold the columns' names"
    """
    near = [name for want in wanted for name in difflib.get_close_matches(want, list(names), n=2, cutoff=0.7)]
    count = "1 column" if len(names) == 1 else f"{len(names)} columns"
    header = is_header(names, known=known)
    must = "" if header else "; its first line must hold the columns' names"
    if not near:
        return f"{count}, none of which is called nearly so; its first line must hold the columns' names"
    shown = list(dict.fromkeys(near))[:5]
    if header:
        return f"{count}, of which {', '.join(map(repr, shown))} {'is' if len(shown) == 1 else 'are'} called nearly so"
    places = [str(names.index(name) + 1) for name in shown]
    which = f"that at place {places[0]} is" if len(places) == 1 else f"those at places {', '.join(places)} are"
    return f"{count}, of which {which} called nearly so{must}"


def repeated_name(names: Sequence[str], *, known: Collection[str], ignore_case: bool = False) -> str | None:
    """The first column that is there twice, for a message: its name if the line is one of names, and its places.

    Examples
    --------
    >>> repeated_name(["MRN", "age", "age"], known=["MRN"])
    "'age' at places 2 and 3"
    >>> repeated_name(["Zwyntarow", "Zwyntarow", "61"], known=["MRN"])
    "at places 1 and 2; its first line must hold the columns' names"
    """
    plain = [name.strip().casefold() if ignore_case else name.strip() for name in names]
    first: dict[str, int] = {}
    for place, name in enumerate(plain, start=1):
        if name and name in first:
            header = is_header(names, known=known)
            shown = f"{names[first[name] - 1].strip()!r} " if header else ""
            must = "" if header else "; its first line must hold the columns' names"
            return f"{shown}at places {first[name]} and {place}{must}"
        first.setdefault(name, place)
    return None
