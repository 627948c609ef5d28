"""What was odd in a table, in sentences: reason codes of a site's table, and one line for each."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from fedage.client.cohort.table.cell_forms import CODES as FORM_CODES
from fedage.client.cohort.table.cell_forms import OTHER, what_and_mend
from fedage.client.cohort.table.extremes import how_often

AGE_MAX_YEARS = 130.0

_NO_EVENT_CODE, _NO_SEX_CODE, _EXTREME = "neither-0-nor-1:", "neither-sex:", "kept-extreme:"
_LEFT_OUT = "left-out-"
_OTHER_COLUMNS, _OTHER_EXTREMES = "not-a-number-in-other-columns", "kept-extremes-in-other-columns"
_SENTENCES: Mapping[str, str] = {
    "row-without-id": "without an identifier, set aside",
    "patient-twice-at-site": "of a patient who is there already, set aside (the first is kept)",
    "patient-at-another-site": "of a patient whom an earlier site has, set aside",
    "kept-identifier-differs-in-zeros": "of a patient whose identifier differs from an earlier one in leading zeros "
    "only (as 00010 and 10 do), counted as another patient; if they are the same, write identifiers alike in all files",
    "kept-identifier-differs-in-writing": "of a patient whose identifier differs from an earlier one in capitals, "
    "blanks or characters that are not seen only, counted as another patient; if they are the same, write identifiers "
    "alike in all files",
    "summary-row": "at the end that sum up those above (Total, Mean and the like), set aside",
    "implausible-age": f"with an age below 0 or above {AGE_MAX_YEARS:g} years, set aside",
    "no-age": "without an age, set aside",
    "negative-time": "with a negative follow-up time, left out of the survival analyses",
}
NO_ID = "the campaign file has no table.id: every row counts as a patient, and nobody who is there twice is noticed"
_COLUMNS_NAMED, _EXTREMES_NAMED = 20, 10
_REASON_CHARACTERS = 80
"""Longest reason code that a site's answer may hold."""
_NAME_CHARACTERS, _DIGEST_CHARACTERS = 60, 8
_COUNT_MAX = 100_000_000
_SHOWN = 8


def not_a_number(column: str, form: str = OTHER) -> str:
    """The reason code of cells that hold no number, by their form."""
    return f"{form}:{_short(column)}"


def left_out_miswritten(column: str, form: str) -> str:
    """The reason code of a column of numbers of which some are written otherwise, by how they are written."""
    return f"{_LEFT_OUT}{form}:{_short(column)}"


def kept_extreme(column: str, code: str) -> str:
    """The reason code of cells whose value may stand for "missing", and is kept; `code` is empty for no known one."""
    prefix = f"{_EXTREME}{code}:"
    return f"{prefix}{_short(column, longest=_REASON_CHARACTERS - len(prefix))}"


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
    by_count = sorted(there, key=lambda reason: -there[reason])
    rest = {
        _OTHER_COLUMNS: [reason for reason in by_count if _is_no_number(reason)][_COLUMNS_NAMED:],
        _OTHER_EXTREMES: [reason for reason in by_count if reason.startswith(_EXTREME)][_EXTREMES_NAMED:],
    }
    left = {reason for reasons in rest.values() for reason in reasons}
    kept = {reason: min(count, _COUNT_MAX) for reason, count in there.items() if reason not in left}
    for others, reasons in rest.items():
        if reasons:
            kept[others] = min(sum(there[reason] for reason in reasons), _COUNT_MAX)
    return kept


def _is_no_number(reason: str) -> bool:
    form, colon, _ = reason.partition(":")
    return bool(colon) and form in FORM_CODES


def in_words(reason: str, count: int) -> str:
    """A reason and how often, as a sentence without its site."""
    cells = "1 cell" if count == 1 else f"{count} cells"
    holds, it_is = ("holds no number and counts", "is") if count == 1 else ("hold no number and count", "are")
    if reason == _OTHER_COLUMNS:
        return f"{cells} of other columns {holds} as missing"
    form, _, column = reason.partition(":")
    if form == OTHER:
        return f"{cells} of column {column!r} {holds} as missing"
    if form in FORM_CODES:
        what, mend = what_and_mend(form)
        hold, count_as = ("holds", "counts") if count == 1 else ("hold", "count")
        return f"{cells} of column {column!r} {hold} {what} and {count_as} as missing; {mend}"
    if form.startswith(_LEFT_OUT) and form.removeprefix(_LEFT_OUT) in FORM_CODES:
        what, mend = what_and_mend(form.removeprefix(_LEFT_OUT))
        return f"column {column!r} is left out, as it holds {what}; {mend}"
    if reason == _OTHER_EXTREMES:
        return f"{how_often(count)} of other columns hold extremes that may stand for missing, and count as values"
    if reason.startswith(_EXTREME):
        code, _, column = column.partition(":")
        return extreme_in_words(column, code, count)
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


def extreme_in_words(column: str, code: str, count: int, *, declared_in: str = "missing of [table]") -> str:
    """An extreme that may stand for "missing", as a sentence; values that are no code in use are not told."""
    what, far = (code, ", far beyond the others,") if code else ("one value, far beyond all others,", "")
    return (
        f"column {column!r} holds {what}{far} in {how_often(count)}, which counts as a value; if it stands for "
        f"missing, add it to {declared_in}"
    )


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


def _short(column: str, *, longest: int = _NAME_CHARACTERS) -> str:
    """A column's name, or the beginning of a long one with a few characters that tell it from others like it."""
    longest = min(longest, _NAME_CHARACTERS)
    if len(column) <= longest:
        return column
    digest = hashlib.sha256(column.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{column[: longest - _DIGEST_CHARACTERS - 1]}…{digest}"
