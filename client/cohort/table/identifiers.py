"""Identifiers that differ only in leading zeros, capitals or invisible characters, and may belong to one patient.

A spreadsheet turns 00010 into 10 when it opens a table, and copied text brings invisible blanks. Such identifiers are
counted and reported, and stay separate patients: no rows are joined by a guess.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from fedage.common.errors import FedAgeError

_ZEROS = re.compile(r"(?P<before>(?:.*\D)?)0*(?P<digits>\d+)", re.DOTALL)
_WRITTEN_AS_NUMBER = re.compile(r"(?P<digits>\d+)\.0")
_NUMBER = re.compile(r"-?\d+(?:\.0)?")
_UNSEEN = ("Cf", "Cc")
_LONGEST = 16
"""Longest run of digits that is tried with leading zeros."""
_ROUNDED = re.compile(r"[+-]?\d(?:[.,]\d+)?E\+\d{2,3}", re.IGNORECASE)
_AS_DAY = re.compile(
    r"\d{1,2}[-.](?:jan|feb|m[aä]r|mrz|apr|may|mai|jun|jul|aug|sep|o[ck]t|nov|de[cz])\.?", re.IGNORECASE
)
_SPREADSHEET_ERROR = re.compile(r"#(?:N/A|REF!|VALUE!|NAME\?|NULL!|NUM!|DIV/0!|NV|BEZUG!|WERT!|ZAHL!)", re.IGNORECASE)


def require_as_written(identifiers: Iterable[str], *, column: str) -> None:
    """Refuse identifiers or names that a spreadsheet wrote otherwise: several of them become one.

    Raises
    ------
    FedAgeError
        If one is a number of which digits are lost (1.23457E+11), or a day (12-Mar for 12-3).
    """
    kinds = ((_ROUNDED, "numbers whose last digits are lost (as 1.2E+11)"), (_AS_DAY, "days (12-Mar)"))
    for identifier in identifiers:
        for pattern, what in kinds:
            if pattern.fullmatch(identifier.strip()):
                raise FedAgeError(
                    f"column {column!r} names patients or sites by {what}, as a spreadsheet writes them, so that two "
                    "may be read as one; export the table again with this column as text"
                )


def is_spreadsheet_error(identifier: str) -> bool:
    """Whether a cell holds what a spreadsheet writes where a formula failed (`#REF!`): it names nobody."""
    return _SPREADSHEET_ERROR.fullmatch(identifier.strip()) is not None


def without_zeros(identifier: str) -> str:
    """An identifier without the zeros that lead its last number.

    Examples
    --------
    >>> [without_zeros(text) for text in ("00010", "10", "10.0", "P-007", "sub-00", "A1B")]
    ['10', '10', '10', 'P-7', 'sub-0', 'A1B']
    """
    text = identifier.strip()
    if number := _WRITTEN_AS_NUMBER.fullmatch(text):
        text = number["digits"]
    match = _ZEROS.fullmatch(text)
    return f"{match['before']}{match['digits']}" if match else text


def with_other_zeros(identifier: str) -> Iterator[str]:
    """The identifiers that differ from this one in leading zeros only, or in ".0" behind it."""
    plain = without_zeros(identifier)
    match = _ZEROS.fullmatch(plain)
    if match is None:
        return
    for length in range(len(match["digits"]), _LONGEST + 1):
        other = f"{match['before']}{match['digits'].zfill(length)}"
        if other != identifier.strip():
            yield other


def count_differing_in_zeros(identifiers: Iterable[str], *, known: dict[str, str]) -> int:
    """Count identifiers that differ from a known one only in leading zeros.

    Parameters
    ----------
    identifiers
        Distinct texts.
    known
        Earlier identifiers by their form without zeros; the new ones are added.
    """
    count = 0
    for identifier in identifiers:
        count += known.setdefault(without_zeros(identifier), identifier) != identifier
    return count


def canonical_form(identifier: str) -> str:
    """An identifier in canonical form: case-folded, full-width narrowed, blanks single, invisible ones removed.

    Examples
    --------
    >>> [canonical_form(text) for text in ("Sub-01", "sub-01\u200b", "P\u00a01", "P  1", "\uff21\uff11")]
    ['sub-01', 'sub-01', 'p 1', 'p 1', 'a1']
    """
    if identifier.isascii():
        visible = identifier
    else:
        visible = unicodedata.normalize("NFKC", identifier)
        visible = "".join(sign for sign in visible if unicodedata.category(sign) not in _UNSEEN)
    return " ".join(visible.split()).casefold()


def count_differing_in_writing(identifiers: Iterable[str], *, known: dict[str, str]) -> int:
    """Count identifiers that differ from a known one only in capitals, blanks and invisible characters.

    Parameters
    ----------
    identifiers
        Distinct texts.
    known
        Earlier identifiers by their canonical form; the new ones are added.
    """
    count = 0
    for identifier in identifiers:
        count += known.setdefault(canonical_form(identifier), identifier) != identifier
    return count


def similar_name_messages(names: Iterable[str], *, column: str) -> list[str]:
    """Messages about names of sites that are nearly alike: how many there are, and how they are counted."""
    distinct = {text.strip() for text in names if text.strip()}
    n_as_numbers = len(distinct) - len({text.removesuffix(".0") for text in distinct})
    without_decimals = {text.removesuffix(".0") for text in distinct}
    zeros = count_differing_in_zeros(sorted(without_decimals), known={})
    writing = count_differing_in_writing(sorted(without_decimals), known={})
    messages = []
    if n_as_numbers and all(_NUMBER.fullmatch(text) for text in distinct):
        sites = _name_count_text(n_as_numbers)
        messages.append(f'{sites} of {column} written with and without ".0" (10.0 and 10), read as one site')
    for count, difference in ((zeros, "leading zeros"), (writing, "capitals, blanks or invisible characters")):
        if count:
            messages.append(
                f"{_name_count_text(count)} of {column} differing from another in {difference} only, counted as a "
                "separate site; if they name the same site, write them alike"
            )
    return messages


def _name_count_text(count: int) -> str:
    return "1 name" if count == 1 else f"{count} names"
