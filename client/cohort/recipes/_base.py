"""The definition of a recipe, and functions that several recipes share."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from fedage.client.cohort.ages import Age
from fedage.client.cohort.bids.participants import AgeColumn
from fedage.client.cohort.indexing.bids import BidsLayout
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.table.limits import TABLE, require_bounded
from fedage.client.cohort.table.quotes import require_all_read
from fedage.client.cohort.table.text_table import open_text_table
from fedage.client.cohort.table_facts import TableFacts, TableFactsSource
from fedage.client.site.mapping import OutcomeColumns
from fedage.common.errors import FedAgeError

_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F"}
_SHOWN = 20


@dataclass(frozen=True)
class Recipe:
    """One data set's layout.

    Parameters
    ----------
    name, title
        What `site.toml` and people call it.
    columns_from
        Where the names of its columns come from.
    table_facts
        Reads the data set's tables below its root; None where the images tell everything.
    outcomes
        File below the root with diagnoses, and what its columns are; None where there is none.
    bids
        Where its volumes are; None for DICOM files.
    """

    name: str
    title: str
    columns_from: str
    table_facts: Callable[[Path], TableFactsSource] | None = None
    outcomes: tuple[str, OutcomeColumns] | None = None
    bids: BidsLayout | None = None


@dataclass(frozen=True)
class FactsByImage:
    """Facts from tables, by a part of an image's path.

    Parameters
    ----------
    told
        By the key that `key` takes from a path.
    key
        From a path below the root to that key; empty for what is no image of the data set.
    digest
        Of all tables it was made from.
    unknown
        Of images without a row.
    """

    facts_by_key: Mapping[str, TableFacts | Reason] = field(repr=False)
    key: Callable[[PurePosixPath], str]
    digest: str
    default: TableFacts | Reason = Reason.NOT_IN_TABLE

    def facts_for(self, path: str) -> TableFacts | Reason:
        """What is told of the file at this path below the root, or why it is out."""
        where = PurePosixPath(path)
        key = self.key(where)
        return self.facts_by_key.get(key, self.default) if key else TableFacts()


def table(root: Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """These columns of a CSV below the root, as texts without blanks around them; missing ones are empty.

    Raises
    ------
    FedAgeError
        If the file or a column is missing, or the file is larger than `limits.TABLE`.
    """
    path = root / name
    blank_lines = require_bounded(path, TABLE).blank_lines
    try:
        with open_text_table(path, blank_lines=blank_lines, separator_of=lambda _header: ",") as text:
            names = [cell.strip() for cell in next(csv.reader(text.stream, delimiter=text.separator), [])]
            frame = pd.read_csv(
                text.rewind(),
                sep=text.separator,
                dtype=str,
                keep_default_na=False,
                usecols=lambda column: column in columns,
            )
        require_all_read(path, rows=text.n_rows, read=len(frame))
    except OSError as error:
        raise FedAgeError(
            f"{path} cannot be read ({error.strerror}); put the data set's own table there, or correct recipe or data"
        ) from None
    except (ValueError, csv.Error):  # pandas' parser and decoding errors are such
        raise FedAgeError(f"{path} is no table in UTF-8; put the data set's own table there") from None
    if repeated := [column for column in columns if names.count(column) > 1]:
        raise FedAgeError(f"{path} has the column {repeated[0]!r} twice; drop one of them")
    if missing := [column for column in columns if column not in frame.columns]:
        raise FedAgeError(
            f"{path} has no column {', '.join(map(repr, missing))}; is it the table of this recipe's data set?"
        )
    return pd.DataFrame({column: frame[column].str.strip() for column in columns})


def digest(root: Path, *names: str) -> str:
    """Of the contents of tables, so that a row that changed is noticed."""
    hasher = hashlib.sha256()
    for name in names:
        hasher.update((root / name).read_bytes())
    return hasher.hexdigest()[:16]


def ages(texts: pd.Series) -> list[Age | None]:
    """A column of ages in years; whole numbers all along are completed years."""
    column = AgeColumn.from_texts(list(texts), unit="year")
    return [None if isinstance(age, Reason) else age for age in map(column.age, texts)]


def sex(text: str) -> str | None:
    """`M`, `F` or unknown."""
    return _SEXES.get(text.casefold())
