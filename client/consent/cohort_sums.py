"""Cohorts that are far apart by pairs may still leave one patient over when they are added and subtracted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations, product

import numpy as np

MOST_TOGETHER = 3
"""Earlier cohorts that are added to and subtracted from a new one at once."""
MOST_COMPARED = 40
"""Earlier cohorts, the newest first, that are looked at: their combinations with signs are 82,000."""


def leaves_few_over(members: Collection[str], earlier: Sequence[Collection[str]], *, minimum_count: int) -> int | None:
    """Which earlier cohort is in a combination that leaves a few patients over; None if there is none.

    Attack: sums over A, B and C, of which C is A and B and one patient more; each pair is far apart. Rule: for two
    to `MOST_TOGETHER` earlier cohorts, each added or subtracted, the patients who are counted other than zero times are
    none or at least the minimum count. Residual risk: multiples, and combinations of more cohorts or of parts of them.

    Parameters
    ----------
    members
        Keyed hashes of the new cohort's patients.
    earlier
        Those of the earlier cohorts, the newest first.
    """
    sets = [frozenset(members), *map(frozenset, earlier[:MOST_COMPARED])]
    everybody = sorted(frozenset[str]().union(*sets))
    inside = np.array([[patient in each for patient in everybody] for each in sets], dtype=np.int8)
    # Patients who are in just the same cohorts count alike, so each such group is one column.
    groups, sizes = np.unique(inside, axis=1, return_counts=True)
    groups = groups.astype(np.int64)
    for count in range(2, MOST_TOGETHER + 1):
        for chosen in combinations(range(1, len(sets)), count):
            for signs in product((1, -1), repeat=count):
                total = groups[0] + np.asarray(signs) @ groups[list(chosen)]
                if 0 < int(sizes[total != 0].sum()) < minimum_count:
                    return chosen[0] - 1
    return None
