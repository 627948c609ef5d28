"""The hospital's CSV of outcomes and diagnoses: numbers by patient, its columns and words mapped as the site says."""

from __future__ import annotations

import csv
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedage.client.cohort.table.cell_forms import (
    MISWRITTEN,
    NOT_NAMED,
    Codes,
    forms,
    is_miswritten,
    most_frequent,
    what_and_mend,
)
from fedage.client.cohort.table.column_checks import named_column_problem
from fedage.client.cohort.table.extremes import extremes_of
from fedage.client.cohort.table.header import columns_in_words, repeated_name
from fedage.client.cohort.table.identifiers import differing_in_writing, differing_in_zeros
from fedage.client.cohort.table.leading_lines import skip_blank_lines, skip_separator_line
from fedage.client.cohort.table.limits import OUTCOMES, SEPARATORS, require_bounded
from fedage.client.cohort.table.messages import (
    extreme_in_words,
    in_words,
    kept_extreme,
    left_out_miswritten,
    not_a_number,
)
from fedage.client.cohort.table.quotes import require_all_read, require_whole_rows
from fedage.client.cohort.table.read import is_text
from fedage.client.cohort.table.summary_rows import summary_rows
from fedage.client.site.mapping import Mapped, as_mapped
from fedage.common.errors import FedAgeError
from fedage.common.statistics.statistic import FloatArray
from fedage.common.toml.column_names import is_column_name, normal_name

_MISSING = frozenset(("", "na", "n/a", "nan", "none", "null", "."))
_TRUTH = {"true": "1", "false": "0"}
_UNNAMED = re.compile(r"Unnamed: [0-9]+")
"""What pandas calls a column without a name."""
_CODE = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
"""A code that is a number: 2, 2.0 and 02 are the same one."""


@dataclass(frozen=True)
class OutcomeTable:
    """Finite values by patient identifier, still in the clear, and column; and what was set aside.

    Parameters
    ----------
    values
        Identifier to column to value.
    duplicate_rows, rows_without_id, summary_rows
        Rows left out: after a patient's first where only that counts; without identifier; sums at the end.
    not_numbers
        Cells that hold something that is neither a number nor a known word, by form and column; they count as missing.
    text_columns
        Columns of text, left out, with the number of cells filled.
    unusable_names
        How many columns were left out because a campaign file could not name them.
    rows_differ
        By column, patients whose sessions' rows differ, so that it is missing for them.
    left_out
        Cells of columns that are left out because some of their numbers are written otherwise, by form and column.
    extremes
        Cells whose value may stand for "missing" and is kept, by value and column.
    zeros_differ, writing_differs
        Identifiers that differ from others of the table in leading zeros, or capitals, blanks and unseen characters.
    said
        What the hospital should know of columns, in sentences.
    words
        Identifier to the columns in which the patient has a word that no mapping explains.
    """

    values: Mapping[str, Mapping[str, float]] = field(repr=False)
    duplicate_rows: int = 0
    rows_without_id: int = 0
    summary_rows: int = 0
    not_numbers: Mapping[str, int] = field(default_factory=dict)
    text_columns: Mapping[str, int] = field(default_factory=dict)
    unusable_names: int = 0
    rows_differ: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    extremes: Mapping[str, int] = field(default_factory=dict)
    zeros_differ: int = 0
    writing_differs: int = 0
    said: tuple[str, ...] = ()
    words: Mapping[str, Collection[str]] = field(default_factory=dict, repr=False)

    def counts(self) -> dict[str, int]:
        """What was set aside, as flat counts; columns are named, nobody is."""
        return {
            "duplicate-rows": self.duplicate_rows,
            "rows-without-id": self.rows_without_id,
            "columns-with-unusable-name": self.unusable_names,
            **({"summary-rows": self.summary_rows} if self.summary_rows else {}),
            **{f"sessions-differ:{name}": count for name, count in self.rows_differ.items()},
            **({"identifiers-differ-in-zeros": self.zeros_differ} if self.zeros_differ else {}),
            **({"identifiers-differ-in-writing": self.writing_differs} if self.writing_differs else {}),
            **self.not_numbers,
            **self.left_out,
            **self.extremes,
            **{f"text-column:{name}": count for name, count in self.text_columns.items()},
        }


