"""A site's own table in its store, as numbers and keyed hashes, for later campaigns.

Which values a campaign counts as missing, and which columns it reads, is known only when it comes. The store therefore
holds every column as numbers, with marks where a cell held something else; `StoredTable.frame` returns them as in the
table, except for text, which is not stored.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.store.writer import writing
from fedage.client.cohort.table.cell_forms import (
    MISWRITTEN,
    NOT_NAMED,
    NOT_NAMED_CELL,
    TO_SAY,
    Codes,
    form_codes,
    is_miswritten,
    most_frequent,
)
from fedage.client.cohort.table.column_checks import named_column_problem
from fedage.client.cohort.table.extremes import find_extremes
from fedage.client.cohort.table.header import columns_text
from fedage.client.cohort.table.messages import (
    bounded_counts,
    kept_extreme,
    left_out_miswritten,
    neither_sex,
    not_a_number,
)
from fedage.client.cohort.table.outcomes import mapped_numbers
from fedage.client.cohort.table.read import parse_labels, parse_numbers, read_frame, without_bad_names
from fedage.client.cohort.table.sex import kinds_of_words, words_problem
from fedage.client.cohort.table.summary_rows import rows_of_nobody
from fedage.client.cohort.table.units import NOT_FROM_BIRTH, ages_problem, counts_from_conception
from fedage.client.site.mapping import TableSource, as_mapped
from fedage.client.site.sqlite import Row, scalar, scalars
from fedage.common.errors import FedAgeError
from fedage.common.statistics.statistic import FloatArray

_VERSION = "6"
_REJECTED = "SELECT reason, count FROM table_rejected"
_MALE, _FEMALE = 2, 1
_WORDS = {"m": _MALE, "male": _MALE, "f": _FEMALE, "female": _FEMALE}
_KEY = re.compile("[0-9a-f]{64}")
_PLACEHOLDER = "?"
"""Stands for a cell that held no number; its text is not stored."""
_NOT_A_NUMBER, _UNMAPPED = 1, 2
"""Marks in the store of such a cell, and of one whose word a mapping does not list."""


@dataclass(frozen=True)
class TableReport:
    """What an indexing of the table found.

    Parameters
    ----------
    patients, columns
        What the store holds of it now.
    unchanged
        Whether file and settings were as before, so that nothing was read.
    rejected
        Rows and cells set aside, by reason.
    """

    patients: int
    columns: int
    unchanged: bool
    rejected: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredTable:
    """The table as a campaign reads it.

    Parameters
    ----------
    keys
        Keyed hashes of the patients, sorted, a row each.
    frame
        Columns by their names, (n,) each: numbers, NaN where missing, `m` and `f`, and a sign for anything else.
    age, sex
        Names of the columns that the site says hold age and sex.
    rejected
        Rows set aside while indexing, by reason.
    """

    keys: tuple[str, ...] = field(repr=False)
    frame: pd.DataFrame = field(repr=False)
    age: str | None
    sex: str | None
    rejected: Mapping[str, int]


def index_table(store: CohortStore, source: TableSource) -> TableReport:
    """Read a site's table into its store; it is read again only if the file or its settings have changed.

    Raises
    ------
    FedAgeError
        If the file cannot be read, or lacks a column that `site.toml` names; then the store is as it was.
    """
    path = Path(source.path)
    try:
        state = path.stat()
    except OSError as error:
        raise FedAgeError(f"{path} cannot be read ({error.strerror}); correct table.path in site.toml") from None
    stamp = f"{_VERSION} {state.st_mtime_ns} {state.st_size} {source.model_dump_json()}"
    about = {"stamp": hashlib.sha256(stamp.encode()).hexdigest(), "age": source.age, "sex": source.sex}
    with store.exclusive():
        unchanged = _stored_settings(store).get("stamp") == about["stamp"]
        if not unchanged:
            _store_table(store, source, path, about)
    with store.reading() as connection:
        rejected = {row["reason"]: row["count"] for row in connection.execute(_REJECTED)}
        patients, columns = (
            int(scalar(connection, f"SELECT count(*) FROM {table}")) for table in ("table_patients", "table_columns")
        )
    return TableReport(patients=patients, columns=columns, unchanged=unchanged, rejected=rejected)


def forget_table(store: CohortStore) -> None:
    """Remove the table from the store, if the site has none any more."""
    if _stored_settings(store):
        with store.exclusive(), writing(store) as writer:
            writer.replace_table((), (), rejected={}, about="")


def read_table(store: CohortStore) -> StoredTable | None:
    """The site's table; None if it has none."""
    about = _stored_settings(store)
    if not about:
        return None
    of_columns = "SELECT name, numbers, odd, words FROM table_columns ORDER BY position"
    with store.reading() as connection:
        keys = scalars(connection, "SELECT key FROM table_patients ORDER BY position")
        columns = {column["name"]: _to_series(column) for column in connection.execute(of_columns)}
        of_rows = {row["reason"]: row["count"] for row in connection.execute(_REJECTED) if ":" not in row["reason"]}
    return StoredTable(tuple(keys), pd.DataFrame(columns), about["age"], about["sex"], of_rows)


