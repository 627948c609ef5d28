"""Exams from a table: a CSV, TSV or Parquet file, or the table in a site's store. Each row is an exam."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.table.cell_forms import form_codes
from fedage.client.cohort.table.column_checks import named_column_problem
from fedage.client.cohort.table.header import columns_text
from fedage.client.cohort.table.messages import AGE_MAX_YEARS
from fedage.client.cohort.table.read import is_text_column, parse_labels, parse_numbers, read_frame, without_bad_names
from fedage.client.cohort.table.sex import kinds_of_words, parse_sexes, words_problem
from fedage.client.cohort.table.summary_rows import rows_of_nobody
from fedage.client.cohort.table.units import ages_problem, counts_from_conception
from fedage.client.prediction.exams import NewExams
from fedage.common.bundle.container import Bundle
from fedage.common.bundle.fits import features_of
from fedage.common.campaign.types import TableChoice
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import ROW, Estimator, Samples
from fedage.common.estimators.table import FEATURE
from fedage.common.presentation.wording import listed
from fedage.common.statistics.statistic import FloatArray

if TYPE_CHECKING:
    import pandas as pd

MISSING = "missing_features"
FAR_SDS = 10.0
"""A column whose median lies so many of the model's SDs from its mean is of another unit or another measure."""
FAR_VALUE_SDS = 20.0
"""So is a single value: a code for missing (-999), or a row in another unit."""
_SHOWN = 5


@dataclass(frozen=True)
class Named:
    """Which columns of a table are identifier, age and sex; None: as the bundle's campaign called them, if there."""

    id: str | None = None
    age: str | None = None
    sex: str | None = None


def exams_of_table(path: Path, bundle: Bundle, estimator: Estimator, *, named: Named | None = None) -> NewExams:
    """The rows of a table file.

    Raises
    ------
    FedAgeError
        If it cannot be read, lacks a feature of the bundle, or is of another kind.
    """
    named = named or Named()
    choice = bundle.description.table_choice or TableChoice()
    features = features_of(bundle.description)
    text = [name for name in (named.id or choice.id,) if name]
    frame = read_frame(path, text=text, known=features)
    frame, notes = without_bad_names(frame, path=path)
    named = _there(frame, named, choice, path=path, features=features)
    nobodys = rows_of_nobody(frame, id_column=named.id)
    set_aside = {reason: int(rows.sum()) for reason, rows in nobodys.items()}
    frame = frame[~np.any([*nobodys.values()], axis=0)].reset_index(drop=True)
    if named.id is None:
        names = [f"row {number}" for number in range(1, len(frame) + 1)]
        notes = [*notes, f"{path.name}: no column of identifiers, so rows are numbered; name one with --id"]
    else:
        ids = parse_labels(frame[named.id])
        set_aside["row-without-id"] = int(ids.isna().sum())
        frame = frame[ids.notna().to_numpy(dtype=bool)].reset_index(drop=True)
        names = ids.dropna().tolist()
    return _exams(
        frame, names, bundle, estimator, choice=choice, named=named, what=str(path), set_aside=set_aside, notes=notes
    )


def exams_of_stored_table(
    frame: pd.DataFrame, keys: tuple[str, ...], bundle: Bundle, estimator: Estimator, *, named: Named, what: str
) -> NewExams:
    """The rows (n,) of a table in a site's store, where identifiers are keyed hashes and sexes `m` and `f`."""
    choice = bundle.description.table_choice or TableChoice()
    named = _there(frame, named, choice, path=Path(what), features=features_of(bundle.description))
    return _exams(frame, list(keys), bundle, estimator, choice=choice, named=named, what=what, set_aside={}, notes=[])


def _there(frame: pd.DataFrame, named: Named, choice: TableChoice, *, path: Path, features: tuple[str, ...]) -> Named:
    """The columns of a table that are identifier, age and sex; those that somebody names must be there."""
    given = {"--id": named.id, "--age": named.age, "--sex": named.sex}
    lacking = {option: name for option, name in given.items() if name and name not in frame.columns}
    for option, name in lacking.items():
        available = columns_text(list(frame.columns), wanted=[name], known=[*features, name])
        raise FedAgeError(f"{path} has no column {name!r} (it has {available}); correct {option}")
    missing = [name for name in features if name not in frame.columns]
    if missing:
        available = columns_text(list(frame.columns), wanted=missing[:_SHOWN], known=features)
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise FedAgeError(
            f"{path} lacks {len(missing)} of the {len(features)} features of the bundle: "
            f"{', '.join(map(repr, missing[:_SHOWN]))}{more} (it has {available}); give a table with all of them"
        )
    usual = {"id": choice.id, "age": choice.age, "sex": choice.sex}
    found = {role: name for role, name in usual.items() if name in frame.columns}
    chosen = {role: getattr(named, role) or found.get(role) for role in usual}
    return Named(**chosen)


