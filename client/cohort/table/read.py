"""Read a table file into a frame, and its columns into numbers; cells that could not be read are marked."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.table.grouped_digits import grouped_by_points
from fedage.client.cohort.table.header import require_unique_names
from fedage.client.cohort.table.identifiers import is_spreadsheet_error, require_as_written
from fedage.client.cohort.table.limits import TABLE, require_bounded
from fedage.client.cohort.table.quotes import require_all_read
from fedage.client.cohort.table.text_table import open_text_table, too_many_cells
from fedage.common.errors import FedAgeError
from fedage.common.statistics.statistic import FloatArray
from fedage.common.toml.column_names import normal_name

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".parquet")
NAME_MAX = 200
"""Longest column name, in characters, that a site's reply may hold."""
_UNNAMED = "Unnamed: "
"""Prefix that pandas gives to a column without a name, such as its own row numbers."""
_MOSTLY = 0.5
Mask = NDArray[np.bool_]


def read_frame(
    path: Path, *, text: Collection[str] = (), sites: str | None = None, known: Collection[str] = ()
) -> pd.DataFrame:
    """Read a CSV, TSV or Parquet file; blank lines before the header are skipped, and a line `sep=;` is obeyed.

    Parameters
    ----------
    path
        The file.
    text
        Columns (identifiers) that are kept as text.
    sites
        A column that names sites: it is kept as text, and words such as NA or None are names in it.
    known
        Other columns that are looked for. Messages quote names only if the first line holds one of these columns.

    Raises
    ------
    FedAgeError
        If the file has another type, exceeds `limits.TABLE`, cannot be read, has a column twice, or has no row.
    """
    import pandas as pd

    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise FedAgeError(f"{path} is no table; allowed are {', '.join(SUFFIXES)}; convert it")
    known = [*text, *((sites,) if sites else ()), *known]
    blank_lines = require_bounded(path, TABLE).blank_lines
    try:
        if kind == ".parquet":
            frame = _with_index(pd.read_parquet(path), path, text=text)
        else:
            frame = _read_text(path, kind=kind, text=text, sites=sites, known=known, blank_lines=blank_lines)
    except pd.errors.ParserError as error:
        match = re.search(r"line (\d+), saw", str(error))
        raise too_many_cells(path, f"line {match[1]} has" if match else "a line has") from None
    except pd.errors.EmptyDataError:
        raise FedAgeError(f"{path} is empty; give a table with a header and one row a patient") from None
    except (OSError, ValueError, ImportError) as error:
        raise FedAgeError(
            f"{path} cannot be read as a table ({type(error).__name__}); save it again as "
            f"{'Parquet' if kind == '.parquet' else 'CSV in UTF-8'}"
        ) from None
    frame.columns = [normal_name(str(name)).strip() for name in frame.columns]
    require_unique_names(path, list(frame.columns), known=known)
    if frame.empty:
        raise FedAgeError(f"{path} has no row; give a table with one row a patient")
    return frame


def _with_index(frame: pd.DataFrame, path: Path, *, text: Collection[str]) -> pd.DataFrame:
    """The frame with its named index as columns: pandas keeps identifiers there that somebody made the index.

    Raises
    ------
    FedAgeError
        If the index has no name and an identifier is missing among the columns.
    """
    import pandas as pd

    if any(name is not None for name in frame.index.names):
        taken = {str(name) for name in frame.columns}
        if kept := [str(name) for name in frame.index.names if name is not None and str(name) in taken]:
            raise FedAgeError(f"{path} has {kept[0]!r} as a column and as its index; keep one of them")
        return frame.reset_index(level=[name for name in frame.index.names if name is not None])
    has_labels = not frame.index.equals(pd.RangeIndex(len(frame)))
    names = {normal_name(str(name)).strip() for name in frame.columns}
    if has_labels and (missing := [name for name in text if name not in names]):
        raise FedAgeError(
            f"{path} has no column {missing[0]!r}, and its rows have an index without a name, which may hold it; name "
            f"it before the table is saved: frame.rename_axis({missing[0]!r}).reset_index()"
        )
    return frame


def _read_text(
    path: Path, *, kind: str, text: Collection[str], sites: str | None, known: Collection[str], blank_lines: int
) -> pd.DataFrame:
    import pandas as pd

    default = "\t" if kind == ".tsv" else ","
    with open_text_table(path, blank_lines=blank_lines, separator_of=lambda _header: default) as table:
        header = pd.read_csv(table.stream, sep=table.separator, header=None, nrows=1, dtype=str, keep_default_na=False)
        # pandas renames a repeated column (x, x.1), so the names are taken from the line itself.
        names = [normal_name(str(name)).strip() or f"{_UNNAMED}{k}" for k, name in enumerate(header.iloc[0])]
        require_unique_names(path, names, known=known)
        other_separator = next((sign for sign in ";\t,|" if sign in names[0]), None) if len(names) == 1 else None
        if other_separator:
            where = "as its line 'sep=' says" if table.is_stated else f"in a {kind} file"
            raise FedAgeError(
                f"{path} has only one column, and its name contains {other_separator!r}: cells are separated by "
                f"{table.separator!r} {where}; save the table again with that separator and with decimal points"
            )
        frame = _read_rows(table.rewind(), path, names, separator=table.separator, text=text, sites=sites)
        require_all_read(path, rows=table.n_rows, read=len(frame))
        return frame


