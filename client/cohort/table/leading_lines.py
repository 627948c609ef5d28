"""Lines before a text table's header: blank lines, and the line `sep=;` with which Excel states the separator."""

from __future__ import annotations

import re
from typing import TextIO

_SEPARATOR = re.compile(r"\ufeff?\"?sep=(?P<sign>[,;|\t ])\"?(?P=sign)*\s*", re.IGNORECASE)


def separator_in(line: str) -> str | None:
    """The separator that a first line such as `sep=;` states; None if it is no such line.

    Examples
    --------
    >>> [separator_in(line) for line in ('sep=;', '"sep=,"', 'sep=,,,,', 'SEP=|', 'sep,age', 'sep=1')]
    [';', ',', ',', '|', None, None]
    """
    match = _SEPARATOR.fullmatch(line.rstrip("\r\n"))
    return match["sign"] if match else None


def skip_separator_line(stream: TextIO) -> str | None:
    """Skip a first line `sep=;` and return its separator; else None, the stream unchanged."""
    start = stream.tell()
    separator = separator_in(stream.readline(100))
    if separator is None:
        stream.seek(start)
    return separator


def skip_blank_lines(stream: TextIO) -> int:
    """Skip blank lines, and return how many there were."""
    skipped, line_start = 0, stream.tell()
    while (line := stream.readline()) and not line.strip():
        skipped, line_start = skipped + 1, stream.tell()
    stream.seek(line_start)
    return skipped
