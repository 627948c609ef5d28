"""A table file to a frame, and its columns to numbers, with what could not be read marked."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.table.header import repeated_name
from fedage.client.cohort.table.leading_lines import skip_blank_lines, skip_separator_line
from fedage.client.cohort.table.limits import TABLE, require_bounded
from fedage.client.cohort.table.quotes import require_all_read, require_whole_rows
from fedage.common.errors import FedAgeError
from fedage.common.statistics.statistic import FloatArray
from fedage.common.toml.column_names import normal_name

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".parquet")
NAME_MAX = 200
"""Longest name of a column, in characters: what a site's answer may hold."""
_UNNAMED = "Unnamed: "
"""What pandas calls a column whose name is blank, such as row numbers that it wrote itself."""
_MOSTLY = 0.5
Mask = NDArray[np.bool_]


def read_frame(
    path: Path, *, text: Collection[str] = (), sites: str | None = None, known: Collection[str] = ()
) -> pd.DataFrame:
    """A CSV, TSV or Parquet file as a frame; blank lines before its header are passed over, a line `sep=;` is heeded.

    Parameters
    ----------
    path
        The file.
    text
        Columns (identifiers) that stay as they are written.
    sites
        A column that names sites: it stays as it is written, and no word is a missing value in it (NA, None).
    known
        Other columns that are looked for: messages quote names only of a header that has one of either.

    Raises
    ------
    FedAgeError
        If it is not such a file, is larger than `limits.TABLE`, cannot be read, names a column twice, or has no row.
    """
    import pandas as pd

    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise FedAgeError(f"{path} is no table: allowed are {', '.join(SUFFIXES)}; convert it")
    known = [*text, *((sites,) if sites else ()), *known]
    blank_lines = require_bounded(path, TABLE).blank_lines
    try:
        if kind == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = _read_text(path, kind=kind, text=text, sites=sites, known=known, blank_lines=blank_lines)
    except pd.errors.ParserError as error:
        found = re.search(r"line (\d+), saw", str(error))
        raise _too_many_cells(path, line=found[1] if found else "") from None
    except pd.errors.EmptyDataError:
        raise FedAgeError(f"{path} is empty; give a table with a line of names and one row a patient") from None
    except (OSError, ValueError, ImportError) as error:
        raise FedAgeError(
            f"{path} cannot be read as a table ({type(error).__name__}); save it again as "
            f"{'Parquet' if kind == '.parquet' else 'CSV in UTF-8'}"
        ) from None
    frame.columns = [normal_name(str(name)).strip() for name in frame.columns]
    _each_once(list(frame.columns), path, known=known)
    if frame.empty:
        raise FedAgeError(f"{path} has no row; give a table with one row a patient")
    return frame


def _read_text(
    path: Path, *, kind: str, text: Collection[str], sites: str | None, known: Collection[str], blank_lines: int
) -> pd.DataFrame:
    import pandas as pd

    with path.open(encoding="utf-8-sig", newline="") as stream:
        for _ in range(blank_lines):  # pandas' own count of lines to skip goes wrong on blank ones
            stream.readline()
        said = skip_separator_line(stream)
        blank_lines += skip_blank_lines(stream) if said else 0
        separator = said or ("\t" if kind == ".tsv" else ",")
        begins = stream.tell()
        rows = require_whole_rows(stream, path, separator=separator, line=blank_lines + bool(said) + 1)
        stream.seek(begins)
        header = pd.read_csv(stream, sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False)
        stream.seek(begins)
        # pandas renames a repeated column (x, x.1), so the names are taken from the line itself.
        names = [normal_name(str(name)).strip() or f"{_UNNAMED}{k}" for k, name in enumerate(header.iloc[0])]
        _each_once(names, path, known=known)
        other = next((sign for sign in ";\t,|" if sign in names[0]), None) if len(names) == 1 else None
        if other:
            where = "as its line 'sep=' says" if said else f"in a {kind} file"
            raise FedAgeError(
                f"{path} has one column only, whose name has {other!r} in it: cells are separated by {separator!r} "
                f"{where}; save it again with that between cells, and points in numbers"
            )
        frame = _rows(stream, path, names, separator=separator, text=text, sites=sites)
        require_all_read(path, rows=rows, read=len(frame))
        return frame


def _rows(
    stream: TextIO,
    path: Path,
    names: list[str],
    *,
    separator: str,
    text: Collection[str],
    sites: str | None,
) -> pd.DataFrame:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                stream,
                sep=separator,
                header=None,
                names=names,
                skiprows=1,
                index_col=False,
                low_memory=False,
                float_precision="round_trip",
                dtype=dict.fromkeys((set(text) & set(names)) - {sites}, str),
                converters={sites: str} if sites and sites in names else None,
            )
        except pd.errors.ParserWarning:
            raise _too_many_cells(path, line="2") from None


def _too_many_cells(path: Path, *, line: str) -> FedAgeError:
    return FedAgeError(
        f"{path}: {f'line {line}' if line else 'a line'} has more cells than the header has names; write numbers with "
        "a point, put texts that hold the separator in quotes, or name every column; if a title stands above the "
        "header, take it out"
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


def _each_once(names: Sequence[str], path: Path, *, known: Collection[str]) -> None:
    if twice := repeated_name(names, known=known):
        raise FedAgeError(f"{path} has a column twice ({twice}); rename one of them")


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
    import pandas as pd

    # Parquet keeps categories, days and durations: the first are what they hold, days and durations no numbers.
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if column.dtype.kind in "mM" or isinstance(column.dtype, pd.PeriodDtype):
        column = column.astype("string")
    if pd.api.types.is_bool_dtype(column):
        column = column.astype(float)
    values = np.array(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    unread = np.isnan(values)
    wrong = np.zeros(values.size, dtype=bool)
    if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
        rest = column[unread].astype("string")
        texts = rest.str.strip()
        blanks = (rest != texts).to_numpy(dtype=bool, na_value=False)  # fixed blanks, which pandas does not pass over
        again = np.full(blanks.size, np.nan)
        again[blanks] = np.array(pd.to_numeric(texts[blanks], errors="coerce"), dtype=np.float64)
        values[unread] = again
        wrong[unread] = (rest.notna() & (texts != "")).to_numpy(dtype=bool, na_value=False) & np.isnan(again)
    wrong |= np.isinf(values)
    values[~np.isfinite(values)] = np.nan
    for code in missing:
        values[values == code] = np.nan
    return values, wrong


def is_text(values: FloatArray, wrong: Mask) -> bool:
    """Whether a column is not meant to hold numbers: fewer than half of what is in it are some."""
    known, odd = int(np.count_nonzero(np.isfinite(values))), int(np.count_nonzero(wrong))
    return odd > 0 and known < _MOSTLY * (known + odd)
