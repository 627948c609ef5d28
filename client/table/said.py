"""What was odd in a table, in sentences: reason codes of a site's table, and one line for each."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

AGE_MAX_YEARS = 130.0

_NOT_A_NUMBER, _NO_EVENT_CODE, _NO_SEX_CODE = "not-a-number:", "neither-0-nor-1:", "neither-sex:"
_OTHER_COLUMNS = "not-a-number-in-other-columns"
_SENTENCES: Mapping[str, str] = {
    "row-without-id": "without an identifier, set aside",
    "patient-twice-at-site": "of a patient who is there already, set aside (the first is kept)",
    "patient-at-another-site": "of a patient whom an earlier site has, set aside",
    "implausible-age": f"with an age below 0 or above {AGE_MAX_YEARS:g} years, set aside",
    "no-age": "without an age, set aside",
    "negative-time": "with a negative follow-up time, left out of the survival analyses",
}
NO_ID = "the campaign file has no table.id: every row counts as a patient, and nobody who is there twice is noticed"
_COLUMNS_NAMED = 20
_NAME_CHARACTERS, _DIGEST_CHARACTERS = 60, 8
_COUNT_MAX = 100_000_000
_SHOWN = 8


def not_a_number(column: str) -> str:
    """The reason code of cells that hold no number."""
    return f"{_NOT_A_NUMBER}{_short(column)}"


def neither_0_nor_1(column: str) -> str:
    """The reason code of an event column's cells that are neither 0 nor 1."""
    return f"{_NO_EVENT_CODE}{_short(column)}"


def neither_sex(column: str) -> str:
    """The reason code of a sex column's cells that say neither male nor female."""
    return f"{_NO_SEX_CODE}{_short(column)}"


def bounded(rejected: Mapping[str, int]) -> dict[str, int]:
    """Counts by reason without zeros, for an answer of bounded size: of columns those with most cells are named.

    Examples
    --------
    >>> found = bounded({"no-age": 2, "negative-time": 0} | {not_a_number(f"x{k}"): k for k in range(1, 31)})
    >>> found["no-age"], found["not-a-number:x30"], found["not-a-number-in-other-columns"], len(found)
    (2, 30, 55, 22)
    """
    there = {reason: count for reason, count in rejected.items() if count}
    columns = sorted((reason for reason in there if reason.startswith(_NOT_A_NUMBER)), key=lambda code: -there[code])
    rest = columns[_COLUMNS_NAMED:]
    kept = {reason: min(count, _COUNT_MAX) for reason, count in there.items() if reason not in set(rest)}
    if rest:
        kept[_OTHER_COLUMNS] = min(sum(there[reason] for reason in rest), _COUNT_MAX)
    return kept


def in_words(reason: str, count: int) -> str:
    """A reason and how often, as a sentence without its site."""
    cells = "1 cell" if count == 1 else f"{count} cells"
    holds, it_is = ("holds no number and counts", "is") if count == 1 else ("hold no number and count", "are")
    if reason == _OTHER_COLUMNS:
        return f"{cells} of other columns {holds} as missing"
    if reason.startswith(_NOT_A_NUMBER):
        return f"{cells} of column {reason.removeprefix(_NOT_A_NUMBER)!r} {holds} as missing"
    if reason.startswith(_NO_SEX_CODE):
        return (
            f"{cells} of column {reason.removeprefix(_NO_SEX_CODE)!r} {it_is} neither M, F, male, female nor a code "
            f"of table.male or table.female, and {'counts' if count == 1 else 'count'} as missing"
        )
    if reason.startswith(_NO_EVENT_CODE):
        return (
            f"{cells} of the event column {reason.removeprefix(_NO_EVENT_CODE)!r} {it_is} "
            "neither 1 (event) nor 0 (none), left out of the survival analyses"
        )
    return f"{'1 row' if count == 1 else f'{count} rows'} {_SENTENCES[reason]}"


def no_features(columns: Collection[str], why: str) -> str:
    """Columns that the features' names or patterns find and that cannot be features, in one line.

    Examples
    --------
    >>> no_features({"vendor", "scanner"}, "hold text")
    "columns that hold text, so are no features: 'scanner', 'vendor'"
    """
    shown = ", ".join(repr(_short(column)) for column in sorted(columns)[:_SHOWN])
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return f"columns that {why}, so are no features: {shown}{more}"


def _short(column: str) -> str:
    """A column's name, or the beginning of a long one with a few characters that tell it from others like it."""
    if len(column) <= _NAME_CHARACTERS:
        return column
    digest = hashlib.sha256(column.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{column[: _NAME_CHARACTERS - _DIGEST_CHARACTERS - 1]}…{digest}"
