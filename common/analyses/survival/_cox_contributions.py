"""What each patient contributes to the gradient and the information of Cox's model, for the influence rule.

At a death at t, over those at risk with weights w = e^η, their sum S0(t) and mean x̄(t): the gradient is Σ over deaths
of x − x̄(t), the information Σ over deaths of Σ_{at risk} w (x − x̄(t))(x − x̄(t))ᵀ / S0(t) (ties as Breslow's, which
is enough to see who dominates). Of one patient, with dN(t) deaths at t and t_i the patient's own time, the first is the
score residual

    δ_i (x_i − x̄(t_i)) − w_i Σ_{t ≤ t_i} dN(t)/S0(t) · (x_i − x̄(t)),

and the patient's weight in the means of all deaths is w_i Σ_{t ≤ t_i} dN(t)/S0(t): these add up to the deaths.

Legend: n patients, p covariates, T distinct times of a stratum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.influence import InfluenceRefused, InfluenceRule, largest_shares
from fedage.common.statistics.influence_few import NEARLY_ALL
from fedage.common.statistics.statistic import FloatArray

LOWEST_ETA = -600.0
"""Below the largest η of a stratum: keeps weights above 0."""
NINE_TENTHS = 0.9
"""Largest share of one patient in a weighted sum of squares or products over a group of few, and of fewer patients than
the minimum count in the weights of all deaths: of honest fits of up to 2 per SD they have less."""


@dataclass(frozen=True)
class Contributions:
    """What each patient adds at one β.

    Parameters
    ----------
    weight
        (n,)
    gradient
        (n, p)
    information
        (n, p, p)
    """

    weight: FloatArray
    gradient: FloatArray
    information: FloatArray


def contributions_at(
    x: FloatArray, time: FloatArray, event: NDArray[np.bool_], strata: FloatArray, eta: FloatArray
) -> Contributions:
    """Contributions of patients with covariates (n, p) and η (n,); distinct rows of `strata` (n, k) are strata."""
    n, p = x.shape
    weight, gradient, information = np.zeros(n), np.zeros((n, p)), np.zeros((n, p, p))
    if not n:
        return Contributions(weight, gradient, information)
    stratum = np.unique(strata, axis=0, return_inverse=True)[1].ravel() if strata.shape[1] else np.zeros(n, dtype=int)
    for one in np.unique(stratum):
        rows = np.flatnonzero(stratum == one)
        w = np.exp(np.maximum(eta[rows] - eta[rows].max(), LOWEST_ETA))
        weight[rows], gradient[rows], information[rows] = _of_stratum(
            x[rows] - x[rows].mean(axis=0), time[rows], event[rows], w
        )
    return Contributions(weight, gradient, information)


def require_spread(contributions: Contributions, rule: InfluenceRule) -> None:
    """Refuse sums at a β that makes them one patient's.

    Attack: far from β = 0 the mean over a risk set is the record of the patient with the largest η, and so are
    differences of gradients; farther out the sums are of the three or four who are the largest in turn, half each or
    less, and a few β solve for them. Rule: nobody has more than `largest_share` of the weights, of the absolute
    contributions to the gradient, or of those to the information, and fewer than the minimum count do not have nine
    tenths of the weights. Residual risk: sums at several β weigh the same patients differently, so they are equations
    for those with the largest η; how many β are answered is counted.

    Raises
    ------
    InfluenceRefused
        If somebody has.
    """
    n, p = contributions.gradient.shape
    ones = np.ones((n, 1))
    parts = (contributions.weight[:, None], contributions.gradient, contributions.information.reshape(n, p * p))
    alone = any(largest_shares(part, ones, limit=rule.largest_share).any() for part in parts)
    if alone or _few_hold(contributions.weight, rule, limit=NINE_TENTHS):
        raise InfluenceRefused(
            "at these coefficients one patient, or a few, would make up too much of the sums over those at risk; fewer "
            "covariates, or a transform of a skewed one, keep them nearer to 0"
        )


def spread_in_groups(z: FloatArray, weights: FloatArray, rule: InfluenceRule) -> bool:
    """Whether nobody, and no few, have too large a share of Σw, Σw(z − z̄)² and products, in each of several groups.

    Parameters
    ----------
    z
        Covariates, (n, p).
    weights
        (n, G): each group's, 0 for patients who are not in it; z̄ is the group's weighted mean.
    """
    for w in weights.T:
        inside = w > 0
        if not inside.any():
            continue
        share, ones = w[inside][:, None], np.ones((int(inside.sum()), 1))
        centred = z[inside] - (share * z[inside]).sum(axis=0) / share.sum()
        root = np.sqrt(share) * centred
        if (
            largest_shares(share, ones, limit=rule.largest_share).any()
            or largest_shares(root, root, limit=max(NINE_TENTHS, rule.largest_share)).any()
            or _few_hold(share[:, 0], rule, limit=NEARLY_ALL)
        ):
            return False
    return True


def _few_hold(weight: FloatArray, rule: InfluenceRule, *, limit: float) -> bool:
    """Whether fewer than the minimum count, and at most a third of the patients, have more than `limit` of Σw (n,)."""
    few = min(rule.minimum_count - 1, weight.size // 3)
    if few < 1 or rule.largest_share >= 1:
        return False
    return bool(np.sort(weight)[-few:].sum() > limit * weight.sum())


def _of_stratum(
    x: FloatArray, time: FloatArray, event: NDArray[np.bool_], w: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    _, when = np.unique(time, return_inverse=True)
    when = when.ravel()
    size = int(when.max()) + 1
    deaths = np.bincount(when[event], minlength=size)
    s0 = np.cumsum(np.bincount(when, weights=w, minlength=size)[::-1])[::-1]
    sums = np.stack([np.bincount(when, weights=w * column, minlength=size) for column in x.T], axis=1)
    mean = np.cumsum(sums[::-1], axis=0)[::-1] / s0[:, None]  # (T, p)
    rate = deaths / s0
    a = w * np.cumsum(rate)[when]
    b = w[:, None] * np.cumsum(rate[:, None] * mean, axis=0)[when]
    c = w[:, None, None] * np.cumsum(rate[:, None, None] * mean[:, :, None] * mean[:, None, :], axis=0)[when]
    gradient = np.where(event[:, None], x - mean[when], 0.0) - (a[:, None] * x - b)
    cross = x[:, :, None] * b[:, None, :]
    information = a[:, None, None] * x[:, :, None] * x[:, None, :] - cross - cross.transpose(0, 2, 1) + c
    return a, gradient, information


def weighted_moments(z: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """W, wz and the upper triangle of wzzᵀ of each patient: (n, 1), (n, p), (n, p(p+1)/2)."""
    rows, columns = np.triu_indices(z.shape[1])
    weighted = w[:, None] * z
    return w[:, None], weighted, weighted[:, rows] * z[:, columns]
