"""A table in text, opened at its header: leading lines skipped, separator known, and every row checked to be whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from fedage.client.cohort.table.leading_lines import skip_blank_lines, skip_separator_line
from fedage.client.cohort.table.quotes import require_whole_rows
from fedage.common.errors import FedAgeError


@dataclass(frozen=True)
class TextTable:
    """An open table, its stream at the header.

    Parameters
    ----------
    separator
        What separates cells.
    is_stated
        Whether a line `sep=;` gives the separator.
    n_rows
        Rows below the header; None if the table has no quotation mark, so that each line is a row.
    """

    stream: TextIO
    separator: str
    is_stated: bool
    n_rows: int | None
    _header_start: int

    def rewind(self) -> TextIO:
        """The stream, set back to the header."""
        self.stream.seek(self._header_start)
        return self.stream


@contextmanager
def open_text_table(path: Path, *, blank_lines: int, separator_of: Callable[[str], str]) -> Iterator[TextTable]:
    """Open a table in UTF-8 and check its rows.

    Parameters
    ----------
    path
        The file.
    blank_lines
        Blank lines before its first other line.
    separator_of
        Gives the separator from the header's line, where no line `sep=;` states it.

    Raises
    ------
    FedAgeError
        If a row is not whole, see `require_whole_rows`.
    OSError, UnicodeDecodeError
        If the file cannot be read or decoded.
    """
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for _ in range(blank_lines):  # pandas miscounts blank lines to skip
            stream.readline()
        stated = skip_separator_line(stream)
        line = blank_lines + 1
        if stated:
            line += 1 + skip_blank_lines(stream)
        start = stream.tell()
        separator = stated or separator_of(stream.readline())
        stream.seek(start)
        n_rows = require_whole_rows(stream, path, separator=separator, line=line)
        stream.seek(start)
        yield TextTable(stream, separator, bool(stated), n_rows, start)


def too_many_cells(path: Path, where: str) -> FedAgeError:
    """The error for rows that have more cells than the header; `where` says which rows."""
    return FedAgeError(
        f"{path}: {where} more cells than the header has names; write numbers with a decimal point, quote texts that "
        "contain the separator, or name every column; remove a title above the header"
    )
