"""Identifiers that differ in leading zeros, capitals or unseen characters only: often one patient's.

A spreadsheet turns 00010 into 10 as it opens a table, and a copy from a page brings blanks that nobody sees. Nothing is
joined by a guess: what differs so is counted, said, and left apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

_ZEROS = re.compile(r"(?P<before>(?:.*\D)?)0*(?P<digits>\d+)", re.DOTALL)
_WRITTEN_AS_NUMBER = re.compile(r"(?P<digits>\d+)\.0")
_NUMBER = re.compile(r"-?\d+(?:\.0)?")
_UNSEEN = ("Cf", "Cc")
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


def plainly_written(identifier: str) -> str:
    """An identifier without what is not seen: capitals ignored, wide characters and blanks as plain ones.

    Examples
    --------
    >>> [plainly_written(text) for text in ("Sub-01", "sub-01\u200b", "P\u00a01", "P  1", "\uff21\uff11")]
    ['sub-01', 'sub-01', 'p 1', 'p 1', 'a1']
    """
    if identifier.isascii():
        seen = identifier
    else:
        seen = unicodedata.normalize("NFKC", identifier)
        seen = "".join(sign for sign in seen if unicodedata.category(sign) not in _UNSEEN)
    return " ".join(seen.split()).casefold()


def differing_in_writing(identifiers: Iterable[str], *, others: dict[str, str]) -> int:
    """How many identifiers are others' but for capitals, blanks and characters that are not seen.

    Parameters
    ----------
    identifiers
        Different texts.
    others
        Those met before, by how they are plainly written; these are added.
    """
    count = 0
    for identifier in identifiers:
        count += others.setdefault(plainly_written(identifier), identifier) != identifier
    return count


def names_alike_in_words(written: Iterable[str], *, column: str) -> list[str]:
    """What to say of sites' names, as they are written, that are nearly alike: how many, and what becomes of them."""
    texts = {text.strip() for text in written if text.strip()}
    as_numbers = len(texts) - len({text.removesuffix(".0") for text in texts})
    apart = {text.removesuffix(".0") for text in texts}
    zeros = differing_in_zeros(sorted(apart), others={})
    writing = differing_in_writing(sorted(apart), others={})
    said = []
    if as_numbers and all(_NUMBER.fullmatch(text) for text in texts):
        said.append(f'{_sites(as_numbers)} of {column} written with and without ".0" (10.0 and 10), read as one site')
    for count, how in ((zeros, "leading zeros"), (writing, "capitals, blanks or characters that are not seen")):
        if count:
            said.append(
                f"{_sites(count)} of {column} differing from another in {how} only, counted as a site of its own; if "
                "they are the same, write them alike"
            )
    return said


def _sites(count: int) -> str:
    return "1 name" if count == 1 else f"{count} names"
