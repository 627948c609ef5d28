"""The text of an outcomes table to columns of words."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from fedage.client.cohort.table.header import require_unique_names
from fedage.client.cohort.table.limits import OUTCOMES, SEPARATORS, require_bounded
from fedage.client.cohort.table.quotes import require_all_read
from fedage.client.cohort.table.text_table import open_text_table, too_many_cells
from fedage.common.errors import FedAgeError


def _read_text_table(path: Path, *, known: Collection[str]) -> pd.DataFrame:
    """The file as texts, nothing interpreted. What the parser says is not repeated: it could quote a row."""
    blank_lines = require_bounded(path, OUTCOMES).blank_lines
    try:
        with open_text_table(path, blank_lines=blank_lines, separator_of=_most_frequent_separator) as text:
            require_unique_names(path, next(csv.reader(text.stream, delimiter=text.separator), []), known=known)
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                table = pd.read_csv(
                    text.rewind(), sep=text.separator, dtype=str, keep_default_na=False, index_col=False
                )
        require_all_read(path, rows=text.n_rows, read=len(table))
        return table
    except OSError as error:
        raise FedAgeError(f"{path} cannot be read ({error.strerror}); give the hospital's CSV of outcomes") from None
    except UnicodeDecodeError:
        raise FedAgeError(f"{path} is not UTF-8; save the table as CSV in UTF-8") from None
    except pd.errors.ParserWarning:  # pandas would drop the last cells, whatever the separator had moved there
        raise too_many_cells(path, "rows have") from None
    except csv.Error:
        raise FedAgeError(f"{path}: its first line is no list of column names; save it as CSV") from None
    except ValueError:  # pandas' ParserError and EmptyDataError are such
        raise FedAgeError(f"{path} is empty or its rows differ in length; save it as CSV, one row a patient") from None


def _most_frequent_separator(header: str) -> str:
    return max(SEPARATORS, key=header.count)
