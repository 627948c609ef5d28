"""Sums of features and age over a site's patients, in inner folds: all that a ridge regression needs of them.

Legend: p features, k inner folds, n patients; u = (x − centre) / spread, t age on its scale. Where x is missing u is 0,
or x the site's mean (`_table_missing`). What a site sends per fold: n, Σu, Σt, Σt², Σu·t, and the upper triangle of
Σuuᵀ (or its diagonal alone).

Σuuᵀ of fewer patients than features is their features up to a rotation nobody knows: let secure aggregation hide it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses._guarded_groups import decode, guarded_groups_of
from fedage.common.analyses.base import IterateRefused
from fedage.common.analyses.columns import MAX_AGE_YEARS, MAX_PATIENTS
from fedage.common.analyses.left_out import left_out_fields, left_out_values
from fedage.common.analyses.preparation._table_missing import enough_present, stood_in
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

MAX_FEATURES = 2000
"""Most features of which products are sent: about 80 MB for five folds."""
_COARSEST = 1e-3
"""Of the range of a site's values: what a centre may round them to."""
CLIP = 1e6
"""Largest |u|, for bounds. A centre and spread that leave anybody beyond it are refused: cutting values off at a place
of the asker's choice would be a threshold, and two of them give away who lies between. So far from the centre are only
codes for "missing" that were taken for numbers."""
_BLOCK_VALUES = 2**21


@dataclass(frozen=True)
class Moments:
    """The sums of one or several folds: n, Σu (p,), Σuuᵀ (p, p) or its diagonal (p,), Σt, Σt², Σu·t (p,)."""

    n: float
    u: FloatArray
    uu: FloatArray
    t: float
    tt: float
    ut: FloatArray

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.n + other.n,
            self.u + other.u,
            self.uu + other.uu,
            self.t + other.t,
            self.tt + other.tt,
            self.ut + other.ut,
        )


def layout(features: int, folds: int, *, products: bool) -> Layout:
    """The blocks of a site's statistic."""
    pairs = features * (features + 1) // 2 if products else features
    u, t = CLIP * MAX_PATIENTS, MAX_AGE_YEARS * MAX_PATIENTS
    return Layout(
        (
            *left_out_fields(),
            Field("stood_in", lower=0.0, upper=float(features)),
            Field("n", (folds,), lower=0.0, upper=MAX_PATIENTS, whole=True),
            Field("u", (folds, features), lower=-u, upper=u),
            Field("uu", (folds, pairs), lower=-u * CLIP, upper=u * CLIP),
            Field("t", (folds,), lower=-t, upper=t),
            Field("tt", (folds,), lower=0.0, upper=t * MAX_AGE_YEARS),
            Field("ut", (folds, features), lower=-u * MAX_AGE_YEARS, upper=u * MAX_AGE_YEARS),
        )
    )


def local(
    columns: Sequence[FloatArray],
    t: FloatArray,
    *,
    rows: NDArray[np.intp],
    fold: NDArray[np.intp],
    held_out: NDArray[np.intp],
    left_out: int,
    centre: FloatArray,
    spread: FloatArray,
    folds: int,
    products: bool,
    minimum_count: int,
) -> Statistic:
    """A site's sums over `rows` (n,) of its columns, t (n,) and fold (n,) in the order of `rows`.

    A column in which fewer than `minimum_count` patients have a value counts as missing at the site. `held_out` are the
    rows outside the sums that follow from those of the campaign's other folds.

    Raises
    ------
    IterateRefused
        If a patient may lie beyond `CLIP`, judged by the guarded groups of values and not by a single patient's.
    """
    p = len(columns)
    inner = [np.flatnonzero(fold == k) for k in range(folds)]
    groups = [rows[inside] for inside in inner]
    told = _told(columns, rows=rows, centre=centre, spread=spread, minimum_count=minimum_count)
    told &= enough_present(columns, groups, minimum_count=minimum_count)
    filled = stood_in(columns, [*groups, held_out], enough=told, minimum_count=minimum_count)
    own_mean = {int(j): float(np.nanmean(_finite(columns[int(j)][rows]))) for j in np.flatnonzero(filled)}
    shape = layout(p, folds, products=products)
    upper = np.triu_indices(p)
    values: dict[str, FloatArray] = {field.name: np.zeros(field.shape) for field in shape.fields}
    values |= {name: np.asarray(value) for name, value in left_out_values(left_out).items()}
    values["stood_in"] += np.count_nonzero(filled)
    for k, inside in enumerate(inner):
        squares = np.zeros((p, p) if products else p)
        for part in _blocks(inside, p):
            x = np.column_stack([column[rows[part]] for column in columns])
            for j, mean in own_mean.items():
                x[~np.isfinite(x[:, j]), j] = mean
            u = standardise(x, centre, spread)
            u[:, ~told] = 0.0
            values["u"][k] += u.sum(axis=0)
            values["ut"][k] += u.T @ t[part]
            squares += u.T @ u if products else (u * u).sum(axis=0)
        values["n"][k], values["t"][k], values["tt"][k] = inside.size, t[inside].sum(), t[inside] @ t[inside]
        values["uu"][k] = squares[upper] if products else squares
    cells = [Cell(int(count), "patients of one inner fold") for count in values["n"]]
    return Statistic.of(shape, dict(values), [Cell(rows.size, "training patients"), *cells])


