"""What messages may quote of a table's header: in a table without one, the first line is a patient's row."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

from fedage.common.errors import FedAgeError


def is_header(names: Sequence[str], *, known: Collection[str]) -> bool:
    """Whether a first line is a header: it holds one of the known column names, capitals ignored.

    Examples
    --------
    >>> is_header(["MRN", "Age"], known=["age"]), is_header(["Page", "61"], known=["age"])
    (True, False)
    """
    folded = {name.strip().casefold() for name in names}
    return any(name.casefold() in folded for name in known)


def columns_text(names: Sequence[str], *, wanted: Collection[str], known: Collection[str] = ()) -> str:
    """Describe a table's columns where one is missing: how many there are, and which have a similar name.

    Attack: the first line of a table without a header is quoted, and a surname in it resembles a column's name. Rule:
    names are quoted only if one of `known` shows that the line is a header; otherwise positions are given. Residual
    risk: a position reveals that the value there is spelt similarly to a column's name.

    Parameters
    ----------
    names
        The first line's cells.
    wanted
        Columns that are missing.
    known
        All column names that are looked for, including those present.

    Examples
    --------
    >>> columns_text(["patientid", "age"], wanted=["patient_id"], known=["patient_id", "age"])
    "2 columns, of which 'patientid' is called nearly so"
    >>> columns_text(["Page", "61"], wanted=["age"])
    "2 columns, of which that at place 1 is called nearly so; its first line must hold the columns' names"
    >>> columns_text(["MRN-7714423", "61", "1"], wanted=["patient_id", "age"])
    "3 columns, none of which is called nearly so; its first line must hold the columns' names"
    """
    similar = [name for want in wanted for name in difflib.get_close_matches(want, list(names), n=2, cutoff=0.7)]
    count = "1 column" if len(names) == 1 else f"{len(names)} columns"
    has_header = is_header(names, known=known)
    hint = "" if has_header else "; its first line must hold the columns' names"
    if not similar:
        return f"{count}, none of which is called nearly so; its first line must hold the columns' names"
    shown = list(dict.fromkeys(similar))[:5]
    if has_header:
        return f"{count}, of which {', '.join(map(repr, shown))} {'is' if len(shown) == 1 else 'are'} called nearly so"
    places = [str(names.index(name) + 1) for name in shown]
    where = f"that at place {places[0]} is" if len(places) == 1 else f"those at places {', '.join(places)} are"
    return f"{count}, of which {where} called nearly so{hint}"


def repeated_name_text(names: Sequence[str], *, known: Collection[str], ignore_case: bool = False) -> str | None:
    """The first repeated column, for a message: its name if the line is a header, and its positions.

    Examples
    --------
    >>> repeated_name_text(["MRN", "age", "age"], known=["MRN"])
    "'age' at places 2 and 3"
    >>> repeated_name_text(["Zwyntarow", "Zwyntarow", "61"], known=["MRN"])
    "at places 1 and 2; its first line must hold the columns' names"
    """
    normalised = [name.strip().casefold() if ignore_case else name.strip() for name in names]
    first_place: dict[str, int] = {}
    for place, name in enumerate(normalised, start=1):
        if name and name in first_place:
            has_header = is_header(names, known=known)
            name_text = f"{names[first_place[name] - 1].strip()!r} " if has_header else ""
            hint = "" if has_header else "; its first line must hold the columns' names"
            return f"{name_text}at places {first_place[name]} and {place}{hint}"
        first_place.setdefault(name, place)
    return None


def require_unique_names(path: Path, names: Sequence[str], *, known: Collection[str]) -> None:
    """Refuse a table with a repeated column, which pandas would read under another name (`age.1`)."""
    if repeated := repeated_name_text(names, known=known):
        raise FedAgeError(f"{path} has a column twice ({repeated}); rename or drop one of them")
