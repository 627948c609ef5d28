"""The hospital's table of outcomes and diagnoses as numbers by patient, mapped as the site's settings say."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedage.client.cohort.table._outcome_text import _read_text_table
from fedage.client.cohort.table.cell_forms import (
    MISWRITTEN,
    NOT_NAMED,
    TO_SAY,
    Codes,
    description_and_remedy,
    form_codes,
    is_miswritten,
    most_frequent,
)
from fedage.client.cohort.table.column_checks import named_column_problem
from fedage.client.cohort.table.extremes import find_extremes
from fedage.client.cohort.table.grouped_digits import grouped_by_points
from fedage.client.cohort.table.header import columns_text, require_unique_names
from fedage.client.cohort.table.identifiers import (
    count_differing_in_writing,
    count_differing_in_zeros,
    is_spreadsheet_error,
    require_as_written,
)
from fedage.client.cohort.table.messages import (
    extreme_text,
    kept_extreme,
    left_out_miswritten,
    not_a_number,
    reason_text,
)
from fedage.client.cohort.table.read import is_text_column
from fedage.client.cohort.table.summary_rows import rows_of_nobody
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
    duplicate_rows, rows_without_id, summary_rows, header_rows
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
        Messages for the hospital about columns.
    words
        Identifier to the columns in which the patient has a word that no mapping explains.
    """

    values: Mapping[str, Mapping[str, float]] = field(repr=False)
    duplicate_rows: int = 0
    rows_without_id: int = 0
    summary_rows: int = 0
    header_rows: int = 0
    not_numbers: Mapping[str, int] = field(default_factory=dict)
    text_columns: Mapping[str, int] = field(default_factory=dict)
    unusable_names: int = 0
    rows_differ: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    extremes: Mapping[str, int] = field(default_factory=dict)
    zeros_differ: int = 0
    writing_differs: int = 0
    messages: tuple[str, ...] = ()
    words: Mapping[str, Collection[str]] = field(default_factory=dict, repr=False)

    def counts(self) -> dict[str, int]:
        """What was set aside, as flat counts; columns are named, nobody is."""
        return {
            "duplicate-rows": self.duplicate_rows,
            "rows-without-id": self.rows_without_id,
            "columns-with-unusable-name": self.unusable_names,
            **({"summary-rows": self.summary_rows} if self.summary_rows else {}),
            **({"header-rows": self.header_rows} if self.header_rows else {}),
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
    table = _read_text_table(path, known=known)
    names = [normal_name(str(name)).strip() for name in table.columns]
    require_unique_names(path, names, known=known)
    table.columns = pd.Index(names)
    _require_columns(path, names, id_column, columns or {})
    ids = table[id_column].str.strip()
    nobodys = rows_of_nobody(table, id_column=id_column)
    is_nobodys = np.any([*nobodys.values()], axis=0)
    table, ids = table[~is_nobodys], ids[~is_nobodys]
    require_as_written(ids.unique(), column=id_column)
    has_id = ~ids.isin(["", *filter(is_spreadsheet_error, ids.unique())])
    table, ids = table[has_id], ids[has_id]
    counted_rows = np.ones(len(ids), dtype=np.bool_) if columns or rows_are_sessions else ~ids.duplicated()
    table, counted_ids = table[counted_rows], ids[counted_rows]
    parsed = _parse_mapped(path, table, columns, missing) if columns else _parse_unmapped(table, id_column, missing)
    if rows_are_sessions:
        parsed.columns = {
            name: (column_values, "same" if rows == "first" else rows)
            for name, (column_values, rows) in parsed.columns.items()
        }
    value_by_column = {name: _value_by_patient(values, ids, rows) for name, (values, rows) in parsed.columns.items()}
    patients = ids[~ids.duplicated()]
    n_differing_by_column = {
        name: count
        for name, (values, rows) in parsed.columns.items()
        if rows == "same" and (count := _count_differing(values, ids))
    }
    uses_first_rows = all(rows == "first" for _, rows in parsed.columns.values())
    return OutcomeTable(
        values=_values_by_patient(list(patients), value_by_column),
        duplicate_rows=int(ids.duplicated().sum()) if uses_first_rows else 0,
        rows_without_id=int((~has_id).sum()),
        summary_rows=int(nobodys["summary-row"].sum()),
        header_rows=int(nobodys["units-row"].sum() + nobodys["repeated-header"].sum()),
        not_numbers=parsed.not_numbers,
        text_columns=parsed.text_columns,
        unusable_names=parsed.unusable_names,
        rows_differ=n_differing_by_column,
        left_out=parsed.left_out,
        extremes=parsed.extremes,
        zeros_differ=count_differing_in_zeros(patients, known={}),
        writing_differs=count_differing_in_writing(patients, known={}),
        messages=(
            *(reason_text(reason, int(rows.sum())) for reason, rows in nobodys.items() if rows.any()),
            *parsed.messages,
        ),
        words=_words_by_patient(parsed, counted_ids),
    )


@dataclass
class _ParsedColumns:
    """Columns as numbers, each with the rows that count, and what was odd."""

    columns: dict[str, tuple[FloatArray, str]] = field(default_factory=dict)
    not_numbers: dict[str, int] = field(default_factory=dict)
    text_columns: dict[str, int] = field(default_factory=dict)
    unusable_names: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    extremes: dict[str, int] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    words: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def add(self, name: str, values: FloatArray, rows: str, codes: Codes) -> None:
        """Keep a column of numbers, and count what else it holds."""
        self.columns[name] = values, rows
        is_unexplained = (codes != "") & (codes != NOT_NAMED)
        if is_unexplained.any():
            self.words[name] = is_unexplained
        counts = Counter(code for code in codes if code)
        counts_by_reason = {not_a_number(name, form): count for form, count in counts.items()}
        self.not_numbers |= counts_by_reason
        self.messages += [reason_text(reason, count) for reason, count in counts_by_reason.items()]
        for extreme in find_extremes(values):
            self.extremes[kept_extreme(name, extreme.code)] = extreme.count
            setting = "missing of [outcome_columns] in site.toml"
            self.messages.append(extreme_text(name, extreme.code, extreme.count, declared_in=setting))


def _require_columns(path: Path, names: list[str], id_column: str, columns: Mapping[str, str | Mapped]) -> None:
    mapped = [as_mapped(choice).column for choice in columns.values()]
    known = [id_column, *mapped]
    if id_column not in names:
        raise FedAgeError(
            f"{path} has no column {id_column!r}, it has {columns_text(names, wanted=[id_column], known=known)}; "
            "rename the column of patient identifiers, or set outcome_columns.id in site.toml"
        )
    missing = [name for name in mapped if name not in names]
    if missing:
        available = columns_text(names, wanted=missing, known=known)
        raise FedAgeError(
            f"{path} has no column {', '.join(repr(name) for name in dict.fromkeys(missing))}, it has {available}; "
            "correct outcome_columns.columns in site.toml"
        )


def _parse_mapped(
    path: Path, table: pd.DataFrame, columns: Mapping[str, str | Mapped], missing: Sequence[float]
) -> _ParsedColumns:
    parsed = _ParsedColumns()
    for name, choice in columns.items():
        mapping = as_mapped(choice)
        column = table[mapping.column]
        values, is_filled = mapped_numbers(column, mapping, missing=missing)
        codes = (
            form_codes(column, is_filled & np.isnan(values))
            if not mapping.values
            else _unmapped_codes(is_filled, values)
        )
        if not mapping.values and (
            problem := named_column_problem(mapping.column, codes, values, texts=column.unique())
        ):
            raise FedAgeError(f"{path}: {problem}")
        parsed.add(name, values, mapping.rows, codes)
    return parsed


def _unmapped_codes(is_filled: NDArray[np.bool_], values: FloatArray) -> Codes:
    """One code for every cell with a word that the mapping does not name, (n,)."""
    codes: Codes = np.where(is_filled & np.isnan(values), NOT_NAMED, "").astype(object)
    return codes


def _parse_unmapped(table: pd.DataFrame, id_column: str, missing: Sequence[float]) -> _ParsedColumns:
    """Every numeric column of a table with one row a patient."""
    parsed = _ParsedColumns()
    others = [str(name) for name in table.columns if name != id_column]
    usable = [name for name in others if is_column_name(name) and not _UNNAMED.fullmatch(name)]
    parsed.unusable_names = len(others) - len(usable)
    for name in usable:
        values, is_filled = _parse_numbers(table[name], missing)
        codes = form_codes(table[name], is_filled & np.isnan(values))
        if is_miswritten(codes, numbers=int(np.isfinite(values).sum())):
            reason = left_out_miswritten(name, most_frequent(codes, among=MISWRITTEN))
            parsed.left_out[reason] = int(np.isin(codes, list(MISWRITTEN)).sum())
            parsed.messages.append(reason_text(reason, parsed.left_out[reason]))
        elif is_text_column(values, codes != ""):
            parsed.text_columns[name] = int(is_filled.sum())
            if (form := most_frequent(codes)) in TO_SAY:
                description, remedy = description_and_remedy(form, texts=list(table[name].unique()))
                parsed.messages.append(f"column {name!r} holds {description}, so that no campaign can use it; {remedy}")
        else:
            parsed.add(name, values, "first", codes)
    return parsed


def _value_by_patient(values: FloatArray, ids: pd.Series[str], rows: str) -> FloatArray:
    """One value a patient, in the order of their first rows."""
    if values.size < len(ids) or ids.is_unique:
        return values  # one row a patient already
    groups = pd.Series(values).groupby(ids.to_numpy(), sort=False)
    if rows == "same":
        highest = np.asarray(groups.max(), dtype=np.float64)
        return np.where(highest == np.asarray(groups.min(), dtype=np.float64), highest, np.nan)
    selected = groups.nth(0) if rows == "first" else groups.max() if rows == "max" else groups.min()
    return np.asarray(selected, dtype=np.float64)


def _values_by_patient(patients: Sequence[str], columns: Mapping[str, FloatArray]) -> dict[str, dict[str, float]]:
    """Finite values by patient and column, from columns (n,) in the order of the patients."""
    if not columns:
        return {patient: {} for patient in patients}
    names, matrix = np.array(list(columns), dtype=object), np.column_stack(list(columns.values()))
    is_finite = np.isfinite(matrix)
    return {
        patient: dict(zip(names[is_known].tolist(), row[is_known].tolist(), strict=True))
        for patient, row, is_known in zip(patients, matrix, is_finite, strict=True)
    }


def _words_by_patient(parsed: _ParsedColumns, ids: pd.Series[str]) -> dict[str, set[str]]:
    """By identifier, the columns with an unexplained word in a row that counts: the first, else any of the patient."""
    columns_by_patient: dict[str, set[str]] = defaultdict(set)
    for name, is_unexplained in parsed.words.items():
        counts = is_unexplained & ~ids.duplicated().to_numpy() if parsed.columns[name][1] == "first" else is_unexplained
        for patient in ids[counts]:
            columns_by_patient[patient].add(name)
    return dict(columns_by_patient)


def _count_differing(values: FloatArray, ids: pd.Series[str]) -> int:
    """How many patients' rows hold different numbers."""
    groups = pd.Series(values).groupby(ids.to_numpy(), sort=False)
    return int((groups.nunique() > 1).sum())


def mapped_numbers(
    column: pd.Series[str], mapping: Mapped, *, missing: Sequence[float] = ()
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """A column of texts as the numbers it is mapped to, NaN where it has none, and which cells hold anything, (n,)."""
    if not mapping.values:
        parsed, is_filled = _parse_numbers(column, missing)
        return parsed / mapping.divide_by, is_filled
    text = column.str.strip().str.casefold()
    is_missing_word = text.isin(list(_MISSING))
    meaning = {word.strip().casefold(): value for word, value in mapping.values.items()}
    values: FloatArray = np.array(text.map(meaning), dtype=np.float64)
    is_known = text.isin(list(meaning)).to_numpy(dtype=np.bool_, copy=True)
    # A column with a blank cell comes as 2.0 where the file has 2, and codes come as 1 where it has 01.
    codes = {float(word): value for word, value in meaning.items() if _CODE.fullmatch(word)}
    is_code = (
        np.array([bool(_CODE.fullmatch(code_text)) for code_text in text], dtype=np.bool_) & ~is_known
        if codes
        else ~is_known & False
    )
    values[is_code] = [codes.get(float(code_text), np.nan) for code_text in text[is_code]]
    is_known |= is_code & np.isfinite(values)
    is_missing = is_missing_word.to_numpy() & ~is_known
    values[~is_known & ~is_missing] = np.nan if mapping.others is None else mapping.others
    return values / mapping.divide_by, ~is_missing


def _parse_numbers(column: pd.Series[str], missing: Sequence[float] = ()) -> tuple[FloatArray, NDArray[np.bool_]]:
    """The column as numbers, NaN where it holds none that is finite, and which cells hold anything, (n,)."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, copy=True)
    is_filled = np.ones(numbers.size, dtype=np.bool_)
    # Words only where there is no number: each step over texts costs more than reading all numbers.
    not_numeric = np.flatnonzero(~np.isfinite(numbers))
    if not_numeric.size:
        lower = column.iloc[not_numeric].str.strip().str.lower()
        is_missing_word = lower.isin(list(_MISSING)).to_numpy(dtype=np.bool_)
        words = pd.to_numeric(lower.replace(_TRUTH), errors="coerce").to_numpy(dtype=np.float64, copy=True)
        words[~np.isfinite(words) | is_missing_word] = np.nan
        numbers[not_numeric], is_filled[not_numeric] = words, ~is_missing_word
    if missing:
        is_filled &= ~np.isin(numbers, list(missing))
        numbers[~is_filled] = np.nan
    numbers[grouped_by_points(numbers)] = np.nan
    return numbers, is_filled