def standardise(x: FloatArray, centre: FloatArray, spread: FloatArray) -> FloatArray:
    """(x − centre) / spread of (n, p), 0 where x is missing or the spread is 0."""
    unit = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    u = (x - centre) * unit
    u[~np.isfinite(u)] = 0.0
    return u


def moments(total: Statistic, features: int, *, products: bool) -> list[Moments]:
    """The sums of each fold."""
    upper = np.triu_indices(features)
    moments_of_groups = []
    for k in range(len(total["n"])):
        uu = total["uu"][k]
        if products:
            square = np.zeros((features, features))
            square[upper] = uu
            uu = square + np.triu(square, 1).T
        moments_of_groups.append(
            Moments(
                n=float(total["n"][k]),
                u=total["u"][k],
                uu=uu,
                t=float(total["t"][k]),
                tt=float(total["tt"][k]),
                ut=total["ut"][k],
            )
        )
    return moments_of_groups


def inner_folds(place: FloatArray, *, folds: int, minimum_count: int) -> NDArray[np.intp]:
    """Inner fold (n,) of each of a site's patients by a place in [0, 1) of their own; none has fewer than the minimum.

    A fold with fewer goes to the smallest of the others, so a small site takes part in fewer folds than there are. One
    more patient changes nobody else's fold, unless a fold thereby becomes large enough to stand alone.
    """
    fold: NDArray[np.intp] = np.minimum((place * folds).astype(np.intp), folds - 1)
    while True:
        counts = np.bincount(fold, minlength=folds)
        occupied = np.flatnonzero(counts)
        smallest = occupied[np.argmin(counts[occupied])] if occupied.size else 0
        others = occupied[occupied != smallest]
        if not others.size or counts[smallest] >= minimum_count:
            return fold
        fold[fold == smallest] = others[np.argmin(counts[others])]


def _told(
    columns: Sequence[FloatArray], *, rows: NDArray[np.intp], centre: FloatArray, spread: FloatArray, minimum_count: int
) -> NDArray[np.bool_]:
    """Which columns (p,) enough patients have a value in, after making sure that nobody lies beyond `CLIP` in them.

    The ends of the guarded groups enclose every patient and are no patient's value, so being refused tells of no one.
    """
    values = [column[rows] for column in columns]
    groups = guarded_groups_of(values, minimum_count=minimum_count)
    in_sums = np.array([one.n > 0 for one in groups], dtype=np.bool_)
    asked = np.flatnonzero(in_sums & (spread > 0))
    if not asked.size:
        return in_sums
    ends = decode(np.array([[groups[j].start[0], groups[j].end[-1] - 1] for j in asked]))  # (those, 2)
    # What float32 cannot hold lies beyond the last group's end.
    largest = np.array([np.nanmax(np.abs(_finite(values[j]))) for j in asked])
    beyond = largest > np.finfo(np.float32).max
    width = np.ptp(ends, axis=1)
    with np.errstate(over="ignore"):
        # Such a centre would leave few values of a column: a threshold, for which no spread is too wide.
        least = np.maximum(_COARSEST * width, 2 * np.spacing(np.abs(ends).max(axis=1)))
        beyond |= (width > 0) & (np.spacing(np.abs(centre[asked])) > least)
        far = np.abs((ends - centre[asked, None]) / spread[asked, None]).max(axis=1) > CLIP / 2
    if (refused := np.flatnonzero(far | beyond)).size:
        raise IterateRefused(
            f"the centre and spread of feature {asked[refused[0]] + 1} may leave a patient more than {CLIP / 2:g} "
            'spreads away; if the column has a code for "missing", name it in table.missing'
        )
    return in_sums


def _finite(values: FloatArray) -> FloatArray:
    return np.where(np.isfinite(values), values, np.nan)


def _blocks(rows: NDArray[np.intp], features: int) -> list[NDArray[np.intp]]:
    """Rows in blocks that fit a cache: a million patients need no second copy of the table."""
    size = max(1, _BLOCK_VALUES // max(features, 1))
    return [rows[start : start + size] for start in range(0, rows.size, size)]
