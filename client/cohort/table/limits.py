"""Limits on the size of a table, checked before it is read: by its first line, its number of lines, and its size.

The limits follow from memory: a table is held as numbers of 8 bytes; one of outcomes or of participants as texts first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedage.client.cohort.table.leading_lines import separator_in
from fedage.common.errors import FedAgeError

MAX_LINE_BYTES = 4 * 2**20
"""Longest first line, blank lines before it included: the names of the columns that are allowed are shorter."""
SEPARATORS = ",;\t"
_PIECE_BYTES = 2**20
_ROWS_AT_ONCE = 65_536
_BLANK_LINES = re.compile(r"(?:[ \t]*(?:\r\n|\r|\n))*")


@dataclass(frozen=True)
class TableLimits:
    """The largest table of one kind.

    Parameters
    ----------
    columns, rows
        Most of each.
    cells
        Most rows times columns.
    size_bytes
        Largest file.
    """

    columns: int
    rows: int
    cells: int
    size_bytes: int


TABLE = TableLimits(columns=5000, rows=20_000_000, cells=200_000_000, size_bytes=2 * 2**30)
"""A site's table of measures, tables of a simulation and of a recipe. Each column costs time of its own."""
OUTCOMES = TableLimits(columns=2000, rows=5_000_000, cells=50_000_000, size_bytes=512 * 2**20)
"""A table of outcomes."""
PARTICIPANTS = TableLimits(columns=2000, rows=1_000_000, cells=10_000_000, size_bytes=128 * 2**20)
"""participants.tsv and the tables of sessions and scans of a BIDS data set."""


@dataclass(frozen=True)
class FirstLine:
    """The line with the columns' names.

    Parameters
    ----------
    blank_lines
        Blank lines before it.
    columns
        Names in it, by the separator that gives most; a separator in quotes is none.
    separator
        That separator.
    """

    blank_lines: int
    columns: int
    separator: str = ","


