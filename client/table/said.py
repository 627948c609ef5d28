"""What was odd in a table, in sentences: reason codes of a site's table, and one line for each."""

from __future__ import annotations

from collections.abc import Mapping

AGE_MAX_YEARS = 130.0

_NOT_A_NUMBER, _NO_EVENT_CODE = "not-a-number:", "neither-0-nor-1:"
_SENTENCES: Mapping[str, str] = {
    "row-without-id": "without an identifier, set aside",
    "patient-twice-at-site": "of a patient who is there already, set aside (the first is kept)",
    "patient-at-another-site": "of a patient whom an earlier site has, set aside",
    "implausible-age": f"with an age below 0 or above {AGE_MAX_YEARS:g} years, set aside",
    "no-age": "without an age, set aside",
    "negative-time": "with a negative follow-up time, left out of the survival analyses",
}


def not_a_number(column: str) -> str:
    """The reason code of cells that hold no number."""
    return f"{_NOT_A_NUMBER}{column}"


def neither_0_nor_1(column: str) -> str:
    """The reason code of an event column's cells that are neither 0 nor 1."""
    return f"{_NO_EVENT_CODE}{column}"


def in_words(reason: str, count: int) -> str:
    """A reason and how often, as a sentence without its site."""
    cells = "1 cell" if count == 1 else f"{count} cells"
    if reason.startswith(_NOT_A_NUMBER):
        holds = "holds no number and counts" if count == 1 else "hold no number and count"
        return f"{cells} of column {reason.removeprefix(_NOT_A_NUMBER)!r} {holds} as missing"
    if reason.startswith(_NO_EVENT_CODE):
        return (
            f"{cells} of the event column {reason.removeprefix(_NO_EVENT_CODE)!r} {'is' if count == 1 else 'are'} "
            "neither 1 (event) nor 0 (none), left out of the survival analyses"
        )
    return f"{'1 row' if count == 1 else f'{count} rows'} {_SENTENCES[reason]}"
