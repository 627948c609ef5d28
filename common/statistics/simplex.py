"""Weights that are not negative and have the sum 1, of the least squared error, from a matrix of mean products.

Legend: K members, e_k the error of member k; G = E[e eᵀ], (K, K). The error of Σ w_k ŷ_k with Σ w = 1 is Σ w_k e_k, so
its mean square is wᵀ G w.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from fedage.common.statistics.statistic import FloatArray

MOST_MEMBERS = 12
"""More have too many supports to try them all."""
_SINGULAR = 1e-12


def least_squares_weights(products: FloatArray) -> FloatArray:
    """The w ≥ 0, Σ w = 1, (K,) that minimise wᵀ G w.

    On its support S an optimum is G_S⁻¹ 1 / (1ᵀ G_S⁻¹ 1), and an optimum with an invertible G_S exists; so the best of
    all supports whose solution is not negative is exact, whatever K, and needs no iteration. Of equal ones the smaller
    support, then the earlier members.

    Two members of the same error 1 and correlation 0 count the same; one of three times the SD counts a tenth:

    >>> least_squares_weights(np.diag([1.0, 1.0])).tolist()
    [0.5, 0.5]
    >>> least_squares_weights(np.diag([1.0, 9.0])).round(12).tolist()
    [0.9, 0.1]

    Parameters
    ----------
    products
        G, symmetric.

    Raises
    ------
    ValueError
        If there are no members or too many, or G is not finite.
    """
    members = len(products)
    if not 1 <= members <= MOST_MEMBERS or not np.isfinite(products).all():
        raise ValueError(f"G must be of 1 to {MOST_MEMBERS} members, all numbers finite")
    scale = float(np.diag(products).max())
    best, best_weights = np.inf, np.zeros(members)
    for size in range(1, members + 1):
        for support in combinations(range(members), size):
            inside = products[np.ix_(support, support)]
            if size > 1 and np.linalg.eigvalsh(inside)[0] <= _SINGULAR * scale:
                continue
            weights = np.ones(1) if size == 1 else np.linalg.solve(inside, np.ones(size))
            weights = weights / weights.sum()
            if weights.min() < 0:
                continue
            value = float(weights @ inside @ weights)
            if value < best - _SINGULAR * scale:
                best, best_weights = value, np.zeros(members)
                best_weights[list(support)] = weights
    return best_weights
