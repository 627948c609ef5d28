"""How a table in text begins: the line with which Excel says what is between cells is read as that."""

from __future__ import annotations

import re
from typing import TextIO

_SEPARATOR = re.compile(r"\ufeff?\"?sep=(?P<sign>[,;|\t ])\"?(?P=sign)*\s*", re.IGNORECASE)


def separator_in(line: str) -> str | None:
    """What a first line such as `sep=;` says is between cells; None if it is no such line.

    Examples
    --------
    >>> [separator_in(line) for line in ('sep=;', '"sep=,"', 'sep=,,,,', 'SEP=|', 'sep,age', 'sep=1')]
    [';', ',', ',', '|', None, None]
    """
    match = _SEPARATOR.fullmatch(line.rstrip("\r\n"))
    return match["sign"] if match else None


def skip_separator_line(stream: TextIO) -> str | None:
    """What the first line says is between cells, the stream then behind it; else None, and the stream where it was."""
    start = stream.tell()
    separator = separator_in(stream.readline(100))
    if separator is None:
        stream.seek(start)
    return separator


def skip_blank_lines(stream: TextIO) -> int:
    """Set the stream to the next line that is not blank, and say how many were."""
    skipped, line_start = 0, stream.tell()
    while (line := stream.readline()) and not line.strip():
        skipped, line_start = skipped + 1, stream.tell()
    stream.seek(line_start)
    return skipped
