"""ε of sampled Gaussian mechanisms one after another, from the distribution of their privacy loss.

A patient who is there changes the noised sum of a step from Q = N(0, σ²) to P = (1 − q) N(0, σ²) + q N(1, σ²), in clip
norms. The privacy loss log P/Q of independent steps adds up, so that its distribution is a convolution, here by FFT,
and δ(ε) = E max(0, 1 − e^(ε − L)) exactly. Both directions count: a patient removed (P against Q) and one added (Q
against P); the larger ε is told (Zhu, Dong, Wang 2022, arXiv 2106.08567).

On a grid of spacing Δ the probability of each cell goes to its two ends so that both P and Q keep it ("connecting the
dots", Doroshenko et al. 2022, arXiv 2207.04380): the result is never below the true ε. So are the tails: what lies
above counts as an infinite loss, what lies below goes up to the lowest loss, and what the FFT may wrap around is
bounded by Chernoff and added to δ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtr, ndtri_exp

from fedage.common.statistics.statistic import FloatArray

Kind = tuple[float, float]
"""q and σ of a step."""
_FINENESS, _OF_EPSILON = 25.0, 400.0
"""Δ: a part of the root mean square loss of a step, and of the ε that comes out."""
_TAIL = 1e-4
"""Part of δ that truncation may cost on each side."""
_MOST_CELLS, _MOST_CELLS_OF_A_STEP = 1 << 22, 1 << 18
_GROUPS = 2000
"""Cells that Chernoff's bound looks at."""
_LARGEST_EXPONENT = 690.0


def composed_epsilon(steps: Mapping[Kind, int], *, delta: float) -> float:
    """ε at δ of so many steps of each kind, never below the true value; infinite where none is found.

    δ below 1e-11 would be lost in the rounding of 64-bit numbers.
    """
    count = sum(steps.values())
    if not count:
        return 0.0
    spacing = math.sqrt(sum(t * (q / sigma) ** 2 for (q, sigma), t in steps.items()) / count) / _FINENESS
    found = math.inf
    for _ in range(2):
        found = max(_one_direction(steps, delta=delta, spacing=spacing, removed=removed) for removed in (True, False))
        if spacing <= found / _OF_EPSILON or not 0 < found < math.inf:
            break
        spacing = found / (2 * _OF_EPSILON)
    return found


