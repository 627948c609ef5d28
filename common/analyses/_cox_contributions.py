"""What each patient contributes to the gradient and the information of Cox's model at β = 0, for the influence rule.

At a death at t, over the n(t) at risk with mean x̄(t): the gradient is Σ over deaths of x − x̄(t), the information Σ over
deaths of Σ_{at risk} (x − x̄(t))(x − x̄(t))ᵀ / n(t) (ties as Breslow's, which is enough to see who dominates). Of one
patient, with dN(t) deaths at t and t_i the patient's own time, the first is the score residual

    δ_i (x_i − x̄(t_i)) − Σ_{t ≤ t_i} dN(t)/n(t) · (x_i − x̄(t)).

Legend: n patients, p covariates, T distinct times of a stratum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistic import FloatArray


def gradient_and_information(
    x: FloatArray, time: FloatArray, event: NDArray[np.bool_], strata: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Contributions (n, p) and (n, p, p) of patients with covariates (n, p); rows of `strata` (n, k) are strata."""
    n, p = x.shape
    gradient, information = np.zeros((n, p)), np.zeros((n, p, p))
    if not n:
        return gradient, information
    stratum = np.unique(strata, axis=0, return_inverse=True)[1].ravel() if strata.shape[1] else np.zeros(n, dtype=int)
    for one in np.unique(stratum):
        rows = np.flatnonzero(stratum == one)
        gradient[rows], information[rows] = _of_stratum(x[rows] - x[rows].mean(axis=0), time[rows], event[rows])
    return gradient, information


def _of_stratum(x: FloatArray, time: FloatArray, event: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    _, when = np.unique(time, return_inverse=True)
    when = when.ravel()
    size = int(when.max()) + 1
    deaths = np.bincount(when[event], minlength=size)
    at_risk = np.cumsum(np.bincount(when, minlength=size)[::-1])[::-1]
    sums = np.stack([np.bincount(when, weights=column, minlength=size) for column in x.T], axis=1)
    mean = np.cumsum(sums[::-1], axis=0)[::-1] / at_risk[:, None]  # (T, p)
    rate = deaths / at_risk
    a = np.cumsum(rate)[when]
    b = np.cumsum(rate[:, None] * mean, axis=0)[when]
    c = np.cumsum(rate[:, None, None] * mean[:, :, None] * mean[:, None, :], axis=0)[when]
    gradient = np.where(event[:, None], x - mean[when], 0.0) - (a[:, None] * x - b)
    cross = x[:, :, None] * b[:, None, :]
    information = a[:, None, None] * x[:, :, None] * x[:, None, :] - cross - cross.transpose(0, 2, 1) + c
    return gradient, information
