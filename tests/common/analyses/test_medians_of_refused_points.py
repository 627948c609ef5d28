"""A median is "not reached" only where the curve stays above ½; a point that is refused counts by its bounds."""

from __future__ import annotations

import numpy as np
import pytest

from fedage.common.analyses.survival._curve import IntervalCounts, curve
from fedage.common.analyses.survival._kaplan_meier_shown import median
from fedage.common.analyses.survival.results import SurvivalCurve

Times = tuple[float, ...]


def group(times: Times, at_risk: list[int], events: list[int], censored: list[int]) -> SurvivalCurve:
    """All of an interval's events inside it."""
    n, d, c = (np.array(values, dtype=np.float64) for values in (at_risk, events, censored))
    found = curve(times, IntervalCounts(at_risk=n, events=d, events_inside=d, censored=c, remaining=n - d - c))
    return SurvivalCurve.model_validate({"name": "everybody", **found})


@pytest.mark.parametrize(
    ("times", "counts", "said"),
    [
        ((5.0,), ([500], [290], [110]), "between 0 and 5"),  # .42 at the most: it was said not to be reached
        ((5.0,), ([500], [200], [200]), "not given"),  # .33 to .60
        ((5.0,), ([500], [60], [200]), "not reached"),  # .80 at the least
        ((1.0, 5.0), ([1000, 900], [100, 560], [0, 140]), "between 1 and 5"),
        ((1.0, 2.0, 5.0), ([1000, 900, 500], [100, 60, 150], [0, 340, 300]), "not given"),
        ((1.0, 2.0), ([1000, 900], [100, 100], [0, 0]), "not reached"),
    ],
)  # fmt: skip
def test_a_refused_point_counts_by_its_bounds(times: Times, counts: tuple[list[int], ...], said: str) -> None:
    found = group(times, *counts)
    assert median(found) == said
    assert bool(found.refused[-1]) is (counts[2][-1] > 0)


def test_the_bounds_hold_the_medians_of_exact_times() -> None:
    rng = np.random.default_rng(5)
    for seed in range(40):
        time = rng.exponential(2 + 6 * rng.random(), 800)
        left = rng.uniform(0, 4 + 10 * rng.random(), 800)
        ends = np.sort(rng.choice(np.arange(1.0, 9.0), size=1 + seed % 3, replace=False))
        counts: tuple[list[int], ...] = ([], [], [])
        for begin, end in zip([0.0, *ends], ends, strict=False):
            there = (np.minimum(time, left) > begin) | (begin == 0)
            counts[0].append(int(there.sum()))
            counts[1].append(int((there & (time <= left) & (time <= end)).sum()))
            counts[2].append(int((there & (left < time) & (left < end)).sum()))
        found = group(tuple(ends.tolist()), *counts)
        # Censoring is independent of the time, so the true median is that of all the times.
        truth = float(np.median(time))
        if found.median_between is not None and found.survival[0] is None:
            assert found.median_between[0] - 0.4 <= truth <= found.median_between[1] + 0.4
        if median(found) == "not reached":
            assert truth > ends[-1] - 0.4