def read_outcomes(
    path: Path,
    *,
    id_column: str = "patient_id",
    columns: Mapping[str, str | Mapped] | None = None,
    missing: Sequence[float] = (),
    rows_are_sessions: bool = False,
) -> OutcomeTable:
    """Read a table in UTF-8, separated as a line `sep=;` says, else by commas, semicolons or tabs, whichever are most.

    Parameters
    ----------
    path
        The file.
    id_column
        Its column of patient identifiers, as the images have them.
    columns
        Campaigns' names to its columns; without, every numeric column by its own name.
    missing
        Values that mean missing.
    rows_are_sessions
        Whether a patient's rows are of several sessions: then no row is the first, and a column in which they differ
        counts as missing, but where `columns` says that the largest or the smallest counts.

    Raises
    ------
    FedAgeError
        If the file is missing, no such table, without a column that is named, or if a named column of numbers holds
        words, or numbers that are written otherwise than with a point.
    """
    known = [id_column, *(as_mapped(choice).column for choice in (columns or {}).values())]
    table = _table(path, known=known)
    names = [normal_name(str(name)).strip() for name in table.columns]
    _each_once(path, names, known=known)
    table.columns = pd.Index(names)
    _require(path, names, id_column, columns or {})
    ids = table[id_column].str.strip()
    summaries = summary_rows(table, id_column=id_column)
    table, ids = table[~summaries], ids[~summaries]
    with_id = ids != ""
    table, ids = table[with_id], ids[with_id]
    counted_rows = np.ones(len(ids), dtype=np.bool_) if columns or rows_are_sessions else ~ids.duplicated()
    table, counted_ids = table[counted_rows], ids[counted_rows]
    read = _mapped(path, table, columns, missing) if columns else _by_their_names(table, id_column, missing)
    if rows_are_sessions:
        read.columns = {name: (it, "same" if rows == "first" else rows) for name, (it, rows) in read.columns.items()}
    counted = {name: _of_patients(values, ids, rows) for name, (values, rows) in read.columns.items()}
    patients = ids[~ids.duplicated()]
    differing = {
        name: count
        for name, (values, rows) in read.columns.items()
        if rows == "same" and (count := _rows_differ(values, ids))
    }
    every_first = all(rows == "first" for _, rows in read.columns.values())
    return OutcomeTable(
        values=_by_patient(list(patients), counted),
        duplicate_rows=int(ids.duplicated().sum()) if every_first else 0,
        rows_without_id=int((~with_id).sum()),
        summary_rows=int(summaries.sum()),
        not_numbers=read.not_numbers,
        text_columns=read.text_columns,
        unusable_names=read.unusable_names,
        rows_differ=differing,
        left_out=read.left_out,
        extremes=read.extremes,
        zeros_differ=differing_in_zeros(patients, others={}),
        writing_differs=differing_in_writing(patients, others={}),
        said=(*([in_words("summary-row", int(summaries.sum()))] if summaries.any() else ()), *read.said),
        words=_words_by_patient(read, counted_ids),
    )


@dataclass
class _Read:
    """Columns as numbers, each with the rows that count, and what was odd."""

    columns: dict[str, tuple[FloatArray, str]] = field(default_factory=dict)
    not_numbers: dict[str, int] = field(default_factory=dict)
    text_columns: dict[str, int] = field(default_factory=dict)
    unusable_names: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    extremes: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    words: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def add(self, name: str, values: FloatArray, rows: str, codes: Codes) -> None:
        """Keep a column of numbers, and count what else it holds."""
        self.columns[name] = values, rows
        unexplained = (codes != "") & (codes != NOT_NAMED)
        if unexplained.any():
            self.words[name] = unexplained
        counted = Counter(code for code in codes if code)
        of_forms = {not_a_number(name, form): count for form, count in counted.items()}
        self.not_numbers |= of_forms
        self.said += [in_words(reason, count) for reason, count in of_forms.items()]
        for extreme in extremes_of(values):
            self.extremes[kept_extreme(name, extreme.code)] = extreme.count
            declared = "missing of [outcome_columns] in site.toml"
            self.said.append(extreme_in_words(name, extreme.code, extreme.count, declared_in=declared))


def _require(path: Path, names: list[str], id_column: str, columns: Mapping[str, str | Mapped]) -> None:
    mapped = [as_mapped(choice).column for choice in columns.values()]
    known = [id_column, *mapped]
    if id_column not in names:
        raise FedAgeError(
            f"{path} has no column {id_column!r}, it has {columns_in_words(names, wanted=[id_column], known=known)}; "
            "rename the column of patient identifiers, or set outcome_columns.id in site.toml"
        )
    missing = [name for name in mapped if name not in names]
    if missing:
        there = columns_in_words(names, wanted=missing, known=known)
        raise FedAgeError(
            f"{path} has no column {', '.join(repr(name) for name in dict.fromkeys(missing))}, it has {there}; "
            "correct outcome_columns.columns in site.toml"
        )


