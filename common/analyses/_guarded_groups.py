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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray

Codes = NDArray[np.int64]

CODES = 2**32
_ZERO = np.int64(2**31)
_SIXTEENFOLD_BITS = 25
"""Four powers of two in codes: 23 bits of mantissa and 2 of exponent."""
_VALUES_AT_ONCE = 2**20
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
    return guarded_groups_of([values], minimum_count=minimum_count)[0]


def guarded_groups_of(columns: Iterable[FloatArray], *, minimum_count: int) -> list[Groups]:
    """`guarded_groups` of each of several columns, many of them cut together."""
    groups: list[Groups] = []
    block: list[FloatArray] = []
    for values in columns:
        block.append(_present(values, minimum_count=minimum_count))
        if sum(map(len, block)) > _VALUES_AT_ONCE:
            groups += _cut(block, minimum_count=minimum_count)
            block = []
    return groups + _cut(block, minimum_count=minimum_count)


def _cut(present: Sequence[FloatArray], *, minimum_count: int) -> list[Groups]:
    """The groups of sorted values of several columns."""
    sizes = np.array([values.size for values in present], dtype=np.int64)
    if not sizes.any():
        return [Groups(*(np.empty(0, dtype=np.int64) for _ in range(4)))] * sizes.size
    every = np.concatenate(present)
    codes = encode(every)
    # With the number of their column in front of them the codes of all columns are in order.
    column = np.repeat(np.arange(sizes.size, dtype=np.int64), sizes)
    ordered = column * CODES + codes
    # The parts of one round side by side: rows [first, last) of the sorted codes.
    last = np.cumsum(sizes)
    first = last - sizes
    first, last = first[sizes > 0], last[sizes > 0]
    done: list[tuple[Codes, Codes]] = []
    while first.size:
        wide = last - first >= 2 * minimum_count
        lowest, highest = codes[first[wide] + minimum_count - 1], codes[last[wide] - minimum_count]
        apart = lowest < highest  # else too many patients share one value
        cuttable = wide.copy()
        cuttable[wide] = apart
        done.append((first[~cuttable], last[~cuttable]))
        at = column[first[cuttable]] * CODES + _roundest(lowest[apart], highest[apart])
        cut = np.searchsorted(ordered, at)
        first, last = np.concatenate([first[cuttable], cut]), np.concatenate([cut, last[cuttable]])
    first, last = (np.sort(np.concatenate(side)) for side in zip(*done, strict=True))
    start, end = _ends(codes[first], codes[last - 1])
    beside = np.flatnonzero(column[first[1:]] == column[first[:-1]])
    between = _roundest(codes[last[beside] - 1], codes[first[beside + 1]])
    start[beside + 1], end[beside] = np.maximum(start[beside + 1], between), np.minimum(end[beside], between)
    mean = np.clip(encode(np.add.reduceat(every, first) / (last - first)), start, end - 1)
    parts = np.searchsorted(column[first], np.arange(1, sizes.size))
    split = (np.split(each, parts) for each in (start, mean, end, last - first))
    return [Groups(start=s, mean=m, end=e, count=c) for s, m, e, c in zip(*split, strict=True)]


def _present(values: FloatArray, *, minimum_count: int) -> FloatArray:
    """The finite values in order, with a few missing ones at their median; none where they are few."""
    known = np.isfinite(values)
    present: FloatArray = np.sort(values if known.all() else values[known])
    if present.size < minimum_count:
        return present[:0]
    missing = values.size - present.size
    if 0 < missing < minimum_count:
        middle = present.size // 2
        present = np.insert(present, middle, np.full(missing, present[middle]))
    return present


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
