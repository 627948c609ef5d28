"""What an analysis sees of a site: named columns of numbers, one row a patient, no identifier.

Columns that every cohort of an image campaign has once predictions exist:

========================= ==================================================================================
`age_years`               chronological age Ω at the exam
`predicted_years`         the model's prediction ŷ
`corrected_years`         ŷ after bias correction (after the bias step)
`gap_years`               corrected predicted age difference, `corrected_years − age_years`
`raw_gap_years`           ŷ − Ω
`healthy`                 1 if the campaign file counts the patient as healthy, else 0
`is_male`                 1, 0, NaN if unknown
`is_train`, `is_validation`, `is_test`   the patient's part in the keyed-hash split, 1 or 0
========================= ==================================================================================

plus the outcome columns that the campaign file names (`time_years`, `event`, covariates). NaN is "missing".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray

SET_ASIDE, INCOMPLETE = "set_aside", "set_aside_incomplete"
"""Columns that are 1 for who is in no sum: the few of a part who are not healthy, and the few who lack a value that one
analysis needs and another does not."""


class MissingColumn(KeyError):
    """A campaign names a column that this site's cohort does not have. `.column` is its name."""

    def __init__(self, column: str, available: tuple[str, ...]) -> None:
        self.column = column
        self.available = available
        super().__init__(column)

    def __str__(self) -> str:
        return f"column {self.column!r} is not in this site's cohort (it has {', '.join(self.available) or 'none'})"


class UnusableColumn(ValueError):
    """A column holds values that an analysis cannot take. `.column` is its name; the message quotes no value.

    The analysis is withheld as a whole. Leaving out the patients concerned instead would select patients by the very
    value that is studied.
    """

    def __init__(self, column: str, detail: str) -> None:
        self.column = column
        super().__init__(f"column {column!r} {detail}")


EVENT_MEANING = "1 (event) and 0 (censored)"
"""What the two values of an event column stand for."""


def not_binary_text(column: str, *, meaning: str, values: Sequence[float] = ()) -> str:
    """What is wrong with a column of other values than 0 and 1, after its name, and the mapping that would mend it.

    Which value is the event is not guessed, and none is left out: a value without a meaning would be missing.

    Parameters
    ----------
    values
        The different values it holds, for a message that stays where the table is; none where it may be sent on.
    """
    codes = sorted({float(value) for value in values if np.isfinite(value)})
    if 0 < len(codes) <= _MOST_CODES and all(code.is_integer() and abs(code) <= _LARGEST_CODE for code in codes):
        named = ", ".join(f'"{code:g}" = ?' for code in codes)
        each = "where each ? is 1 or 0"
    else:
        named = '"A VALUE" = ?, "ANOTHER VALUE" = ?'
        holds = f"; it holds {len(codes)} different values" if codes else ""
        each = f"with every value of the column, where each ? is 1 or 0{holds}"
    return (
        f"holds other values than {meaning}; say what they mean in the site's site.toml: "
        f'{{ column = "{column}", values = {{ {named} }} }}, {each} (a value that is not named counts as missing), or '
        "recode the table"
    )


_MOST_CODES, _LARGEST_CODE = 5, 99
"""Values that a message lists: up to so many, whole and of at most two digits, as codes are."""

LONGEST_FOLLOW_UP_YEARS = 130.0
"""Nobody is followed for longer: a larger time is one in days or months, a date, or a code for missing."""


def not_years_text(column: str) -> str:
    """What is wrong with a column of follow-up times that are no years, after its name, and the mapping to mend it."""
    return (
        f"holds times above {LONGEST_FOLLOW_UP_YEARS:g}, which are no years; if they are days, say so in the site's "
        f'site.toml, e.g. {{ column = "{column}", divide_by = 365.25 }}, or give the table years; if they stand for '
        "missing, declare them as missing"
    )


_FEWEST_WITHOUT_EVENT = 10


def tells_only_events(*, time: FloatArray, event: FloatArray) -> bool:
    """Whether an event column is empty where others have 0: those censored would be missing, and all the rest have it.

    Parameters
    ----------
    time, event
        (n,) each, NaN where missing.
    """
    known = event[np.isfinite(event)]
    silent = int(np.count_nonzero(np.isfinite(time) & np.isnan(event)))
    return known.size > 0 and bool((known == 1).all()) and silent >= _FEWEST_WITHOUT_EVENT


def only_events_text(column: str) -> str:
    """What is wrong with such a column, after its name, and the mapping that would mend it."""
    mapped = f'{{ column = "{column}", values = {{ "1" = 1, "" = 0 }} }}'
    return (
        "holds 1 or nothing where follow-up times are known, so that nobody would count as censored; if an empty cell "
        f"means censored, say so in the site's site.toml, e.g. {mapped}, or write 0"
    )


class _Chosen(Mapping[str, FloatArray]):
    """Columns of some of the patients, each copied when it is first read: a wide table has many that nobody reads."""

    def __init__(self, columns: Mapping[str, FloatArray], mask: NDArray[np.bool_]) -> None:
        self._columns, self._mask = columns, np.array(mask)
        self._read: dict[str, FloatArray] = {}

    def __getitem__(self, name: str) -> FloatArray:
        column = self._read.get(name)
        if column is None:
            column = self._read[name] = self._columns[name][self._mask]
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


@dataclass(frozen=True)
class Cohort:
    """Columns of equal length (n,), float64, NaN where missing."""

    columns: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        if isinstance(self.columns, _Chosen):  # of a cohort, whose columns have one length
            return
        lengths = {name: column.shape for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1 or any(len(shape) != 1 for shape in lengths.values()):
            raise ValueError(f"cohort columns must be one-dimensional and of one length, not {lengths}")

    @property
    def n(self) -> int:
        """Number of patients."""
        return next((int(column.size) for column in self.columns.values()), 0)

    def __getitem__(self, name: str) -> FloatArray:
        try:
            return self.columns[name]
        except KeyError:
            raise MissingColumn(name, tuple(self.columns)) from None

    def matrix(self, names: tuple[str, ...]) -> FloatArray:
        """The named columns side by side, (n, p)."""
        if not names:
            return np.empty((self.n, 0))
        return np.column_stack([self[name] for name in names])

    def where(self, mask: NDArray[np.bool_]) -> Cohort:
        """The patients for which `mask` (n,) is true."""
        return Cohort(_Chosen(self.columns, mask))

    def complete(self, names: tuple[str, ...]) -> Cohort:
        """The patients with a finite value in every named column."""
        mask = np.ones(self.n, dtype=bool)
        for name in names:
            mask &= np.isfinite(self[name])
        return self.where(mask)

    def with_columns(self, **columns: FloatArray) -> Cohort:
        """A copy with columns added or replaced."""
        return Cohort({**self.columns, **columns})
