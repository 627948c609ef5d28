"""A table file to a frame, and its columns to numbers, with what could not be read marked."""

from __future__ import annotations

import csv
import difflib
import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedage.common.errors import FedAgeError
from fedage.common.statistic import FloatArray

SUFFIXES = (".csv", ".tsv", ".parquet")
MAX_COLUMNS = 5000
"""Most columns of a table: each costs time of its own. Tables of thicknesses and volumes have some hundreds."""
MAX_ROWS = 20_000_000
_MAX_LINE_BYTES = 4 * 2**20
"""Longest first line: the names of `MAX_COLUMNS` columns are shorter."""
NAME_MAX = 200
"""Longest name of a column, in characters: what a site's answer may hold."""
_UNNAMED = "Unnamed: "
"""What pandas calls a column whose name is blank, such as row numbers that it wrote itself."""
_MOSTLY = 0.5
Mask = NDArray[np.bool_]


def read_frame(path: Path, *, text: Collection[str] = ()) -> pd.DataFrame:
    """A CSV, TSV or Parquet file as a frame; the columns `text` (identifiers) stay as they are written.

    Raises
    ------
    FedAgeError
        If it is not such a file, cannot be read, names a column twice, or has no row.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise FedAgeError(f"{path} is no table: allowed are {', '.join(SUFFIXES)}; convert it")
    require_bounded(path)
    try:
        frame = pd.read_parquet(path) if kind == ".parquet" else _read_text(path, kind=kind, text=text)
    except pd.errors.ParserError as error:
        found = re.search(r"line (\d+), saw", str(error))
        raise _too_many_cells(path, line=found[1] if found else "") from None
    except (OSError, ValueError, ImportError) as error:
        raise FedAgeError(
            f"{path} cannot be read as a table ({type(error).__name__}); save it again as "
            f"{'Parquet' if kind == '.parquet' else 'CSV in UTF-8'}"
        ) from None
    frame.columns = [str(name).strip() for name in frame.columns]
    _each_once(list(frame.columns), path)
    if frame.empty:
        raise FedAgeError(f"{path} has no row; give a table with one row a patient")
    return frame


def _read_text(path: Path, *, kind: str, text: Collection[str]) -> pd.DataFrame:
    separator = "\t" if kind == ".tsv" else ","
    header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False)
    # pandas renames a repeated column (x, x.1), so the names are taken from the line itself.
    names = [str(name).strip() or f"{_UNNAMED}{k}" for k, name in enumerate(header.iloc[0])]
    _each_once(names, path)
    if len(names) == 1 and (other := next((sign for sign in ";\t," if sign in names[0]), None)):
        raise FedAgeError(
            f"{path} has one column only, whose name has {other!r} in it: cells are separated by {separator!r} in a "
            f"{kind} file; save it again with that between cells, and points in numbers"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                path,
                sep=separator,
                header=None,
                names=names,
                skiprows=1,
                index_col=False,
                low_memory=False,
                float_precision="round_trip",
                dtype=dict.fromkeys(set(text) & set(names), str),
            )
        except pd.errors.ParserWarning:
            raise _too_many_cells(path, line="2") from None


def require_bounded(path: Path, *, most_columns: int = MAX_COLUMNS) -> None:
    """Refuse a table of more columns or rows than are read, at the cost of its first line or its footer.

    Raises
    ------
    FedAgeError
        Naming what is allowed. A file that cannot be opened passes: whoever reads it says why.
    """
    columns = 0
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet

            about = pyarrow.parquet.read_metadata(path)
            columns, rows = about.num_columns, about.num_rows
            if rows > MAX_ROWS:
                raise FedAgeError(f"{path} has {rows} rows; allowed are {MAX_ROWS}: divide it")
        else:
            with path.open("rb") as stream:
                line = stream.readline(_MAX_LINE_BYTES)
            if len(line) == _MAX_LINE_BYTES:
                raise FedAgeError(
                    f"{path} has a first line of more than {_MAX_LINE_BYTES} bytes: it should hold the names of at "
                    f"most {most_columns} columns; save the table again, one row a line"
                )
            first = line.partition(b"\r")[0].decode("utf-8", "replace")  # some programs end lines with it alone
            columns = max(_names_in(first, separator=sign) for sign in ",;\t")
    except (OSError, ValueError):
        return
    if columns > most_columns:
        raise FedAgeError(f"{path} has {columns} columns; allowed are {most_columns}: leave out those not needed")


def _names_in(line: str, *, separator: str) -> int:
    """How many names a first line holds; by its separators where a name is longer than any is."""
    try:
        return len(next(csv.reader([line], delimiter=separator), ()))
    except csv.Error:
        return 1 + line.count(separator)


def columns_in_words(names: Sequence[str], *, wanted: Collection[str]) -> str:
    """What to say of a table's columns where one is missing: how many there are, and those called nearly like it.

    The others are not named: of a table without a header, they are a patient's values.

    Examples
    --------
    >>> columns_in_words(["patientid", "MRN-7714423"], wanted=["patient_id"])
    "2 columns, of which 'patientid' is called nearly so"
    >>> columns_in_words(["MRN-7714423", "61", "1"], wanted=["patient_id", "age"])
    "3 columns, none of which is called nearly so; its first line must hold the columns' names"
    """
    near = [name for want in wanted for name in difflib.get_close_matches(want, list(names), n=2, cutoff=0.7)]
    count = "1 column" if len(names) == 1 else f"{len(names)} columns"
    if not near:
        return f"{count}, none of which is called nearly so; its first line must hold the columns' names"
    shown = list(dict.fromkeys(near))[:5]
    return f"{count}, of which {', '.join(map(repr, shown))} {'is' if len(shown) == 1 else 'are'} called nearly so"


def shown_name(name: str, *, places: Sequence[int]) -> str:
    """A column's name for a message; one with a digit in it may be a value of a table without a header.

    Examples
    --------
    >>> shown_name("age", places=[2, 5]), shown_name("MRN-7714423", places=[1, 2])
    ("'age'", 'at places 1 and 2')
    """
    if any(character.isdigit() for character in name):
        return f"at places {' and '.join(map(str, places))}"
    return repr(name)


def _too_many_cells(path: Path, *, line: str) -> FedAgeError:
    return FedAgeError(
        f"{path}: {f'line {line}' if line else 'a line'} has more cells than the header has names; write numbers with "
        "a point, put texts that hold the separator in quotes, or name every column"
    )


def without_bad_names(frame: pd.DataFrame, *, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The columns that have a name of a length that results can hold, and a line about the others."""
    unnamed = [name for name in frame.columns if name.startswith(_UNNAMED) or not name]
    long = [name for name in frame.columns if len(name) > NAME_MAX]
    said = []
    for names, why in ((unnamed, "without a name"), (long, f"with a name longer than {NAME_MAX} characters")):
        if names:
            one = f"1 column {why} is" if len(names) == 1 else f"{len(names)} columns {why} are"
            said.append(f"{path.name}: {one} left out")
    return frame.drop(columns=[*unnamed, *long]), said


