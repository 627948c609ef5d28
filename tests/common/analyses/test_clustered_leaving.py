"""The interval of a grouped curve holds the truth also where people leave in clusters, as after yearly visits."""

from __future__ import annotations

import numpy as np
import pytest

from fedage.common.analyses.survival._curve import IntervalCounts, curve

TIMES = tuple(np.arange(0.5, 6.5, 0.5).tolist())
HAZARD = 0.2


def counted(time: np.ndarray, event: np.ndarray) -> IntervalCounts:
    """By interval, with a slow loop; ends belong to the interval before."""
    rows = []
    for start, end in zip((0.0, *TIMES), TIMES, strict=False):
        at_risk, within = time > start, (time > start) & (time <= end)
        inside = within & (time < end)
        rows.append((at_risk.sum(), (within & event).sum(), (inside & event).sum(), (inside & ~event).sum(), 0.0))
    n, d, inside, c, _ = np.array(rows, dtype=float).T
    return IntervalCounts(at_risk=n, events=d, events_inside=inside, censored=c, remaining=n - d - c)


# Just after a visit, a little later, in the middle of the interval, and all along.
@pytest.mark.parametrize("leaves", [0.01, 0.1, 0.25, None])
def test_nineteen_of_twenty_intervals_hold_the_truth_whenever_people_leave(leaves: float | None) -> None:
    rng = np.random.default_rng(4)
    repetitions, at = 100, TIMES.index(4.0)
    truth, held, bias = np.exp(-HAZARD * 4.0), 0, []
    for _ in range(repetitions):
        death = rng.exponential(1 / HAZARD, 5000)
        leave = rng.uniform(0, 9, 5000) if leaves is None else rng.integers(1, 9, 5000) + leaves
        told = curve(TIMES, counted(np.minimum(death, leave), death <= leave))
        assert told["bound_low"][at] <= told["survival"][at] <= told["bound_high"][at]
        held += told["ci95_low"][at] <= truth <= told["ci95_high"][at]
        bias.append(told["survival"][at] - truth)
    assert held >= 0.93 * repetitions
    if leaves == 0.01:  # the estimate itself is too high by about two standard errors
        assert np.mean(bias) > 0.01


def test_where_times_are_exact_the_interval_is_that_of_sampling() -> None:
    counts = IntervalCounts(
        at_risk=np.array([100.0, 80.0]), events=np.array([10.0, 8.0]), events_inside=np.zeros(2),
        censored=np.array([10.0, 4.0]), remaining=np.array([80.0, 68.0]),
    )  # fmt: skip
    told = curve((1.0, 2.0), counts)
    survival = np.cumprod(1 - counts.events / (counts.at_risk - counts.censored))
    variance = np.cumsum(
        counts.events / ((counts.at_risk - counts.censored) * (counts.at_risk - counts.censored - counts.events))
    )
    width = 1.959963984540054 * np.sqrt(variance) / np.abs(np.log(survival))
    assert told["ci95_low"] == pytest.approx(survival ** np.exp(width))
    assert told["ci95_high"] == pytest.approx(survival ** np.exp(-width))
