"""ROC AUC of a value for a group, from histograms on a fixed grid, with the bounds that the grid leaves open.

AUC = P(x > y) + ½ P(x = y), x a value of the group, y one of the reference. Pairs of one site are counted there and are
exact; pairs across sites come from the summed histograms, which know a value only up to the span of cells it lies in.

A site cuts the grid, for each group apart, into spans that hold at least `minimum_count` patients each, at the roundest
cell indices that allow it ([own]: a round cut tells least of the values beside it). It sends each span's patients three
times: all in its first cell, all in its last one, and where they likely are; the first two bound every pair, and so the
AUC of all sites.

The sampling variance is DeLong's (1988): with V(x) the share of the reference that a value x of the group is above
(ties by half) and V(y) the share of the group above y, it is Var V(x)/m + Var V(y)/n over m and n patients. Of pairs of
one site it is exact, as each site works out its own; of all pairs it comes from where the histograms say values likely
are, and counts patients as drawn from one population, the sites' levels included. The interval is symmetric for the
logit (Qin and Hotilovac 2008), so that it stays within 0 and 1.

Notation: C cells, n values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.columns import MAX_GAP_YEARS
from fedage.common.statistics.statistic import FloatArray

CELLS = 512
BOUNDS = ("low", "likely", "high", "joined_low", "joined_high")
"""What `pairs_between` tells."""
_FINE_YEARS = 2.0
EDGES_YEARS: FloatArray = _FINE_YEARS * np.sinh(
    np.linspace(-1.0, 1.0, CELLS + 1) * np.arcsinh(MAX_GAP_YEARS / _FINE_YEARS)
)
"""(C + 1,): cells of 0.04 years around 0 and of about 2 % of the gap beyond 2 years."""

Counts = NDArray[np.int64]
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Histogram:
    """One group's patients by cell (C,): all in their span's first cell, in its last one, and where they likely are."""

    first: FloatArray
    likely: FloatArray
    last: FloatArray
    smallest_span: int = 0


def histogram(gap_years: FloatArray, *, minimum_count: int) -> Histogram:
    """A site's histogram of one group's gaps (n,), without a span of fewer than `minimum_count` patients.

    With fewer patients in all there is one span, which the guard has to withhold.
    """
    cell = np.clip(np.searchsorted(EDGES_YEARS, gap_years, side="right") - 1, 0, CELLS - 1)
    counts = np.bincount(cell, minlength=CELLS).astype(np.int64)
    mean = float(gap_years.mean()) if gap_years.size else 0.0
    spread = max(float(gap_years.std()), 1e-3) if gap_years.size else 1.0
    first, likely, last = np.zeros(CELLS), np.zeros(CELLS), np.zeros(CELLS)
    smallest = gap_years.size
    for start, end in spans(counts, minimum_count):
        patients = int(counts[start:end].sum())
        if patients == 0:
            continue
        smallest = min(smallest, patients)
        first[start], last[end - 1] = patients, patients
        likely[start:end] = patients * _likely_share(start, end, mean, spread)
    return Histogram(first=first, likely=likely, last=last, smallest_span=smallest)


def spans(counts: Counts, minimum_count: int) -> list[tuple[int, int]]:
    """[start, end) of the spans: whatever can be cut into two parts of at least `minimum_count` is cut."""
    if minimum_count <= 1:
        return [(cell, cell + 1) for cell in range(counts.size)]
    running = np.concatenate([[0], np.cumsum(counts)])
    done, todo = [], [(0, counts.size)]
    while todo:
        start, end = todo.pop()
        # Cuts c with enough patients in [start, c) and in [c, end).
        lowest = int(np.searchsorted(running, running[start] + minimum_count, side="left"))
        highest = int(np.searchsorted(running, running[end] - minimum_count, side="right")) - 1
        if lowest > highest:
            done.append((start, end))
            continue
        cut = _roundest(lowest, highest)
        todo += [(start, cut), (cut, end)]
    return sorted(done)


def _roundest(lowest: int, highest: int) -> int:
    """The multiple of the highest power of two from lowest ≥ 1 to highest."""
    step = 1
    while (highest // (2 * step)) * 2 * step >= lowest:
        step *= 2
    return (highest // step) * step


def _likely_share(start: int, end: int, mean: float, spread: float) -> FloatArray:
    """Shares (end − start,) of a span's patients in its cells if values were normal; they sum to 1."""
    from scipy.special import ndtr

    edges = EDGES_YEARS[start : end + 1].copy()
    edges[0] = -np.inf if start == 0 else edges[0]
    edges[-1] = np.inf if end == CELLS else edges[-1]
    share: FloatArray = np.diff(ndtr((edges - mean) / spread))
    total = share.sum()
    return share / total if total > 0 else np.full(end - start, 1 / (end - start))


def pairs_won(group: FloatArray, reference: FloatArray) -> float:
    """Pairs in which the group's value (n,) is the larger, ties by half, from the values themselves."""
    ordered = np.sort(reference)
    below = np.searchsorted(ordered, group, side="left")
    not_above = np.searchsorted(ordered, group, side="right")
    return float((below + not_above).sum()) / 2


def pairs_between(group: Histogram, reference: Histogram) -> dict[str, float]:
    """Pairs won between two histograms: at the least (`low`), likely, and at the most (`high`).

    `joined_low` and `joined_high` are the bounds of values rounded to cells, pairs of one cell by half.
    """

    def won(ours: FloatArray, theirs: FloatArray, same_cell: float) -> float:
        return float(ours @ (np.cumsum(theirs) - theirs + same_cell * theirs))

    return {
        "low": won(group.first, reference.last, 0.0),
        "likely": won(group.likely, reference.likely, 0.5),
        "high": won(group.last, reference.first, 1.0),
        "joined_low": won(group.first, reference.last, 0.5),
        "joined_high": won(group.last, reference.first, 0.5),
    }


def variance_of_pairs(group: FloatArray, reference: FloatArray) -> float:
    """DeLong's variance of the AUC from the values themselves, (m,) and (n,), of at least two patients each."""
    above = _shares(np.sort(reference), group)
    below = 1 - _shares(np.sort(group), reference)
    return float(above.var(ddof=1) / group.size + below.var(ddof=1) / reference.size)


def variance_between(group: Histogram, reference: Histogram) -> float | None:
    """DeLong's variance of the AUC of all pairs, values where they likely are; None for a group of one patient."""
    ours, theirs = group.likely, reference.likely
    m, n = float(ours.sum()), float(theirs.sum())
    if min(m, n) < 2:
        return None
    above = (np.cumsum(theirs) - theirs / 2) / n
    below = 1 - (np.cumsum(ours) - ours / 2) / m

    def variance(shares: FloatArray, counts: FloatArray, size: float) -> float:
        mean = float(shares @ counts) / size
        return float((shares - mean) ** 2 @ counts) / (size - 1) / size

    return variance(above, ours, m) + variance(below, theirs, n)


def interval(auc: float, variance: float | None) -> list[float] | None:
    """The 95 % interval; None where there is no variance, or nothing varies because the groups do not overlap."""
    if variance is None or variance <= 0 or not 0 < auc < 1:
        return None
    from scipy.special import expit

    logit, half = np.log(auc / (1 - auc)), _Z95 * np.sqrt(variance) / (auc * (1 - auc))
    return [float(expit(logit - half)), float(expit(logit + half))]


def _shares(ordered: FloatArray, values: FloatArray) -> FloatArray:
    """Share of the `ordered` that each value is above, ties by half."""
    counted = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    shares: FloatArray = counted / (2.0 * ordered.size)
    return shares