def _each_once(path: Path, names: Sequence[str], *, known: Collection[str]) -> None:
    """Refuse a repeated name, which pandas would read as another column (`age.1`)."""
    if twice := repeated_name(names, known=known):
        raise FedAgeError(f"{path} has columns of the same name ({twice}); rename or drop one of each")


def _mapped(path: Path, table: pd.DataFrame, columns: Mapping[str, str | Mapped], missing: Sequence[float]) -> _Read:
    read = _Read()
    for name, choice in columns.items():
        wanted = as_mapped(choice)
        column = table[wanted.column]
        values, filled = mapped_numbers(column, wanted, missing=missing)
        codes = forms(column, filled & np.isnan(values)) if not wanted.values else _unknown(filled, values)
        if not wanted.values and (problem := named_column_problem(wanted.column, codes, values, texts=column.unique())):
            raise FedAgeError(f"{path}: {problem}")
        read.add(name, values, wanted.rows, codes)
    return read


def _unknown(filled: NDArray[np.bool_], values: FloatArray) -> Codes:
    """One code for every cell with a word that the mapping does not name, (n,)."""
    codes: Codes = np.where(filled & np.isnan(values), NOT_NAMED, "").astype(object)
    return codes


def _by_their_names(table: pd.DataFrame, id_column: str, missing: Sequence[float]) -> _Read:
    """Every numeric column of a table with one row a patient."""
    read = _Read()
    others = [str(name) for name in table.columns if name != id_column]
    usable = [name for name in others if is_column_name(name) and not _UNNAMED.fullmatch(name)]
    read.unusable_names = len(others) - len(usable)
    for name in usable:
        values, filled = _numbers(table[name], missing)
        codes = forms(table[name], filled & np.isnan(values))
        if is_miswritten(codes, numbers=int(np.isfinite(values).sum())):
            reason = left_out_miswritten(name, most_frequent(codes, among=MISWRITTEN))
            read.left_out[reason] = int(np.isin(codes, list(MISWRITTEN)).sum())
            read.said.append(in_words(reason, read.left_out[reason]))
        elif is_text(values, codes != ""):
            read.text_columns[name] = int(filled.sum())
            if most_frequent(codes) == "yes-or-no":
                what, mend = what_and_mend("yes-or-no", texts=list(table[name].unique()))
                read.said.append(f"column {name!r} holds {what}, so that no campaign can use it; {mend}")
        else:
            read.add(name, values, "first", codes)
    return read


def _of_patients(values: FloatArray, ids: pd.Series[str], rows: str) -> FloatArray:
    """One value a patient, in the order of their first rows."""
    if values.size < len(ids) or ids.is_unique:
        return values  # one row a patient already
    groups = pd.Series(values).groupby(ids.to_numpy(), sort=False)
    if rows == "same":
        highest = np.asarray(groups.max(), dtype=np.float64)
        return np.where(highest == np.asarray(groups.min(), dtype=np.float64), highest, np.nan)
    found = groups.nth(0) if rows == "first" else groups.max() if rows == "max" else groups.min()
    return np.asarray(found, dtype=np.float64)


def _by_patient(patients: Sequence[str], columns: Mapping[str, FloatArray]) -> dict[str, dict[str, float]]:
    """Finite values by patient and column, from columns (n,) in the order of the patients."""
    if not columns:
        return {patient: {} for patient in patients}
    names, matrix = np.array(list(columns), dtype=object), np.column_stack(list(columns.values()))
    finite = np.isfinite(matrix)
    return {
        patient: dict(zip(names[known].tolist(), row[known].tolist(), strict=True))
        for patient, row, known in zip(patients, matrix, finite, strict=True)
    }


def _words_by_patient(read: _Read, ids: pd.Series[str]) -> dict[str, set[str]]:
    """By identifier, the columns with an unexplained word in a row that counts: the first, else any of the patient."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, unexplained in read.words.items():
        counts = unexplained & ~ids.duplicated().to_numpy() if read.columns[name][1] == "first" else unexplained
        for patient in ids[counts]:
            found[patient].add(name)
    return dict(found)


def _rows_differ(values: FloatArray, ids: pd.Series[str]) -> int:
    """How many patients' rows hold different numbers."""
    groups = pd.Series(values).groupby(ids.to_numpy(), sort=False)
    return int((groups.nunique() > 1).sum())


