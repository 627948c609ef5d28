"""When work may begin: windows by weekday on the site's own wall clock.

A window belongs to the weekday it begins on; `18:00-06:00` ends on the next day. On the day that summer time begins or
ends, the wall clock is what counts: an hour that is shown twice is inside twice, one that is skipped never comes.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from fedage.client.consent.policy.types import Hours

_WINDOW = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)")
_DAY_MINUTES = 24 * 60


class NoWindow(ValueError):
    """Text that is no window of time."""


def minutes(window: str) -> tuple[int, int]:
    """`"18:00-06:00"` as minutes from the day's midnight, the end beyond 1440 if it is on the next day.

    Raises
    ------
    NoWindow
        For anything but two times that differ.
    """
    match = _WINDOW.fullmatch(window)
    if match is None:
        raise NoWindow(window)
    hour, minute, end_hour, end_minute = match.groups()
    begin = int(hour) * 60 + int(minute)
    end = _DAY_MINUTES if end_hour is None else int(end_hour) * 60 + int(end_minute)
    if end == begin:
        raise NoWindow(window)
    return begin, end if end > begin else end + _DAY_MINUTES


def is_open(hours: Hours, at: datetime) -> bool:
    """Whether work may begin at this moment (a time with a zone)."""
    local = at.astimezone(ZoneInfo(hours.time_zone))
    minute = local.hour * 60 + local.minute
    yesterday = (local - timedelta(days=1)).weekday()
    today = any(begin <= minute < end for begin, end in map(minutes, hours.windows(local.weekday())))
    return today or any(minute + _DAY_MINUTES < end for _, end in map(minutes, hours.windows(yesterday)))
