"""Which of a BIDS data set's sessions is the first, as far as their labels alone say.

Alphabetical order says nothing (`2YearFollowUp` before `baseline`, `10` before `2`, `post` before `pre`). A label
counts as the first if it says so (`baseline`), or if all labels are the same word with a number (`1`, `V01`, `M00`) and
the lowest number is where such counts begin: 0 where the number is a time, 0 or 1 else.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import date

SESSION = "ses-"
_NUMBERED = re.compile(r"([a-z]*)([0-9]{1,6})")
_FIRST = frozenset(["baseline", "bl", "base"])
_BEFORE_FIRST = ("pre", "scr", "prior")
_TIMES = frozenset(
    ["d", "day", "days", "w", "wk", "week", "weeks", "m", "mo", "month", "months", "y", "yr", "year", "years"]
)
_LATER = ("follow", "fu", "post", "retest", "late")


def first_label(labels: Collection[str]) -> str | None:
    """The label of the session that a participant's one age belongs to; None where nobody knows.

    Parameters
    ----------
    labels
        All session labels of the data set, with or without `ses-`.
    """
    names = {_name(label): label for label in labels}
    if len(names) < len(labels):
        return None
    said = [name for name in names if name in _FIRST]
    if said:
        return names[said[0]] if len(said) == 1 and not any(name.startswith(_BEFORE_FIRST) for name in names) else None
    if len(names) == 1:
        (name,) = names
        return None if _is_later(name) else names[name]
    if not (numbers := label_numbers(labels)):
        return None
    lowest = min(numbers, key=lambda label: numbers[label])
    return None if _is_later(_name(lowest)) or numbers[lowest] > 1 else lowest


def label_numbers(labels: Collection[str]) -> dict[str, int] | None:
    """The number of each label, where all are the same word with another number; else None."""
    found = {label: _NUMBERED.fullmatch(_name(label)) for label in labels}
    words, numbers = set(), {}
    for label, match in found.items():
        if match is None:
            return None
        words.add(match[1])
        numbers[label] = int(match[2])
    return numbers if len(words) <= 1 and len(set(numbers.values())) == len(numbers) else None


def label_day(label: str) -> date | None:
    """The day of a label such as `ses-20190318`."""
    text = _name(label)
    try:
        return date.fromisoformat(text) if re.fullmatch(r"(19|20)[0-9]{6}", text) else None
    except ValueError:
        return None


def _name(label: str) -> str:
    return label.removeprefix(SESSION).casefold()


def _is_later(name: str) -> bool:
    """Whether a label says that another session was before."""
    numbered = _NUMBERED.fullmatch(name)
    if numbered is not None and numbered[1] in _TIMES:
        return int(numbered[2]) > 0
    return any(word in name for word in ("follow", "retest")) or name.startswith(_LATER)