def _stored_settings(store: CohortStore) -> dict[str, Any]:
    sealed = store.setting("table")
    return {} if sealed is None else dict(json.loads(store.path_of(sealed)))


def _store_table(store: CohortStore, source: TableSource, path: Path, about: Mapping[str, Any]) -> None:
    frame = read_frame(path, text=[source.id], known=_named_columns(source))
    frame, _ = without_bad_names(frame, path=path)
    _require_columns(frame, source, path)
    nobodys = rows_of_nobody(frame, id_column=source.id)
    frame = frame[~np.any([*nobodys.values()], axis=0)].reset_index(drop=True)
    ids = parse_labels(frame[source.id])
    has_id, is_repeated = ids.notna().to_numpy(dtype=bool), ids.duplicated().to_numpy(dtype=bool)
    rejected = {
        **{reason: int(rows.sum()) for reason, rows in nobodys.items()},
        "row-without-id": int(np.count_nonzero(~has_id)),
        "patient-twice-at-site": int(np.count_nonzero(has_id & is_repeated)),
    }
    rows = np.flatnonzero(has_id & ~is_repeated)
    keys = [_key(text, store, source, path) for text in ids.iloc[rows]]
    # Sorted by hash, so that the order of the rows reveals nothing about the table.
    order = np.argsort(np.array(keys, dtype=np.str_), kind="stable")
    frame = frame.iloc[rows[order]].reset_index(drop=True)
    columns = []
    for name, column in _offered(frame, source, path).items():
        values, is_not_number = parse_numbers(column, missing=source.missing)
        codes = form_codes(column, is_not_number)
        if name != source.sex and is_miswritten(codes, numbers=int(np.isfinite(values).sum())):
            miswritten = np.isin(codes, list(MISWRITTEN))
            rejected[left_out_miswritten(name, most_frequent(codes[miswritten]))] = int(miswritten.sum())
            continue
        row, n_neither = _column(name, column, source, values, is_not_number, codes)
        if name == source.sex:
            rejected[neither_sex(name)] = n_neither
        elif np.isfinite(values).any() or most_frequent(codes) in TO_SAY:
            # A column of text is no mistake, it is only of no use.
            counts = Counter(code for code in codes if code)
            rejected |= {not_a_number(name, form): count for form, count in counts.items()}
        rejected |= {kept_extreme(name, extreme.code): extreme.count for extreme in find_extremes(values)}
        columns.append(row)
    with writing(store) as writer:
        writer.replace_table(
            [keys[at] for at in order], columns, rejected=bounded_counts(rejected), about=json.dumps(dict(about))
        )


def _key(text: str, store: CohortStore, source: TableSource, path: Path) -> str:
    if not source.keyed:
        return store.patient_key(text)
    if not _KEY.fullmatch(text):
        raise FedAgeError(
            f"{path}: column {source.id!r} holds something else than this site's keyed hashes; remove table.keyed from "
            "site.toml, or write the file with fedage site out-of-fold"
        )
    return text


def _named_columns(source: TableSource) -> tuple[str, ...]:
    """Columns that `site.toml` names, each once."""
    mapped = (as_mapped(choice).column for choice in source.columns.values())
    return tuple(dict.fromkeys([source.id, *(name for name in (source.age, source.sex) if name), *mapped]))


def _require_columns(frame: pd.DataFrame, source: TableSource, path: Path) -> None:
    mapped = {name: as_mapped(choice).column for name, choice in source.columns.items()}
    if missing := [name for name in _named_columns(source) if name not in frame.columns]:
        available = columns_text(list(frame.columns), wanted=missing, known=_named_columns(source))
        raise FedAgeError(
            f"{path} has no column {', '.join(repr(name) for name in missing)} (it has {available}); "
            "correct [table] in site.toml"
        )
    several = [name for name, choice in source.columns.items() if as_mapped(choice).rows != "first"]
    if several:
        raise FedAgeError(
            f"table.columns.{several[0]}.rows must be first: a table has one row a patient; combine them before"
        )
    if taken := [name for name, column in mapped.items() if name in frame.columns and name != column]:
        raise FedAgeError(
            f"{path} has the column {taken[0]!r} itself, and table.columns gives that name to another; rename one"
        )
    roles = [name for name in (source.id, source.age, source.sex) if name]
    if repeated := [name for name in roles if roles.count(name) > 1 or name in mapped.values()]:
        raise FedAgeError(
            f"site.toml gives the column {repeated[0]!r} more than one part; it may be table.id, table.age, table.sex "
            "or one of table.columns"
        )