def _exams(
    frame: pd.DataFrame,
    names: list[str],
    bundle: Bundle,
    estimator: Estimator,
    *,
    choice: TableChoice,
    named: Named,
    what: str,
    set_aside: dict[str, int],
    notes: list[str],
) -> NewExams:
    features = features_of(bundle.description)
    columns: dict[str, FloatArray] = {}
    for name in features:
        columns[FEATURE + name], is_no_number = parse_numbers(frame[name], missing=choice.missing)
        if is_text_column(columns[FEATURE + name], is_no_number):
            raise FedAgeError(f"{what}: column {name!r} holds text, and it is a feature of the bundle; give numbers")
        codes = form_codes(frame[name], is_no_number)
        if problem := named_column_problem(name, codes, columns[FEATURE + name], texts=()):
            raise FedAgeError(f"{what}: {problem}")
        if count := int(is_no_number.sum()):
            notes = [*notes, f"{what}: {count} cells of column {name!r} are no numbers and count as missing"]
    known = np.isfinite(np.column_stack([columns[FEATURE + name] for name in features]))
    columns["is_male"] = _sexes(frame, named.sex, choice, what=what)
    if "is_male" in estimator.row_columns and named.sex is None:
        raise FedAgeError(f"{what} has no column of sexes, which the bundle's model needs; name it with --sex")
    ages = _ages(frame, named.age, choice, what=what)
    if named.age is None:
        notes = [*notes, f"{what}: no column of ages, so no gap is computed; name one with --age"]
    rows = np.column_stack([columns[name] for name in estimator.row_columns])
    no_age = (ages < 0) | (ages > AGE_MAX_YEARS)
    no_feature = ~known.any(axis=1)
    no_sex = np.isnan(rows[:, -1]) if "is_male" in estimator.row_columns else np.zeros(len(names), dtype=bool)
    set_aside |= {
        "no-feature": int(np.count_nonzero(no_feature)),
        "unknown-sex": int(np.count_nonzero(no_sex & ~no_feature)),
        "implausible-age": int(np.count_nonzero(no_age & ~no_feature & ~no_sex)),
    }
    kept = np.flatnonzero(~no_age & ~no_feature & ~no_sex)
    _require_same_measures(rows[kept], bundle, estimator, what=what)
    far = _far_values(rows[kept], bundle, estimator)
    if far.any():
        where = [estimator.row_columns[k].removeprefix(FEATURE) for k in np.flatnonzero(far.any(axis=0))]
        more = f" and {len(where) - _SHOWN} more" if len(where) > _SHOWN else ""
        columns_far = listed([repr(name) for name in where[:_SHOWN]])
        notes = [
            *notes,
            f"{what}: {int(far.any(axis=1).sum())} rows have a value more than {FAR_VALUE_SDS:g} standard deviations "
            f"from the patients trained on, in {columns_far}{more}, and are not predicted: "
            "leave a cell empty that says missing by a number, and give every row in the same unit",
        ]
        set_aside["far-value"] = int(far.any(axis=1).sum())
        kept = kept[~far.any(axis=1)]
    return NewExams(
        names=tuple(names[row] for row in kept),
        age_years=ages[kept],
        samples=Samples({ROW: rows[kept]}),
        set_aside={reason: count for reason, count in set_aside.items() if count},
        notes=tuple(notes),
        columns={MISSING: (~known).sum(axis=1)[kept].astype(np.float64)},
    )


def _ages(frame: pd.DataFrame, column: str | None, choice: TableChoice, *, what: str) -> FloatArray:
    if column is None:
        return np.full(len(frame), np.nan)
    values, is_no_number = parse_numbers(frame[column], missing=choice.missing)
    if is_text_column(values, is_no_number):
        raise FedAgeError(f"{what}: column {column!r} holds text, where ages in years belong; correct it or --age")
    if counts_from_conception(column):
        raise FedAgeError(f"{what}: column {column!r} counts from conception, and ages count from birth; correct --age")
    if problem := ages_problem(values):
        raise FedAgeError(f"{what}: column {column!r} {problem}")
    return values


def _sexes(frame: pd.DataFrame, column: str | None, choice: TableChoice, *, what: str) -> FloatArray:
    if column is None:
        return np.full(len(frame), np.nan)
    if problem := words_problem(kinds_of_words(frame[column])):
        raise FedAgeError(f"{what}: column {column!r} {problem}")
    return parse_sexes(frame[column], choice)[0]


def _far_values(rows: FloatArray, bundle: Bundle, estimator: Estimator) -> NDArray[np.bool_]:
    """Which values (n, p) no patient trained on can have had, to go by the model's means and SDs."""
    standard = estimator.standard(bundle.weights)
    if standard is None:
        return np.zeros(rows.shape, dtype=np.bool_)
    return np.abs((rows - standard.means) * standard.units) > FAR_VALUE_SDS  # NaN is not


def _require_same_measures(rows: FloatArray, bundle: Bundle, estimator: Estimator, *, what: str) -> None:
    """Refuse a table one of whose columns is, to go by its median, of another unit than that trained on."""
    standard = estimator.standard(bundle.weights)
    if standard is None or not len(rows):
        return
    medians = np.array([np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else np.nan
                        for column in rows.T])  # fmt: skip
    far = np.flatnonzero(np.abs((medians - standard.means) * standard.units) > FAR_SDS)
    if not far.size:
        return
    shown = [f"{estimator.row_columns[k].removeprefix(FEATURE)!r} (median {medians[k]:.4g} here, mean "
             f"{standard.means[k]:.4g} in training)" for k in far[:_SHOWN]]  # fmt: skip
    more = f" and {far.size - _SHOWN} more" if far.size > _SHOWN else ""
    raise FedAgeError(
        f"{what}: more than {FAR_SDS:g} standard deviations from the patients trained on: {listed(shown)}{more}; give "
        "these columns in the unit and by the method of the training"
    )
