"""Rows of a table in text (RFC 4180), checked before it is read: quotation marks, and as many cells as the header.

Where a separator is missing, all cells behind it are read as those of the column before. A mark that opens a cell and
is not closed makes a CSV reader take the lines below into that cell: their patients are lost, or get others' values.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from fedage.common.errors import FedAgeError

_PIECE_BYTES = 2**20
_LINES_SHOWN = 5
_INSIDE = r'[^"]*+(?:""[^"]*+)*+'


def require_whole_rows(stream: TextIO, path: Path, *, separator: str, line: int = 1) -> int | None:
    """Refuse a table with a row of too few cells, or a quoted cell that is not closed or goes on over rows.

    Names at the header's end that are blank need no cell. Rows of too many cells are left to whoever reads the table.

    Parameters
    ----------
    stream
        The table, opened with `newline=""`, where its header begins; it is read to its end.
    path
        The file, for messages and to see whether there is a quotation mark at all.
    separator
        What is between cells.
    line
        Number of the header's line.

    Returns
    -------
    int or None
        Rows below the header, blank lines not counted; None of a table without a quotation mark, whose rows are lines.

    Raises
    ------
    FedAgeError
        Naming the lines where such a row or cell begins.
    """
    has_mark = _has_mark(path)
    cells_needed = 0
    short_row_lines: list[int] = []
    cells: list[str] = []
    blanks = " \t".replace(separator, "")
    rows, columns, opened_line = 0, 0, 0
    cells_by_line: list[int] = []
    for number, raw_line in enumerate(stream, start=line):
        text = raw_line.rstrip("\r\n")
        if not opened_line and '"' not in text:
            rows += bool(text.strip(blanks))
            columns = columns or text.count(separator) + 1
            if not cells_needed:
                cells_needed = text.rstrip(separator + " \t").count(separator) + 1
            elif text.count(separator) + 1 < cells_needed and text.strip(blanks):
                short_row_lines.append(number)
            continue
        match = _pattern(separator, inside=bool(opened_line)).fullmatch(text)
        if not match:
            raise _not_closed(path, opened_line or number)
        cells_by_line.append(text.count(separator) + 1)
        cells.append(text)
        if any(part is not None for part in match.groups()):
            opened_line = opened_line or number
            continue
        # Two stray marks make one cell of all between them: then each of its lines has the cells of a row.
        if len(cells_by_line) > 1 and columns and min(cells_by_line) >= columns > 1:
            raise _not_closed(path, opened_line)
        row = "\n".join(cells)
        columns = columns or _cells(separator, row)
        if not cells_needed:
            cells_needed = _cells(separator, row.rstrip(separator + " \t"))
        elif _cells(separator, row) < cells_needed:
            short_row_lines.append(opened_line or number)
        rows += 1
        opened_line = 0
        cells_by_line.clear()
        cells.clear()
    if opened_line:
        raise _not_closed(path, opened_line)
    if short_row_lines:
        raise _too_few_cells(path, short_row_lines)
    return max(0, rows - 1) if has_mark else None


def require_all_read(path: Path, *, rows: int | None, read: int) -> None:
    """Refuse a table of which a reader gives another number of rows than its lines have."""
    if rows is not None and rows != read:
        raise FedAgeError(
            f"{path} has {rows} rows, and {read} of them can be told apart; save it again as CSV without line breaks "
            "or quotation marks in its cells"
        )


def _has_mark(path: Path) -> bool:
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            if b'"' in piece:
                return True
    return False


@lru_cache(maxsize=16)
def _pattern(separator: str, *, inside: bool) -> re.Pattern[str]:
    """One line of a table, from the beginning of a cell or from inside a quoted one; a group if it ends in such."""
    sign = re.escape(separator)
    closed = rf'{_INSIDE}" *+(?={sign}|\Z)'
    cell = rf'(?:"{closed}|[^"{sign}][^{sign}]*+|)'
    rest = rf'(?:{sign}{cell})*+(?P<open>"{_INSIDE})?'
    return re.compile(rf"(?:{closed}{rest}|(?P<on>{_INSIDE}))" if inside else cell + rf'{rest}|(?P<only>"{_INSIDE})')


def _cells(separator: str, row: str) -> int:
    """How many cells a row has whose quoted cells are closed."""
    return _quoted(separator).sub(r"\g<before>", row).count(separator) + 1


@lru_cache(maxsize=8)
def _quoted(separator: str) -> re.Pattern[str]:
    sign = re.escape(separator)
    return re.compile(rf'(?P<before>\A|{sign})"{_INSIDE}" *+(?={sign}|\Z)')


def _too_few_cells(path: Path, lines: list[int]) -> FedAgeError:
    shown = ", ".join(map(str, lines[:_LINES_SHOWN]))
    more = f" and {len(lines) - _LINES_SHOWN} more" if len(lines) > _LINES_SHOWN else ""
    which = f"line {shown} has" if len(lines) == 1 else f"lines {shown}{more} have"
    return FedAgeError(
        f"{path}: {which} fewer cells than the header has names; write a separator for each empty cell too, or "
        "complete the rows"
    )


def _not_closed(path: Path, line: int) -> FedAgeError:
    return FedAgeError(
        f"{path}: line {line} has a quotation mark that opens a cell and is not closed before the next separator or "
        "line end; take it out, or write two of them within a cell in quotes"
    )
