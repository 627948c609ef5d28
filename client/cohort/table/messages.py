"""Reason codes of what was set aside or noticed in a site's table, and the sentence for each."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from fedage.client.cohort.table.cell_forms import CODES as FORM_CODES
from fedage.client.cohort.table.cell_forms import OTHER, description_and_remedy
from fedage.client.cohort.table.extremes import count_text

AGE_MAX_YEARS = 130.0

_NO_EVENT_CODE, _NO_SEX_CODE, _EXTREME = "neither-0-nor-1:", "neither-sex:", "kept-extreme:"
_LEFT_OUT, _NOT_IN_ROW = "left-out-", "unknown-in-row:"
_OTHER_COLUMNS, _OTHER_EXTREMES = "not-a-number-in-other-columns", "kept-extremes-in-other-columns"
_SENTENCES: Mapping[str, str] = {
    "row-without-id": "without an identifier, set aside",
    "patient-twice-at-site": "of a patient who has an earlier row, set aside (the first row is kept)",
    "patient-at-another-site": "of a patient who is at an earlier site too, set aside",
    "kept-identifier-differs-in-zeros": "of a patient whose identifier differs from an earlier one in leading zeros "
    "only (as 00010 and 10 do), counted as another patient; if they are the same, write identifiers alike in all files",
    "kept-identifier-differs-in-writing": "of a patient whose identifier differs from an earlier one in capitals, "
    "blanks or invisible characters only, counted as another patient; if they are the same, write identifiers alike in "
    "all files",
    "units-row": "below the header that holds the columns' units, set aside",
    "repeated-header": "that holds the columns' names again, set aside",
    "summary-row": "at the end that summarise those above (Total, Mean and the like), set aside",
    "implausible-age": f"with an age below 0 or above {AGE_MAX_YEARS:g} years, set aside",
    "zero-age": "with an age of 0 where nobody else is younger than two, as where 0 stands for unknown, set aside",
    "no-age": "without an age, set aside",
    "negative-time": "with a negative follow-up time, left out of the survival analyses",
}
NO_ID = "the campaign file has no table.id: every row counts as a patient, and repeated patients are not detected"
_COLUMNS_NAMED, _EXTREMES_NAMED = 20, 10
_REASON_CHARACTERS = 80
"""Longest reason code in a site's reply."""
_NAME_CHARACTERS, _DIGEST_CHARACTERS = 60, 8
_COUNT_MAX = 100_000_000
_SHOWN = 8


def unknown_in_row(column: str) -> str:
    """Reason code of a column that counts as unknown for all patients in the row of an estimator on images."""
    return f"{_NOT_IN_ROW}{_short(column)}"


def not_a_number(column: str, form: str = OTHER) -> str:
    """Reason code of cells that hold no number, by their form."""
    return f"{form}:{_short(column)}"


def left_out_miswritten(column: str, form: str) -> str:
    """Reason code of a numeric column that is left out because some of its numbers are in this form."""
    return f"{_LEFT_OUT}{form}:{_short(column)}"


def kept_extreme(column: str, code: str) -> str:
    """Reason code of cells with an extreme value that is kept; `code` is the value, or empty where it is not quoted."""
    prefix = f"{_EXTREME}{code}:"
    return f"{prefix}{_short(column, longest=_REASON_CHARACTERS - len(prefix))}"


def neither_0_nor_1(column: str) -> str:
    """Reason code of an event column's cells that are neither 0 nor 1."""
    return f"{_NO_EVENT_CODE}{_short(column)}"


def neither_sex(column: str) -> str:
    """Reason code of a sex column's cells that mean neither male nor female."""
    return f"{_NO_SEX_CODE}{_short(column)}"