def _read_rows(
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
            raise too_many_cells(path, "line 2 has") from None


def without_bad_names(frame: pd.DataFrame, *, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The columns whose names results can hold, and a message about the others."""
    unnamed = [name for name in frame.columns if name.startswith(_UNNAMED) or not name]
    long = [name for name in frame.columns if len(name) > NAME_MAX]
    messages = []
    for names, defect in ((unnamed, "without a name"), (long, f"with a name longer than {NAME_MAX} characters")):
        if names:
            subject = f"1 column {defect} is" if len(names) == 1 else f"{len(names)} columns {defect} are"
            messages.append(f"{path.name}: {subject} left out")
    return frame.drop(columns=[*unnamed, *long]), messages


def parse_labels(column: pd.Series) -> pd.Series:
    """Identifiers or names of sites as text, missing where blank.

    pandas reads whole numbers with a gap as 1.0, 2.0, …; where all are such numbers, ".0" is removed again.

    Raises
    ------
    FedAgeError
        If the file holds them as floating-point numbers that are not whole, or too large to be told apart, or if a
        spreadsheet has rounded them or turned them into days.
    """
    values = _without_rounding(column).astype("string").str.strip()
    values = values.mask(values == "")
    names = values.dropna().unique().tolist()
    require_as_written(names, column=str(column.name))
    values = values.mask(values.isin([name for name in names if is_spreadsheet_error(name)]))
    if values.str.fullmatch(r"-?\d+(\.0)?").all():
        values = values.str.removesuffix(".0")
    return values


def _without_rounding(column: pd.Series) -> pd.Series:
    """A column of identifiers or names; floating-point numbers of a Parquet file as whole numbers."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if not pd.api.types.is_float_dtype(column.dtype):
        return column
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    known = numbers[~np.isnan(numbers)]
    largest = 2 ** (np.finfo(getattr(column.dtype, "numpy_dtype", column.dtype)).nmant + 1)
    if (known != np.floor(known)).any() or (np.abs(known) >= largest).any():
        raise FedAgeError(
            f"column {column.name!r} names patients or sites by floating-point numbers that are not whole, or so large "
            "that their last digits are lost, so that two may be read as one; save the column as text"
        )
    return column.astype("Float64").astype("Int64")


def parse_numbers(column: pd.Series, *, missing: Sequence[float] = ()) -> tuple[FloatArray, Mask]:
    """A column as float64 (n,), NaN where missing; and a mask (n,) of cells that hold something else than a number."""
    import pandas as pd

    # Parquet has categories, dates and durations: categories are read as their values, dates and durations as text.
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if column.dtype.kind in "mM" or isinstance(column.dtype, pd.PeriodDtype):
        column = column.astype("string")
    if pd.api.types.is_bool_dtype(column):
        column = column.astype(float)
    values = np.array(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    is_missing = np.isnan(values)
    is_not_number = np.zeros(values.size, dtype=bool)
    if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
        remaining = column[is_missing].astype("string")
        texts = remaining.str.strip()
        has_blanks = (remaining != texts).to_numpy(
            dtype=bool, na_value=False
        )  # non-breaking blanks, which pandas does not strip
        reparsed = np.full(has_blanks.size, np.nan)
        reparsed[has_blanks] = np.array(pd.to_numeric(texts[has_blanks], errors="coerce"), dtype=np.float64)
        values[is_missing] = reparsed
        is_not_number[is_missing] = (remaining.notna() & (texts != "")).to_numpy(dtype=bool, na_value=False) & np.isnan(
            reparsed
        )
    is_not_number |= np.isinf(values)
    values[~np.isfinite(values)] = np.nan
    for code in missing:
        values[values == code] = np.nan
    is_grouped = grouped_by_points(values)
    values[is_grouped] = np.nan
    return values, is_not_number | is_grouped


def is_text_column(values: FloatArray, is_not_number: Mask) -> bool:
    """Whether a column holds text: fewer than half of its filled cells are numbers."""
    n_numbers, n_not_numbers = int(np.count_nonzero(np.isfinite(values))), int(np.count_nonzero(is_not_number))
    return n_not_numbers > 0 and n_numbers < _MOSTLY * (n_numbers + n_not_numbers)
