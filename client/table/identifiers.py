"""Identifiers that differ in leading zeros only: they are different texts, and often one patient's.

A spreadsheet turns 00010 into 10 as it opens a table. Nothing is joined by a guess: what differs so is counted, said,
and left apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_ZEROS = re.compile(r"(?P<before>(?:.*\D)?)0*(?P<digits>\d+)", re.DOTALL)
_WRITTEN_AS_NUMBER = re.compile(r"(?P<digits>\d+)\.0")
_LONGEST = 16
"""Digits up to which identifiers are padded with zeros."""


def without_zeros(identifier: str) -> str:
    """An identifier as it would be without zeros before its last number.

    Examples
    --------
    >>> [without_zeros(text) for text in ("00010", "10", "10.0", "P-007", "sub-00", "A1B")]
    ['10', '10', '10', 'P-7', 'sub-0', 'A1B']
    """
    text = identifier.strip()
    if number := _WRITTEN_AS_NUMBER.fullmatch(text):
        text = number["digits"]
    found = _ZEROS.fullmatch(text)
    return f"{found['before']}{found['digits']}" if found else text


def with_other_zeros(identifier: str) -> Iterator[str]:
    """The identifiers that differ from this one in leading zeros only, or in ".0" behind it."""
    plain = without_zeros(identifier)
    found = _ZEROS.fullmatch(plain)
    if found is None:
        return
    for length in range(len(found["digits"]), _LONGEST + 1):
        other = f"{found['before']}{found['digits'].zfill(length)}"
        if other != identifier.strip():
            yield other


def differing_in_zeros(identifiers: Iterable[str], *, others: dict[str, str]) -> int:
    """How many identifiers are others' but for leading zeros.

    Parameters
    ----------
    identifiers
        Different texts.
    others
        Those met before, by what they are without zeros; these are added.
    """
    count = 0
    for identifier in identifiers:
        count += others.setdefault(without_zeros(identifier), identifier) != identifier
    return count