def bounded_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by reason without zeros, in a bounded number: only the columns with most cells are named, the rest summed.

    Examples
    --------
    >>> found = bounded_counts({"no-age": 2, "negative-time": 0} | {not_a_number(f"x{k}"): k for k in range(1, 31)})
    >>> found["no-age"], found["not-a-number:x30"], found["not-a-number-in-other-columns"], len(found)
    (2, 30, 55, 22)
    """
    nonzero = {reason: count for reason, count in counts.items() if count}
    by_frequency = sorted(nonzero, key=lambda reason: -nonzero[reason])
    grouped = {
        _OTHER_COLUMNS: [reason for reason in by_frequency if _is_no_number(reason)][_COLUMNS_NAMED:],
        _OTHER_EXTREMES: [reason for reason in by_frequency if reason.startswith(_EXTREME)][_EXTREMES_NAMED:],
    }
    grouped_reasons = {reason for reasons in grouped.values() for reason in reasons}
    bounded_by_reason = {
        reason: min(count, _COUNT_MAX) for reason, count in nonzero.items() if reason not in grouped_reasons
    }
    for group, reasons in grouped.items():
        if reasons:
            bounded_by_reason[group] = min(sum(nonzero[reason] for reason in reasons), _COUNT_MAX)
    return bounded_by_reason


def _is_no_number(reason: str) -> bool:
    form, colon, _ = reason.partition(":")
    return bool(colon) and form in FORM_CODES


def reason_text(reason: str, count: int) -> str:
    """A sentence for a reason and its count; the site is not named."""
    cells = "1 cell" if count == 1 else f"{count} cells"
    holds, it_is = ("holds no number and counts", "is") if count == 1 else ("hold no number and count", "are")
    if reason == _OTHER_COLUMNS:
        return f"{cells} of other columns {holds} as missing"
    form, _, column = reason.partition(":")
    if form == OTHER:
        return f"{cells} of column {column!r} {holds} as missing"
    if form in FORM_CODES:
        description, remedy = description_and_remedy(form)
        hold, count_as = ("holds", "counts") if count == 1 else ("hold", "count")
        return f"{cells} of column {column!r} {hold} {description} and {count_as} as missing; {remedy}"
    if form.startswith(_LEFT_OUT) and form.removeprefix(_LEFT_OUT) in FORM_CODES:
        description, remedy = description_and_remedy(form.removeprefix(_LEFT_OUT))
        return f"column {column!r} is left out because it holds {description}; {remedy}"
    if reason == _OTHER_EXTREMES:
        return (
            f"{count_text(count)} of other columns hold extreme values that may stand for missing, and count as values"
        )
    if reason.startswith(_EXTREME):
        code, _, column = column.partition(":")
        return extreme_text(column, code, count)
    if reason.startswith(_NOT_IN_ROW):
        return (
            f"column {reason.removeprefix(_NOT_IN_ROW)!r} counts as unknown for all {count} patients where the "
            "estimator reads it beside the images: too few of those in training know it, lack it or differ in it"
        )
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


def extreme_text(column: str, code: str, count: int, *, declared_in: str = "missing of [table]") -> str:
    """A sentence for an extreme value that may stand for "missing"; the value is quoted only where `code` is given."""
    description, far = (code, ", far beyond the others,") if code else ("one value, far beyond all others,", "")
    return (
        f"column {column!r} holds {description}{far} in {count_text(count)}, which counts as a value; if it stands for "
        f"missing, add it to {declared_in}"
    )


def no_features_text(columns: Collection[str], reason: str) -> str:
    """A line about columns that the feature patterns match and that cannot be features.

    Examples
    --------
    >>> no_features_text({"vendor", "scanner"}, "hold text")
    "columns that hold text and therefore cannot be features: 'scanner', 'vendor'"
    """
    shown = ", ".join(repr(_short(column)) for column in sorted(columns)[:_SHOWN])
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return f"columns that {reason} and therefore cannot be features: {shown}{more}"


def _short(column: str, *, longest: int = _NAME_CHARACTERS) -> str:
    """A column's name; a long one is cut, and a short digest keeps it distinct."""
    longest = min(longest, _NAME_CHARACTERS)
    if len(column) <= longest:
        return column
    digest = hashlib.sha256(column.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{column[: longest - _DIGEST_CHARACTERS - 1]}…{digest}"
