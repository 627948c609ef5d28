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
    found = _SEPARATOR.fullmatch(line.rstrip("\r\n"))
    return found["sign"] if found else None


def skip_separator_line(stream: TextIO) -> str | None:
    """What the first line says is between cells, the stream then behind it; else None, and the stream where it was."""
    start = stream.tell()
    said = separator_in(stream.readline(100))
    if said is None:
        stream.seek(start)
    return said


def skip_blank_lines(stream: TextIO) -> int:
    """Set the stream to the next line that is not blank, and say how many were."""
    skipped, begins = 0, stream.tell()
    while (line := stream.readline()) and not line.strip():
        skipped, begins = skipped + 1, stream.tell()
    stream.seek(begins)
    return skipped