def require_bounded(path: Path, limits: TableLimits) -> FirstLine:
    """Refuse a table of more columns, rows, cells or bytes than are read, at the cost of counting its lines.

    Raises
    ------
    FedAgeError
        Naming what is allowed. A file that cannot be opened passes: whoever reads it says why.
    """
    parquet = path.suffix.lower() == ".parquet"
    if path.exists() and not path.is_file() and not path.is_dir():
        raise FedAgeError(
            f"{path} is a pipe, a socket or a device, for which a reader could wait for ever; give a file"
        )
    try:
        if (size := path.stat().st_size) > limits.size_bytes:
            raise FedAgeError(f"{path} has {size} bytes; allowed are {limits.size_bytes}: divide it")
        first, rows = _of_parquet(path, limits) if parquet else (first_line(path, most_columns=limits.columns), 0)
        if first.columns > limits.columns:
            raise FedAgeError(
                f"{path} has {first.columns} columns; allowed are {limits.columns}: leave out those not needed"
            )
        max_rows = min(limits.rows, limits.cells // max(1, first.columns))
        if not parquet:
            rows = _lines(path, at_most=max_rows)
            _require_end(path, first)
    except (OSError, ValueError):
        return FirstLine(0, 0)
    if rows > max_rows:
        raise FedAgeError(
            f"{path} has {rows if parquet else f'more than {max_rows}'} rows and {first.columns} "
            f"column{'s' if first.columns != 1 else ''}; allowed are {limits.rows} rows and {limits.cells} cells in "
            "all: divide it, or leave out columns not needed"
        )
    return first


def first_line(path: Path, *, most_columns: int) -> FirstLine:
    """The first line of a text that is neither blank nor says what is between cells.

    Raises
    ------
    FedAgeError
        Where it does not end.
    """
    with path.open("rb") as stream:
        raw = stream.read(MAX_LINE_BYTES + 1)
    text = raw.decode("utf-8-sig", "replace")
    blank = _BLANK_LINES.match(text)
    header_start = blank.end() if blank else 0
    skipped = text[:header_start]
    text = text[header_start:]
    line, end, rest = text.partition("\n")
    text = rest if end and separator_in(line) else text
    names_by_separator = {sign: _names_in(text, separator=sign) for sign in SEPARATORS}
    if len(raw) > MAX_LINE_BYTES and not all(ends for _, ends in names_by_separator.values()):
        raise FedAgeError(
            f"{path} has a first line of more than {MAX_LINE_BYTES} bytes: it should hold the names of at "
            f"most {most_columns} columns; save the table again, one row a line"
        )
    count = skipped.count("\n") + skipped.count("\r") - skipped.count("\r\n")
    separator = max(names_by_separator, key=lambda sign: names_by_separator[sign][0])
    return FirstLine(blank_lines=count, columns=names_by_separator[separator][0], separator=separator)


def _names_in(text: str, *, separator: str) -> tuple[int, bool]:
    """How many names the first line of a text holds, as a reader of quoted cells counts; and whether it ends."""
    quoted = r'"[^"]*+(?:""[^"]*+)*+(?:"|\Z)'
    cell = re.compile(rf"(?:{quoted})?[^{separator}\r\n]*+(?P<end>[{separator}\r\n]|\Z)")
    count = 0
    for match in cell.finditer(text):
        count += 1
        if match["end"] != separator:
            return count, bool(match["end"])
    return count, False


def _lines(path: Path, *, at_most: int) -> int:
    """Lines after the first, by whichever line end there are more of; counted until there are too many.

    Raises
    ------
    FedAgeError
        If a byte is zero: a CSV reader ends the cell there, and reads a part of the number.
    """
    n_line_feeds = n_carriage_returns = -1
    for piece in _pieces(path):
        if (position := piece.find(0)) >= 0:
            line = (
                max(
                    n_line_feeds + piece.count(b"\n", 0, position), n_carriage_returns + piece.count(b"\r", 0, position)
                )
                + 2
            )
            raise FedAgeError(
                f"{path}: line {line} has a byte of zero, so the file is no text in UTF-8, or is damaged; save it "
                "again as CSV in UTF-8, or copy it again"
            )
        n_line_feeds += piece.count(b"\n")
        n_carriage_returns += piece.count(b"\r")
        if max(n_line_feeds, n_carriage_returns) > at_most:
            break
    return max(n_line_feeds, n_carriage_returns)


def _require_end(path: Path, first: FirstLine) -> None:
    """Refuse a text that ends within a row: its last number may be cut, and read as a smaller one."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _PIECE_BYTES))
        last = re.split(rb"[\r\n]", stream.read())[-1].decode("utf-8", "replace")
    if last.strip() and '"' not in last and last.count(first.separator) + 1 < first.columns:
        raise FedAgeError(
            f"{path}: its last line has fewer cells than the header has names, and no line end, so the file may have "
            "been cut off; copy it again, or complete that line"
        )


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            yield piece


def _of_parquet(path: Path, limits: TableLimits) -> tuple[FirstLine, int]:
    """Columns and rows by the footer; the bytes that it says the cells unpack to are bounded too."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        metadata, schema = file.metadata, file.schema_arrow
        unpacked = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
        if unpacked > limits.size_bytes:
            raise FedAgeError(f"{path} unpacks to {unpacked} bytes; allowed are {limits.size_bytes}: divide it")
        first = FirstLine(0, metadata.num_columns)
        if first.columns > limits.columns or metadata.num_rows > min(
            limits.rows, limits.cells // max(1, first.columns)
        ):
            return first, metadata.num_rows
    if nested := [number for number, field in enumerate(schema, start=1) if pyarrow.types.is_nested(field.type)]:
        raise FedAgeError(f"{path}: column {nested[0]} holds lists or records, not single values; leave it out")
    texts = [field.name for field in schema if _is_text(field.type)]
    if texts and _text_bytes(path, texts, at_most=limits.size_bytes) > limits.size_bytes:
        raise FedAgeError(f"{path} has texts of more than {limits.size_bytes} bytes together: leave out long ones")
    return first, metadata.num_rows


def _is_text(kind: Any) -> bool:
    import pyarrow

    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return bool(
        pyarrow.types.is_string(kind)
        or pyarrow.types.is_binary(kind)
        or pyarrow.types.is_large_string(kind)
        or pyarrow.types.is_large_binary(kind)
    )


def _text_bytes(path: Path, columns: list[str], *, at_most: int) -> int:
    """What the texts take once every row has its own; counted until they are too many.

    Attack: a text of a megabyte that the file stores once and a million rows share unpacks to a terabyte, while the
    footer gives the stored size. Rule: lengths are summed before anything is unpacked.
    """
    import pyarrow.compute
    import pyarrow.parquet

    total = 0
    with pyarrow.parquet.ParquetFile(path, read_dictionary=columns) as file:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
            for column in batch.columns:
                lengths = pyarrow.compute.binary_length(column.dictionary).fill_null(0)
                used = column.indices.drop_null()
                total += pyarrow.compute.sum(lengths.take(used).cast("int64")).as_py() or 0
            if total > at_most:
                break
    return total
