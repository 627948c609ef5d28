"""Values that may stand for "missing" and that nobody has declared: -9999, 999, and other repeated extremes.

They are kept as they are. An extreme far from all other values, which is one of the codes in use or occurs several
times, is said with its column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray

Counts = NDArray[np.intp]

_INTEGER_LIMITS = frozenset((32767.0, 32768.0, 65535.0, 2147483647.0, 2147483648.0, 4294967295.0))
_FILL = 1e20
"""From here on values are what programs fill gaps with (9.96921e36, 1e30, 3.4e38)."""
_FILL_CODES = (1e20, 1e30, 1e35, 1e36, 1e37, 9.969209968386869e36, 3.4028234663852886e38, 1.7976931348623157e308)
_FILL_TOLERANCE = 1e-5
"""Fill codes are told apart by this relative difference: they are often written with six digits."""
_MOST_CODES, _ENDS = 4, 12
_FEWEST_BESIDE_A_CODE, _FEWEST_OTHER_VALUES = 2, 3
_ONE_DIGIT = 9.0
_LARGEST_MEASURE = 99.0
_ENOUGH = 10


@dataclass(frozen=True)
class Extreme:
    """A value that may stand for "missing".

    Parameters
    ----------
    code
        The value as text if it is a known code, or many cells hold it; empty for any other.
    count
        How many cells hold it.
    """

    code: str
    count: int


def find_extremes(values: FloatArray) -> list[Extreme]:
    """Extremes of a column (n,) that may stand for "missing", NaN ignored.

    A value is such a one if it lies beyond all others by more than half of their range and is a code in use (999,
    -9999, -1 below counts, the limits of integers), or by more than their range and occurs more often than any other,
    but in less than half of the cells. Of a column of nothing but codes, those of several nines or the like are such.

    Attack: a message quotes a value that one patient has. Rule: a value is quoted if it is a code that no measurement
    gives (-9999, 1e30), if it consists of the digit 7, 8 or 9 and occurs in at least two cells, or if ten cells hold
    it. Residual risk: two patients with a measurement of 999.

    Examples
    --------
    >>> find_extremes(np.array([2.1, 3.4, 2.8, -9999.0, 999.0, 3.0]))
    [Extreme(code='-9999', count=1), Extreme(code='', count=1)]
    >>> find_extremes(np.array([20.0, 31, 44, 57, 57]))
    []
    >>> find_extremes(np.array([-9999.0, -9999.0])), find_extremes(np.array([7.0, 8.0, 7.0]))
    ([Extreme(code='-9999', count=2)], [])
    """
    distinct, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    codes = np.zeros(distinct.size, dtype=bool)  # only those at the ends can lie beyond all others
    for index in {*range(distinct.size)[:_ENDS], *range(distinct.size)[-_ENDS:]}:
        codes[index] = _is_code(float(distinct[index]))
    others, extremes = distinct[~codes], []
    if not others.size:
        alone = [
            index for index in np.flatnonzero(codes) if _is_code_alone(float(distinct[index])) and counts[index] > 1
        ]
        return _most_frequent_by_code([_extreme(float(distinct[index]), int(counts[index])) for index in alone])
    if others.size >= _FEWEST_BESIDE_A_CODE:
        flagged = [
            index
            for index in np.flatnonzero(codes)
            if _is_distant_code(float(distinct[index]), int(counts[index]), others)
        ]
        extremes = [_extreme(float(distinct[index]), int(counts[index])) for index in flagged]
        distinct, counts = np.delete(distinct, flagged), np.delete(counts, flagged)
    if distinct.size > _FEWEST_OTHER_VALUES:
        extremes += [Extreme("", int(counts[index])) for index in (0, -1) if _is_repeated(distinct, counts, index)]
    return _most_frequent_by_code(extremes)


def count_text(count: int) -> str:
    """A number of cells for a message; fewer than ten are not given exactly."""
    return f"{count} cells" if count >= _ENOUGH else f"fewer than {_ENOUGH} cells"


def _most_frequent_by_code(extremes: list[Extreme]) -> list[Extreme]:
    """The most frequent extremes; of those without a code only the most frequent one."""
    by_code: dict[str, Extreme] = {}
    for extreme in sorted(extremes, key=lambda extreme: -extreme.count):
        by_code.setdefault(extreme.code, extreme)
    return list(by_code.values())[:_MOST_CODES]


def _extreme(value: float, count: int) -> Extreme:
    """An extreme, with its value only where that cannot be one patient's measurement."""
    code_in_use = abs(value) < _FILL and count > 1
    is_quotable = count >= _ENOUGH or code_in_use or _is_no_measurement(value)
    return Extreme(f"{value:.10g}" if is_quotable else "", count)


def _is_no_measurement(value: float) -> bool:
    """Whether a code is one that no measurement gives: -99 and below, limits of integers, fill codes of programs."""
    size = abs(value)
    if size >= _FILL:
        return any(abs(size - fill) <= _FILL_TOLERANCE * fill for fill in _FILL_CODES)
    return size in _INTEGER_LIMITS or (value <= -_LARGEST_MEASURE and value.is_integer())


def _is_distant_code(value: float, count: int, others: FloatArray) -> bool:
    """Whether a code in use lies far beyond the other values, which are sorted."""
    lowest, highest = float(others[0]), float(others[-1])
    gap, span = max(lowest - value, value - highest), highest - lowest
    if value < 0 <= lowest:
        return abs(value) > _ONE_DIGIT or count > 1
    return gap > span / 2 if abs(value) > _ONE_DIGIT else count > 1 and gap > 3 * span


def _is_code_alone(value: float) -> bool:
    """Whether a code stands for "missing" though no other value is there: it is no small number."""
    return abs(value) > _LARGEST_MEASURE or (value < 0 and abs(value) > _ONE_DIGIT)


def _is_repeated(distinct: FloatArray, counts: Counts, index: int) -> bool:
    """Whether the smallest or the largest value occurs several times, and lies beyond the others by their range."""
    value, count, others = float(distinct[index]), int(counts[index]), np.delete(distinct, index)
    lowest, highest = float(others[0]), float(others[-1])
    gap, span = max(lowest - value, value - highest), highest - lowest
    return int(np.delete(counts, index).max()) < count < counts.sum() / 2 and gap > span


def _is_code(value: float) -> bool:
    """Whether it is a code in use for "missing": nines, eights or sevens alone, -1, or what programs fill gaps with."""
    size = abs(value)
    digits = f"{size:.10g}".replace(".", "")
    nines = len(set(digits)) == 1 and digits[0] in "789"
    return nines or value == -1 or size in _INTEGER_LIMITS or size >= _FILL
