"""Whether a column is a few levels, one step apart, with one or few patients beside them: digits of a sum.

Attack: a model that a coordinator chose predicts 64 and 80 years, and for one patient 80 and a little more. Where ages
are whole years, Σŷ and Σ(Ω − m)ŷ are whole multiples of 16 but for that patient, whose prediction and age are what
remains of a division. A minimum count, and a share of the whole sum, see nothing. Predictions that are cut to 0 or 130
years are such levels too.

Rule, for every step from the noise in a sum of n values up to the column's range: about the levels that fit best, no
patient makes up half of the squares of what remains, and fewer than the minimum count do not make up 95 %. Some step
fits a dozen of any values well: where fewer than `_MANY` patients are off the most frequent value these are nine tenths
and 99 %, and the few are a quarter of them at most. What is finer than that noise a site's keyed noise hides
(`fedage.client.disclosure.dither`).

Residual risk: levels of two sizes at once; more than a quarter of those off the most frequent value; noise is averaged
over models that differ.

Legend: n patients, w steps per unit of the column.
"""

from __future__ import annotations

import hashlib

import numpy as np

from fedage.common.statistics._recent import Recent
from fedage.common.statistics.influence import differing
from fedage.common.statistics.influence_few import NEARLY_ALL
from fedage.common.statistics.statistic import FloatArray

_MANY, _LARGEST, _LARGEST_OF_MANY, _FEW_OF_MANY = 30, 0.9, 0.5, 0.95
_NOISE_SHARE = 1000.0
_PHASES_A_TURN = 16
"""How finely steps are tried: between two of them no patient's place moves by more than a sixteenth of a step."""
_VALUES_AT_ONCE = 1_000_000

_answers: Recent[bool] = Recent(most=512)


def noise_sd_of(values: FloatArray) -> float:
    """Standard deviation of the keyed noise of a column (n,): a power of 2, at most a thousandth of the column's own.

    A power of 2, so that a patient more or fewer seldom changes that of the others.
    """
    known = values[np.isfinite(values)]
    sd = float(known.std()) if known.size else 0.0
    return 2.0 ** float(np.floor(np.log2(sd / _NOISE_SHARE))) if sd > 0 else 0.0


def few_beside_levels(values: FloatArray, *, noise_sd: float, minimum_count: int) -> bool:
    """Whether few of the patients stand beside levels that the others are on; values (n,), some may be missing."""
    known = np.ascontiguousarray(values[np.isfinite(values)], dtype="<f8")
    digest = hashlib.sha256(f"{noise_sd} {minimum_count} ".encode() + known.tobytes()).digest()
    return _answers.of(digest, lambda: _few_beside_levels(known, noise_sd=noise_sd, minimum_count=minimum_count))


def _few_beside_levels(values: FloatArray, *, noise_sd: float, minimum_count: int) -> bool:
    n, span = values.size, float(np.ptp(values)) if values.size else 0.0
    if n < 3 or span <= 0 or noise_sd <= 0:
        return False
    finest = 2 * noise_sd * np.sqrt(n)
    steps = np.arange(1 / span, max(1 / finest, 1.5 / span), 1 / (_PHASES_A_TURN * span))
    several = differing(values)  # those at one level fit any step
    few = min(minimum_count - 1, several // 4)
    largest, held = (_LARGEST_OF_MANY, _FEW_OF_MANY) if several >= _MANY else (_LARGEST, NEARLY_ALL)
    centred = values - np.median(values)
    for some in np.array_split(steps, max(1, steps.size * n // _VALUES_AT_ONCE)):
        squares = np.sort(_beside(centred, some, few=max(few, 1)) ** 2, axis=1) + noise_sd**2
        whole = squares.sum(axis=1)
        if np.any(squares[:, -1] > largest * whole):
            return True
        if few and np.any(squares[:, n - few :].sum(axis=1) > held * whole):
            return True
    return False


def _beside(values: FloatArray, steps: FloatArray, *, few: int) -> FloatArray:
    """How far (w, n) values are from the nearest level, for levels 1/w apart; the `few` farthest do not place them."""
    turns = np.outer(steps, values)
    place = np.angle(np.exp(2j * np.pi * turns).sum(axis=1)) / (2 * np.pi)
    for _ in range(2):
        off = turns - place[:, None]
        off -= np.round(off)
        near = np.argpartition(np.abs(off), values.size - few, axis=1)[:, : values.size - few]
        place = place + np.take_along_axis(off, near, axis=1).mean(axis=1)
    off = turns - place[:, None]
    off -= np.round(off)
    beside: FloatArray = off / steps[:, None]
    return beside
