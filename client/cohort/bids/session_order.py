"""Which of a BIDS data set's sessions is the first, judged by their labels alone.

Alphabetical order is no guide (`2YearFollowUp` before `baseline`, `10` before `2`, `post` before `pre`). A label is the
first if it states so (`baseline`), or if all labels are the same word with a number (`1`, `V01`, `M00`) and the lowest
number is where such counts begin: 0 if the number is a time, else 0 or 1. A single label is the first unless it states
the opposite: by a time after 0 (`24m`, `2y`), a count from 2 to 99 (`02`, `visit2`; larger numbers are those of scans
or years), an ordinal (`third`, `2nd`) or a word (`followup`).
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
_LATER = ("post", "late")
_LATER_ANYWHERE = ("follow", "retest", "rescan", "revisit", "repeat")
_LATER_ALONE = re.compile(r"fu(?=p?$|p?\d|month|year|week|visit)|(?:final|last|exit|end)(?:visit|scan|session)?$")
_LATER_ORDINAL = re.compile(
    r"(?:visit|v|session|ses|time|timepoint|tp|t|scan|wave|exam|mri|mr)?"
    r"(?:two|three|four|five|six|ii|iii|iv|(?:second|third|fourth|fifth|sixth)(?:visit|session|time|timepoint|scan|wave)?"
    r"|zweite[rs]?|dritte[rs]?|vierte[rs]?|deuxieme|troisieme|quatrieme|segund[ao]|tercer[ao]?|second[ao]|terz[ao])"
)
_COUNT = re.compile(r"(?P<before>[a-z]*)(?P<number>\d+)(?=(?P<after>[a-z]*)(?P<more>\d?))")
_AFTER_COUNT = re.compile(r"(?:(?:st|nd|rd|th|te|e)(?=$|visit|scan|session|time)|[abc]?$)")
_TIME_AFTER = re.compile(
    r"(?:d|days?|tage?|w|wks?|weeks?|wochen?|m|mos?|mths?|months?|monate?|mois|y|yrs?|years?|jahre?|ans?)"
    r"(?=$|fu|follow|post|later|after|visit|scan|session)"
)
_WEIGHTINGS = ("w", "star")
_MOST_VISITS = 99
"""Larger numbers are those of scans, participants or years."""


def first_label(labels: Collection[str]) -> str | None:
    """The label of the session to which a participant's single age belongs; None if that is not known.

    Parameters
    ----------
    labels
        All session labels of the data set, with or without `ses-`.
    """
    names = {_name(label): label for label in labels}
    if len(names) < len(labels):
        return None
    stated_first = [name for name in names if name in _FIRST]
    if stated_first:
        is_unambiguous = len(stated_first) == 1 and not any(name.startswith(_BEFORE_FIRST) for name in names)
        return names[stated_first[0]] if is_unambiguous else None
    if len(names) == 1:
        (name,) = names
        return None if is_later(name) else names[name]
    if not (numbers := label_numbers(labels)):
        return None
    lowest = min(numbers, key=lambda label: numbers[label])
    return None if is_later(lowest) or numbers[lowest] > 1 else lowest


def label_numbers(labels: Collection[str]) -> dict[str, int] | None:
    """The number in each label if all are the same word with different numbers; else None."""
    matches = {label: _NUMBERED.fullmatch(_name(label)) for label in labels}
    words, numbers = set(), {}
    for label, match in matches.items():
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


def is_later(label: str) -> bool:
    """Whether a label, with or without `ses-`, states that there was an earlier session.

    Examples
    --------
    >>> [is_later(name) for name in ("24m", "02", "visit2", "third", "followup2", "y1", "2ndvisit")]
    [True, True, True, True, True, True, True]
    >>> [is_later(name) for name in ("01", "baseline", "m00", "7t", "t1w", "2019", "functional", "v01m00", "mri")]
    [False, False, False, False, False, False, False, False, False]
    """
    name = _name(label)
    if any(word in name for word in _LATER_ANYWHERE) or name.startswith(_LATER):
        return True
    if _LATER_ALONE.match(name) or _LATER_ORDINAL.fullmatch(name):
        return True
    return any(_counts_on(match) for match in _COUNT.finditer(name))


def _name(label: str) -> str:
    return label.removeprefix(SESSION).casefold()


def _counts_on(match: re.Match[str]) -> bool:
    """Whether a number in a label, with the letters beside it, is a time after 0 or a count above 1."""
    number, before = int(match["number"]), match["before"]
    after = match["after"]
    if match["more"]:  # letters between two numbers belong to the second number
        after = "" if before else "-"
    if before == "t" and after.startswith(_WEIGHTINGS):
        return False  # t1w, t2star: what kind of image
    if before in _TIMES or _TIME_AFTER.match(after):
        return number > 0
    return bool(_AFTER_COUNT.match(after)) and not before.endswith("tesla") and 1 < number <= _MOST_VISITS