def _offered(frame: pd.DataFrame, source: TableSource, path: Path) -> dict[str, pd.Series]:
    """Columns that campaigns may use, by the names they use.

    Raises
    ------
    FedAgeError
        If a column that `site.toml` names as one of numbers holds words, or numbers written otherwise.
    """
    number_columns = [source.age] if source.age else []
    number_columns += [as_mapped(choice).column for choice in source.columns.values() if not as_mapped(choice).values]
    for name in number_columns:
        values, is_not_number = parse_numbers(frame[name], missing=source.missing)
        folded = frame[name].astype("string").str.strip().str.casefold()
        is_not_number = is_not_number & ~folded.isin(list(_WORDS)).to_numpy(dtype=bool)
        distinct = [str(text) for text in frame[name][is_not_number].unique()]
        if problem := named_column_problem(name, form_codes(frame[name], is_not_number), values, texts=distinct):
            raise FedAgeError(f"{path}: {problem}")
        if name == source.age and counts_from_conception(name):
            raise FedAgeError(f"{path}: column {name!r} {NOT_FROM_BIRTH} as table.age of site.toml")
        if name == source.age and (problem := ages_problem(values)):
            raise FedAgeError(f"{path}: column {name!r} {problem}")
    own_words = (source.male, source.female) != ("M", "F")
    if source.sex and not own_words and (problem := words_problem(kinds_of_words(frame[source.sex]))):
        mend = 'or say in site.toml what its words mean: male = "H", female = "M"'
        raise FedAgeError(f"{path}: column {source.sex!r} {problem}, {mend}")
    renamed = {as_mapped(choice).column for choice in source.columns.values()}
    by_name: dict[str, pd.Series] = {
        str(name): frame[name]
        for name in frame.columns
        if name != source.id and name not in renamed and not _is_dates(frame[name])
    }
    for name, choice in source.columns.items():
        mapping = as_mapped(choice)
        column = frame[mapping.column]
        if mapping.values or mapping.divide_by != 1:
            texts = column.astype("string").fillna("").astype(object)
            values, is_filled = mapped_numbers(texts, mapping, missing=source.missing)
            is_unmapped = is_filled & np.isnan(values)
            column = pd.Series(values).astype(object)
            column = column.mask(is_unmapped, NOT_NAMED_CELL if mapping.values else _PLACEHOLDER)
        by_name[name] = column
    roles = {source.age, source.sex, *source.columns}
    return {
        name: column
        for name, column in by_name.items()
        if name in roles
        or (
            any(fnmatchcase(name, pattern) for pattern in source.use)
            and not any(fnmatchcase(name, pattern) for pattern in source.leave_out)
        )
    }


def _is_dates(column: pd.Series) -> bool:
    """Whether a column holds dates, which pandas reads as numbers and the store must not hold."""
    return bool(pd.api.types.is_datetime64_any_dtype(column))


def _column(
    name: str,
    column: pd.Series,
    source: TableSource,
    values: FloatArray,
    is_not_number: NDArray[np.bool_],
    codes: Codes,
) -> tuple[dict[str, Any], int]:
    """A row for the store, and how many cells hold neither a number nor a word for a sex."""
    words = column.astype("string").str.strip().str.casefold().map(_WORDS).fillna(0).to_numpy(dtype=np.int8)
    if name != source.sex and words.any() and words_problem(kinds_of_words(column)):
        words = np.zeros_like(words)  # a sex that site.toml does not explain: nobody's
    if name == source.sex:
        words = np.where(_is_code(column, values, source.male), _MALE, words)
        words = np.where(_is_code(column, values, source.female), _FEMALE, words).astype(np.int8)
        is_not_number = is_not_number | np.isfinite(values)  # a number that is neither
        values = np.full(values.size, np.nan)
    is_not_number = is_not_number & (words == 0)
    marks = np.where(is_not_number, _NOT_A_NUMBER, 0).astype(np.uint8)
    if codes.size:
        marks[is_not_number & (codes == NOT_NAMED)] = _UNMAPPED
    row = {
        "name": name,
        "numbers": values.astype("<f8").tobytes(),
        "odd": marks.tobytes() if is_not_number.any() else None,
        "words": words.tobytes() if words.any() else None,
    }
    return row, int(np.count_nonzero(is_not_number))


def _is_code(column: pd.Series, values: FloatArray, code: float | str) -> NDArray[np.bool_]:
    if isinstance(code, str):
        texts = column.astype("string").str.strip().str.casefold()
        return np.asarray((texts == code.strip().casefold()).fillna(False), dtype=bool)
    return np.asarray(values == code)


def _to_series(column: Row) -> pd.Series:
    values = np.frombuffer(column["numbers"], dtype="<f8").astype(np.float64)
    if column["odd"] is None and column["words"] is None:
        return pd.Series(values)
    cells = values.astype(object)
    if column["odd"] is not None:
        marks = np.frombuffer(column["odd"], dtype=np.uint8)
        cells[marks == _NOT_A_NUMBER], cells[marks == _UNMAPPED] = _PLACEHOLDER, NOT_NAMED_CELL
    if column["words"] is not None:
        words = np.frombuffer(column["words"], dtype=np.int8)
        cells[words == _MALE], cells[words == _FEMALE] = "m", "f"
    return pd.Series(cells, dtype=object)