def _one_direction(steps: Mapping[Kind, int], *, delta: float, spacing: float, removed: bool) -> float:
    count = sum(steps.values())
    log_tail = math.log(delta) + math.log(_TAIL) - math.log(count)
    widest = max(high - low for low, high in (_range(*kind, log_tail=log_tail, removed=removed) for kind in steps))
    spacing = max(spacing, widest / _MOST_CELLS_OF_A_STEP)
    parts = [(_cells(*kind, spacing=spacing, log_tail=log_tail, removed=removed), t) for kind, t in steps.items()]
    log_finite = sum(t * math.log1p(-above) for (_, _, above), t in parts)
    low, high = _window(parts, spacing=spacing, log_outside=math.log(delta * _TAIL))
    cells = high - low + 1
    if cells > _MOST_CELLS:
        return _one_direction(steps, delta=delta, spacing=spacing * (cells / _MOST_CELLS + 1), removed=removed)
    size = next_fast_len(max(cells, 2), real=True)
    transformed: NDArray[Any] = np.ones(size // 2 + 1, dtype=np.complex128)
    for (first, mass, _), t in parts:
        wrapped = np.bincount((first + np.arange(mass.size)) % size, weights=mass, minlength=size)
        transformed *= rfft(wrapped) ** t
    mass = np.maximum(np.roll(irfft(transformed, size), -(low % size))[:cells], 0.0)
    above = -math.expm1(log_finite) + 2 * _TAIL * delta
    return _epsilon_of(spacing * np.arange(low, high + 1, dtype=np.float64), mass, above=above, delta=delta)


def _epsilon_of(loss: FloatArray, mass: FloatArray, *, above: float, delta: float) -> float:
    """The ε with δ(ε) = `delta`, of losses (m,) in order with these probabilities, and an infinite loss."""
    # Over the losses from each one on: P, and Q times e^loss.
    more = np.cumsum(mass[::-1])[::-1]
    # Of losses beyond what an exponential holds Q counts as none, which makes δ larger.
    within = np.abs(loss) < _LARGEST_EXPONENT
    weight = np.exp(np.where(within, loss, 0.0))
    q_more = np.where(within, np.cumsum(np.where(within, mass / weight, 0.0)[::-1])[::-1] * weight, 0.0)
    at = more - q_more + above  # δ at each loss
    if at[-1] > delta:
        return math.inf
    if at[0] <= delta:
        # Below the lowest loss δ(ε) = P − e^(ε − loss_0) Q.
        inside = (more[0] + above - delta) / q_more[0]
        return max(0.0, float(loss[0] + math.log(inside))) if inside > 0 else 0.0
    j = int(np.argmax(at <= delta))
    inside = (more[j] + above - delta) / q_more[j]
    return max(0.0, float(loss[j] + math.log(max(inside, 1e-300))))


Cells = tuple[int, FloatArray, float]
"""The number of the first cell's lower end, probabilities at the ends in order, and that of an infinite loss."""


def _cells(q: float, sigma: float, *, spacing: float, log_tail: float, removed: bool) -> Cells:
    """The loss of one step on the grid."""
    low, high = _range(q, sigma, log_tail=log_tail, removed=removed)
    first, last = math.floor(low / spacing), math.ceil(high / spacing)
    ends = spacing * np.arange(first, last + 1, dtype=np.float64)
    # Where on the line of outcomes the ends of the cells lie, in order of the loss.
    x = _outcome(ends if removed else -ends, q, sigma)
    (p_in, p_below, p_above), (q_in, _, _) = (
        _between(x, share, sigma, rising=removed) for share in ((q, 0.0) if removed else (0.0, q))
    )
    # To the lower end a and to the upper end b of a cell: a + b = P, a + b·e^-Δ = Q·e^lower.
    b = np.clip((p_in - q_in * np.exp(ends[:-1])) / -math.expm1(-spacing), 0.0, p_in)
    mass = np.zeros(ends.size)
    mass[:-1] += p_in - b
    mass[1:] += b
    mass[0] += p_below
    return first, mass, p_above


def _range(q: float, sigma: float, *, log_tail: float, removed: bool) -> tuple[float, float]:
    """The losses outside of which a step lies with at most this probability on each side."""
    z = -float(ndtri_exp(log_tail))
    if removed:
        return _loss(-sigma * z, q, sigma), _loss(1 + sigma * z, q, sigma)
    return -_loss(sigma * z, q, sigma), -_loss(-sigma * z, q, sigma)


def _loss(x: float, q: float, sigma: float) -> float:
    """Log of (1 − q) + q·e^((2x − 1) / 2σ²)."""
    exponent = (2 * x - 1) / (2 * sigma**2)
    if q == 1.0:
        return exponent
    return float(np.logaddexp(math.log1p(-q), math.log(q) + exponent))


def _outcome(loss: FloatArray, q: float, sigma: float) -> FloatArray:
    """The x with this loss; −∞ for a loss at or below log(1 − q)."""
    if q == 1.0:
        exponent = loss
    else:
        least = math.log1p(-q)
        with np.errstate(divide="ignore", invalid="ignore"):
            # log((e^loss − (1 − q)) / q)
            exponent = least + np.log(np.expm1(np.maximum(loss - least, 0.0))) - math.log(q)
    found: FloatArray = sigma**2 * exponent + 0.5
    return found


def _between(x: FloatArray, share: float, sigma: float, *, rising: bool) -> tuple[FloatArray, float, float]:
    """Probabilities between neighbouring x, below the first and above the last, in order of the loss.

    Of (1 − share) N(0, σ²) + share N(1, σ²).
    """

    def over(at: FloatArray) -> FloatArray:  # P(X > x)
        found: FloatArray = (1 - share) * ndtr(-at / sigma) + share * ndtr((1 - at) / sigma)
        return found

    def under(at: FloatArray) -> FloatArray:
        found: FloatArray = (1 - share) * ndtr(at / sigma) + share * ndtr((at - 1) / sigma)
        return found

    if not rising:  # the loss falls with x: x is in falling order
        inside = np.where(x[1:] > 0.5, over(x[1:]) - over(x[:-1]), under(x[:-1]) - under(x[1:]))
        return np.maximum(inside, 0.0), float(over(x[:1])[0]), float(under(x[-1:])[0])
    inside = np.where(x[:-1] > 0.5, over(x[:-1]) - over(x[1:]), under(x[1:]) - under(x[:-1]))
    return np.maximum(inside, 0.0), float(under(x[:1])[0]), float(over(x[-1:])[0])


def _window(parts: list[tuple[Cells, int]], *, spacing: float, log_outside: float) -> tuple[int, int]:
    """First and last cell outside of which the sum of all losses lies with at most this probability on each side."""
    high = float(sum((first + mass.size - 1) * t for (first, mass, _), t in parts))
    low = float(sum(first * t for (first, _, _), t in parts))
    upper, lower = ([(*_grouped(cells, up=up), t) for cells, t in parts] for up in (True, False))
    for rate in np.geomspace(1e-3, 1e4, 100) * spacing:
        # Chernoff: P(S ≥ s) ≤ E e^(λ S) / e^(λ s), and for the other side with −λ.
        high = min(high, (_log_moment(upper, rate) - log_outside) / rate)
        low = max(low, -(_log_moment(lower, -rate) - log_outside) / rate)
    return math.floor(low), math.ceil(high)


def _grouped(cells: Cells, *, up: bool) -> tuple[FloatArray, FloatArray]:
    """Numbers of cells and their probabilities, neighbours together at the greatest (least) of their numbers."""
    first, mass, _ = cells
    group = -(-mass.size // _GROUPS)
    starts = np.arange(0, mass.size, group)
    ends = np.minimum(starts + group, mass.size) - 1
    summed: FloatArray = np.add.reduceat(mass, starts)
    return (first + (ends if up else starts)).astype(np.float64)[summed > 0], summed[summed > 0]


def _log_moment(parts: list[tuple[FloatArray, FloatArray, int]], rate: float) -> float:
    """Log E e^(rate · S) over finite losses, in numbers of cells."""
    total = 0.0
    for number, mass, t in parts:
        exponent = rate * number
        largest = float(exponent.max())
        total += t * (largest + math.log(float(np.exp(exponent - largest) @ mass)))
    return total