def mapped_numbers(
    column: pd.Series[str], wanted: Mapped, *, missing: Sequence[float] = ()
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """A column of texts as the numbers it is mapped to, NaN where it has none, and which cells hold anything, (n,)."""
    if not wanted.values:
        plain, filled = _numbers(column, missing)
        return plain / wanted.divide_by, filled
    text = column.str.strip().str.casefold()
    says_nothing = text.isin(list(_MISSING))
    meaning = {word.strip().casefold(): value for word, value in wanted.values.items()}
    values: FloatArray = np.array(text.map(meaning), dtype=np.float64)
    known = text.isin(list(meaning)).to_numpy(dtype=np.bool_, copy=True)
    # A column with a blank cell comes as 2.0 where the file has 2, and codes come as 1 where it has 01.
    codes = {float(word): value for word, value in meaning.items() if _CODE.fullmatch(word)}
    written = (
        np.array([bool(_CODE.fullmatch(one)) for one in text], dtype=np.bool_) & ~known if codes else ~known & False
    )
    values[written] = [codes.get(float(one), np.nan) for one in text[written]]
    known |= written & np.isfinite(values)
    missing_here = says_nothing.to_numpy() & ~known
    values[~known & ~missing_here] = np.nan if wanted.others is None else wanted.others
    return values / wanted.divide_by, ~missing_here


def _table(path: Path, *, known: Collection[str]) -> pd.DataFrame:
    """The file as texts, nothing interpreted. What the parser says is not repeated: it could quote a row."""
    blank_lines = require_bounded(path, OUTCOMES).blank_lines
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for _ in range(blank_lines):
                stream.readline()
            said = skip_separator_line(stream)
            blank_lines += skip_blank_lines(stream) if said else 0
            begins = stream.tell()
            first_line = stream.readline()
            separator = said or max(SEPARATORS, key=first_line.count)
            stream.seek(begins)
            rows = require_whole_rows(stream, path, separator=separator, line=blank_lines + bool(said) + 1)
            stream.seek(begins)
            _each_once(path, next(csv.reader(stream, delimiter=separator), []), known=known)
            stream.seek(begins)
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                table = pd.read_csv(stream, sep=separator, dtype=str, keep_default_na=False, index_col=False)
        require_all_read(path, rows=rows, read=len(table))
        return table
    except OSError as error:
        raise FedAgeError(f"{path} cannot be read ({error.strerror}); give the hospital's CSV of outcomes") from None
    except UnicodeDecodeError:
        raise FedAgeError(f"{path} is not UTF-8; save the table as CSV in UTF-8") from None
    except pd.errors.ParserWarning:  # pandas would drop the last cells, whatever the separator had moved there
        raise FedAgeError(
            f"{path}: rows have more cells than the header has names; write numbers with a point, put texts that hold "
            "the separator in quotes, or name every column; if a title stands above the header, take it out"
        ) from None
    except csv.Error:
        raise FedAgeError(f"{path}: its first line is no list of column names; save it as CSV") from None
    except ValueError:  # pandas' ParserError and EmptyDataError are such
        raise FedAgeError(f"{path} is empty or its rows differ in length; save it as CSV, one row a patient") from None


def _numbers(column: pd.Series[str], missing: Sequence[float] = ()) -> tuple[FloatArray, NDArray[np.bool_]]:
    """The column as numbers, NaN where it holds none that is finite, and which cells hold anything, (n,)."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, copy=True)
    filled = np.ones(numbers.size, dtype=np.bool_)
    # Words only where there is no number: each step over texts costs more than reading all numbers.
    rest = np.flatnonzero(~np.isfinite(numbers))
    if rest.size:
        lower = column.iloc[rest].str.strip().str.lower()
        says_nothing = lower.isin(list(_MISSING)).to_numpy(dtype=np.bool_)
        words = pd.to_numeric(lower.replace(_TRUTH), errors="coerce").to_numpy(dtype=np.float64, copy=True)
        words[~np.isfinite(words) | says_nothing] = np.nan
        numbers[rest], filled[rest] = words, ~says_nothing
    if missing:
        filled &= ~np.isin(numbers, list(missing))
        numbers[~filled] = np.nan
    return numbers, filled
