"""A column's distribution at a site, told only in groups that nobody stands alone in.

A site sorts its patients, cuts them in two at the *roundest* number that leaves at least `minimum_count` on either
side, and each part again, until no part can be cut. Of each group it tells how many patients it has, their mean (a sum,
like everything that leaves a site), and two numbers they lie between: the cuts, or ends rounded outwards on a grid no
finer than the group is wide. They depend on the site's data alone, never on what is asked, so two questions cannot be
subtracted. The means are microaggregation (Domingo-Ferrer & Mateo-Sanz 2002); the round cuts are [own].

All float32 numbers, in order, are the codes 0 to 2³² − 1, so no bounds of a feature have to be agreed beforehand; a
code is rounder the more of its last bits are 0. Notation: v values, c groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray

Codes = NDArray[np.int64]

CODES = 2**32
_ZERO = np.int64(2**31)
_SIXTEENFOLD_BITS = 25
"""Four powers of two in codes: 23 bits of mantissa and 2 of exponent."""
_LARGEST = float(np.finfo(np.float32).max)


def encode(values: FloatArray) -> Codes:
    """Codes of finite values, in the order of the values; what float32 cannot hold becomes its largest number.

    >>> (encode(np.array([-1.0, -0.0, 0.0, 1.0])) - 2**31).tolist()
    [-1065353216, 0, 0, 1065353216]
    """
    with np.errstate(under="ignore"):
        single = np.clip(values, -_LARGEST, _LARGEST).astype(np.float32)
    bits = single.view(np.int32).astype(np.int64)
    magnitude = bits & (_ZERO - 1)
    codes: Codes = _ZERO + np.where(bits >= 0, magnitude, -magnitude)
    return codes


def decode(codes: Codes | FloatArray) -> FloatArray:
    """The float32 numbers of codes, as float64; codes beyond the largest finite number become that number."""
    lowest, highest = encode(np.array([-_LARGEST, _LARGEST]))
    whole = np.clip(np.asarray(codes).astype(np.int64), lowest, highest) - _ZERO
    magnitude = np.abs(whole).astype(np.int32).view(np.float32).astype(np.float64)
    values: FloatArray = np.where(whole < 0, -magnitude, magnitude)
    return values


@dataclass(frozen=True)
class Groups:
    """Patients by value, ascending: codes [start, end) around them, code of their mean, how many; arrays (c,)."""

    start: Codes
    mean: Codes
    end: Codes
    count: Codes

    @property
    def n(self) -> int:
        """All patients."""
        return int(self.count.sum())

    def below(self, codes: Codes, *, by: Codes) -> FloatArray:
        """How many patients are below each code if all of a group lie `by` its `start`, `mean` or last code."""
        running = np.concatenate([[0], np.cumsum(self.count)])
        return running[np.searchsorted(by, codes, side="left")].astype(np.float64)


def guarded_groups(values: FloatArray, *, minimum_count: int) -> Groups:
    """The groups of values (v,), of which those that are not finite count as missing.

    Every group has at least `minimum_count`. Fewer missing patients than that would be a small group too: they count
    where the site's own median lies, which moves no quantile of all sites by more than as many ranks. Fewer *present*
    patients make no group at all.
    """
    present = np.sort(values[np.isfinite(values)])
    if present.size < minimum_count:
        return Groups(*(np.empty(0, dtype=np.int64) for _ in range(4)))
    missing = values.size - present.size
    if 0 < missing < minimum_count:
        middle = present.size // 2
        present = np.insert(present, middle, np.full(missing, present[middle]))
    codes = encode(present)
    # The parts of one round side by side: rows [first, last) of the sorted codes.
    first, last = np.array([0]), np.array([codes.size])
    done: list[tuple[Codes, Codes]] = []
    while first.size:
        wide = last - first >= 2 * minimum_count
        lowest, highest = codes[first[wide] + minimum_count - 1], codes[last[wide] - minimum_count]
        apart = lowest < highest  # else too many patients share one value
        cuttable = wide.copy()
        cuttable[wide] = apart
        done.append((first[~cuttable], last[~cuttable]))
        cut = np.searchsorted(codes, _roundest(lowest[apart], highest[apart]))
        first, last = np.concatenate([first[cuttable], cut]), np.concatenate([cut, last[cuttable]])
    first, last = (np.sort(np.concatenate(column)) for column in zip(*done, strict=True))
    start, end = _ends(codes[first], codes[last - 1])
    between = _roundest(codes[last[:-1] - 1], codes[first[1:]])
    start[1:], end[:-1] = np.maximum(start[1:], between), np.minimum(end[:-1], between)
    mean = np.clip(encode(np.add.reduceat(present, first) / (last - first)), start, end - 1)
    return Groups(start=start, mean=mean, end=end, count=last - first)


def _bits(whole: Codes) -> Codes:
    """Length in bits of whole numbers from 0 on."""
    length: Codes = np.frexp(whole.astype(np.float64))[1].astype(np.int64)
    return length


def _roundest(a: Codes, b: Codes) -> Codes:
    """The roundest code c with a < c ≤ b, where a < b: of the bits in which they differ, the first alone is kept."""
    below = _bits(a ^ b) - 1
    return (b >> below) << below


def _ends(a: Codes, b: Codes) -> tuple[Codes, Codes]:
    """Codes [start, end) around [a, b], on a grid no finer than b − a, within the next powers of 16."""
    height = _bits(b - a)
    start, end = (a >> height) << height, ((b >> height) + 1) << height
    sixteen = _SIXTEENFOLD_BITS
    return np.maximum(start, (a >> sixteen) << sixteen), np.minimum(end, ((b >> sixteen) + 1) << sixteen)