def _each_once(names: Sequence[str], path: Path) -> None:
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            places = [number for number, other in enumerate(names, start=1) if other == name][:2]
            raise FedAgeError(f"{path} has the column {shown_name(name, places=places)} twice; rename one of them")


def labels(column: pd.Series) -> pd.Series:
    """Identifiers or site names as text, missing where blank; 3.0 is 3 where all are such numbers.

    A column of whole numbers with a gap in it is read as 1.0, 2.0, …, which is nobody's name.
    """
    texts = column.astype("string").str.strip()
    texts = texts.mask(texts == "")
    if texts.str.fullmatch(r"-?\d+(\.0)?").all():
        texts = texts.str.removesuffix(".0")
    return texts


def numbers(column: pd.Series, *, missing: Sequence[float] = ()) -> tuple[FloatArray, Mask]:
    """A column as float64 (n,), NaN where missing, and which cells hold something that is no number, (n,)."""
    if pd.api.types.is_bool_dtype(column):
        column = column.astype(float)
    values = np.array(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    unread = np.isnan(values)
    wrong = np.zeros(values.size, dtype=bool)
    if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
        rest = column[unread]
        wrong[unread] = (rest.notna() & (rest.astype("string").str.strip() != "")).to_numpy(dtype=bool, na_value=False)
    wrong |= np.isinf(values)
    values[~np.isfinite(values)] = np.nan
    for code in missing:
        values[values == code] = np.nan
    return values, wrong


def is_text(values: FloatArray, wrong: Mask) -> bool:
    """Whether a column is not meant to hold numbers: fewer than half of what is in it are some."""
    known, odd = int(np.count_nonzero(np.isfinite(values))), int(np.count_nonzero(wrong))
    return odd > 0 and known < _MOSTLY * (known + odd)
